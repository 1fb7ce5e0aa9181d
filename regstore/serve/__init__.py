"""A read-only registry and its pages, straight from a store or from a backup.

opening     the pages of what is served: of a store or one snapshot, or of a whole backup
server      the listening server around all of it: `connections` in bounds, a `certificate` that may be renewed,
            `access` by password, clients told apart behind `proxies`; `answers` knows how an error is said
mounts      which repositories there are, and in what store each lies
api         the registry API (OCI distribution specification 1.1): `manifests` by `accept`, blobs by `bodies`,
            `referrers`
index       one inventory of what is served (`index.sql`), kept fresh, which pages are made from
pages       the pages of one store: lists as `listing` was asked for, an `image` in words of its `kinds`, what is
            attached decoded (`attachment`), space as a `treemap`, what gc would take (`garbage`), `health`
rendering   pages from templates
contents    what an image page reads of the store
past        the pages of a backup: its snapshots, and one tag through them
metrics     the same in figures, for monitors
report      space, garbage and health as one file
"""
