"""The library without `await`: the same objects, functions and names.

    import regstore.sync
    from regstore.gc import GcRunOptions

    with regstore.sync.open("/srv/registry") as registry:
        for repository in registry.repositories():
            for tag in repository.tags:
                print(repository.name, tag.name, tag.digest)

        with regstore.sync.gc.open_run(registry.storage, GcRunOptions()) as run:
            print(run.summary.blobs.dead, "blobs are dead")

The objects of `open`: Registry, Repository, Tags, Manifests, Blobs, StoreBlobs, Uploads, BlobReader. Modules: backup,
exchange, gc, migrate, seed, storage, verify; what is a coroutine in `regstore.gc` is a plain function in
`regstore.sync.gc`, and options and results are the same.

What is open shares an event loop in a thread of its own, which ends with the last of it; use it from as many threads as
you like. An iterator is driven lazily, by growing batches: what is read ahead is at most some hundred items.

Ctrl-C cancels what is under way, waits until that has put things right (gives the lock back, removes what is half
written), and comes through as KeyboardInterrupt; a second one does not wait. In a thread that runs an event loop
itself, every call is a RuntimeError: there, await what `regstore` has. `on_event` is called in the loop's thread.

A Storage has no blocking form: it is opened by `regstore.sync.storage.open_storage` and given to these functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from regstore.lazy import lazily
from regstore.sync.registry import (
    BlobReader,
    Blobs,
    Manifests,
    Registry,
    Repository,
    StoreBlobs,
    Tags,
    Uploads,
    open,
)

if TYPE_CHECKING:
    from regstore.sync import backup, exchange, gc, migrate, seed, storage, verify
else:
    __getattr__, __dir__ = lazily(__name__)

__all__ = [
    "BlobReader",
    "Blobs",
    "Manifests",
    "Registry",
    "Repository",
    "StoreBlobs",
    "Tags",
    "Uploads",
    "backup",
    "exchange",
    "gc",
    "migrate",
    "open",
    "seed",
    "storage",
    "verify",
]
