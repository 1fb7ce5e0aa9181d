"""A registry's storage as relations: scan it once, then plan in SQL.

inventory       the relations (`schema.sql`), in a `place`: a DuckDB file of their own, or a schema in that of another
schema          their SQL, and that of the macros that speak of them (`vocabulary.sql`)
statements      named statements of the planners' `.sql` files, run with parameters
scan            fills an inventory: listings (`listing`, by `decode.sql`, `ingest.sql`), `links`, `manifests` (`cache`)
reported        blobs from an S3 Inventory report in place of their listing
reachability    what each repository's roots keep
usage           bytes by repository, for `du`
tag_times       when tags were last set, by the record in the store
unlinked        blobs that no link names, and that came after the newest link
whose           whose registry it is: are the links the whole truth?
sample          other objects of a store, to tell damage from outage
leftovers       files that killed runs left on a disk
"""
