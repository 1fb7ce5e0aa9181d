"""regstore: the storage under a container registry, in S3 or on disk.

    import regstore

    async with regstore.open("/srv/registry") as registry:
        async for repository in registry.repositories():
            tags = [tag.name async for tag in repository.tags]
            print(repository.name, tags)

regstore.open             a registry as objects: Registry, Repository, Tag, StoredManifest, Manifest, Platform,
                          BlobInfo, Upload, Referrer, Description; Digest and Reference name them
regstore.gc               collect garbage, look into the trash, give back what lies there
regstore.migrate          copy a registry to another store
regstore.backup           snapshots: create, check, restore, prune
regstore.exchange         OCI image layouts: export, import
regstore.verify           find damage, repair it, examine a store
regstore.seed             make an empty place a healthy store
regstore.storage          the store itself, which all of these take: `open_storage`, or `Registry.storage`
regstore.errors           every error is a RegstoreError, and one sentence
regstore.events           what an `on_event` is told of
regstore.testing          for tests: what every backend has to pass, and a store that fails where you say
regstore.sync             all of it without `await`

What these name in `__all__` is public, and stays. Everything else may change with any version. A name is loaded when
it is first used: `import regstore` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from regstore.lazy import lazily

if TYPE_CHECKING:
    from regstore import backup, errors, events, exchange, gc, migrate, seed, storage, sync, verify
    from regstore.digest import Digest
    from regstore.errors import RegstoreError
    from regstore.manifest import Manifest, Platform
    from regstore.reference import Reference
    from regstore.registry import (
        BlobInfo,
        Description,
        Referrer,
        Registry,
        Repository,
        StoredManifest,
        Tag,
        Upload,
    )
    from regstore.registry.opening import open
else:
    __getattr__, __dir__ = lazily(__name__)

__version__ = "0.1.0"

__all__ = [
    "BlobInfo",
    "Description",
    "Digest",
    "Manifest",
    "Platform",
    "Reference",
    "Referrer",
    "Registry",
    "RegstoreError",
    "Repository",
    "StoredManifest",
    "Tag",
    "Upload",
    "backup",
    "errors",
    "events",
    "exchange",
    "gc",
    "migrate",
    "open",
    "seed",
    "storage",
    "sync",
    "verify",
]
