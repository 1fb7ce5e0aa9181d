"""Taking back a copy whose bytes are wrong: the next run, or a push, would take it for the blob.

It lies under the blob's own name, where others may have put the right bytes meanwhile, or gc may be at work. So it goes
as gc takes blobs: under the lock, journaled, read once more, and kept aside in the trash, where nothing ever takes it
for a good copy (`damaged/`). On a disk it is renamed and read then, so that right bytes come back in any case; a bucket
is asked once more, just before the delete, whether it is still what was read.
"""

from __future__ import annotations

from regstore import layout
from regstore.digest import Digest
from regstore.errors import LockHeld, StorageError
from regstore.state.journal import DAMAGED, Entry, Journal
from regstore.state.lock import Lock, hold_lock
from regstore.storage.base import ObjectInfo, Storage
from regstore.storage.streams import verified_size


async def take_back(target: Storage, digest: Digest, size: int, *, source: str, own: set[str]) -> None:
    """own: gets the run that does it, by whose journal nobody else is at work. StorageError where another run holds the
    lock: the copy stands then, and the message says so."""
    try:
        async with hold_lock(target, command="migrate") as lock:
            own.add(lock.run)
            await _take_back(target, lock, digest, size, source)
    except LockHeld as error:
        raise StorageError(
            f"{target.url}/{layout.blob_key(digest)} is a bad copy that could not be taken back, for {error};"
            " run migrate again with --verify full once that has ended"
        ) from error


async def _take_back(target: Storage, lock: Lock, digest: Digest, size: int, source: str) -> None:
    key = layout.blob_key(digest)
    info = await _listed(target, key)
    if info is None or await verified_size(target, key, digest, size) is not None:
        return
    journal = Journal(target, lock.run)
    await journal.begin({"command": "migrate", "source": source, "takes_back": str(digest)})
    await lock.guard()
    await journal.write([Entry(DAMAGED, key, info.size, info.mtime)])
    aside = f"{journal.trash}damaged/{key}"
    if (await target.capabilities()).atomic_rename:
        async with lock.batch():
            await target.move(key, aside, size=info.size)
        if await verified_size(target, aside, digest, size) is not None and await _listed(target, key) is None:
            await target.copy(aside, key, size=size)
    else:
        await target.copy(key, aside, size=info.size)
        async with lock.batch():
            if await _listed(target, key) == info:
                outcome = (await target.delete_many([key]))[key]
                if outcome is not None:
                    raise outcome
    await journal.end({"blobs": 1})


async def _listed(target: Storage, key: str) -> ObjectInfo | None:
    async for page in target.list(key):
        return next((info for info in page.objects() if info.key == key), None)
    return None
