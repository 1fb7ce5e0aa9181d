"""Blobs copied back from the trash, by what they are and not by what they are called.

A copy that has rotted in the trash, or was changed there, must not come to stand for the blob: a registry does not
write a blob that exists, so no later push would mend it. So every copy is read, which costs as much as a pull of it.
"""

from __future__ import annotations

from regstore import layout
from regstore.digest import Digest
from regstore.errors import IntegrityError
from regstore.layout import BlobKey
from regstore.storage.base import Storage
from regstore.storage.streams import copy_blob, verified_size

_READS = 2


async def copy_back(storage: Storage, source: str, digest: Digest, *, size: int) -> bool:
    """Copy the blob's copy at `source`, of `size` bytes, to where the blob belongs; False, and nothing there, where it
    was read twice and did not have the digest. Memory is bounded. NotFound where there is no copy."""
    target = layout.encode(BlobKey(digest))
    if (await storage.capabilities()).atomic_rename:  # a disk: it is read on its way
        for _ in range(_READS):
            try:
                await copy_blob(storage, source, storage, target, digest=digest, size=size, put=None)
                return True
            except IntegrityError:
                continue
        return False
    for _ in range(_READS):
        if await verified_size(storage, source, digest, size) == size:
            # By the server: the copy keeps the class and the encryption that it was stored with.
            await storage.copy(source, target, size=size)
            return True
    await storage.stat(source)  # NotFound
    return False
