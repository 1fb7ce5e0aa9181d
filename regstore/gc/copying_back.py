"""Blobs copied back from the trash, by what they are and not by what they are called.

A copy that has rotted in the trash, or was changed there, must not come to stand for the blob: a registry does not
write a blob that exists, so no later push would mend it. So every copy is read, which costs as much as a pull of it.
"""

from __future__ import annotations

from regstore import layout
from regstore.digest import Digest
from regstore.errors import IntegrityError, NotFound, StorageError
from regstore.storage.base import Storage
from regstore.storage.outage import error_of_source
from regstore.storage.streams import copy_blob, is_fatal, verified_size

_READS = 2


async def copy_back(storage: Storage, source: str, digest: Digest, *, size: int) -> bool:
    """Copy the blob's copy at `source`, of `size` bytes, to where the blob belongs; False, and nothing there, where it
    was read twice and did not have the digest, or where the store has the copy and does not give it. Memory is bounded.
    NotFound where there is no copy."""
    target = layout.blob_key(digest)
    if (await storage.capabilities()).atomic_rename:  # a disk: it is read on its way
        for _ in range(_READS):
            try:
                await copy_blob(storage, source, storage, target, digest=digest, size=size, put=None)
                return True
            except IntegrityError:
                continue
            except StorageError as error:
                if is_fatal(error) or isinstance(error, NotFound):
                    raise
                if await error_of_source(storage, source, digest, size, error) is None:
                    raise  # what can't be written is not the copy's fault
                return False
        return False
    if not await is_whole(storage, source, digest, size=size):
        return False
    # By the server: the copy keeps the class and the encryption that it was stored with.
    await storage.copy(source, target, size=size)
    return True


async def is_whole(storage: Storage, source: str, digest: Digest, *, size: int) -> bool:
    """Whether one of two reads of a blob's copy has the digest and the size. NotFound where there is no copy."""
    for _ in range(_READS):
        try:
            found = await verified_size(storage, source, digest, size)
        except StorageError as error:
            if is_fatal(error):
                raise
            return False
        if found == size:
            return True
    await storage.stat(source)  # NotFound
    return False
