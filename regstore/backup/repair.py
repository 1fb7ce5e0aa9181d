"""What is lost or damaged in a backup, written anew from another copy: a registry's store, or another backup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from regstore import layout
from regstore.backup import format as form
from regstore.backup.opening import check_marker
from regstore.digest import Digest
from regstore.errors import InputError, StorageError
from regstore.storage.base import PutOptions, Storage
from regstore.storage.streams import is_fatal
from regstore.storage.transfer import Carrier, each_blob, largest_first


async def is_backup(storage: Storage) -> bool:
    """Whether right bytes may come from a backup, or from a registry's store. InputError where it is neither."""
    if await check_marker(storage):
        return True
    async for page in storage.list(layout.PREFIX):
        if page.keys:
            return False
    raise InputError(f"{storage.url} holds neither a registry nor a backup: nothing can be repaired from there")


@dataclass(frozen=True, slots=True)
class Copy:
    """Where the right bytes may be. A registry has blobs only; another backup has packs and snapshots too, under the
    same names: they are those of their content."""

    storage: Storage
    is_backup: bool
    put: PutOptions | None

    @classmethod
    async def of(cls, storage: Storage, put: PutOptions | None) -> Copy:
        """InputError where it is neither; NoSuchBucket where nothing is there at all."""
        return cls(storage, await is_backup(storage), put)

    async def write_marker(self, backup: Storage) -> bool:
        """Where the other copy is a backup, this one is no accident either. Whether it was written."""
        if self.is_backup:
            await backup.put(form.MARKER, form.marker_body(await backup.now()), options=self.put)
        return self.is_backup

    async def mend(self, backup: Storage, keys: Iterable[str]) -> set[str]:
        """Write packs and snapshots anew; those that the other copy had, whole and right."""
        mended = set()
        for key in keys if self.is_backup else ():
            try:
                body = await self.storage.get(key)
                encoded = form.parse_pack_key(key)
                if encoded is not None:
                    form.decode_pack(body, encoded, key)
                else:
                    form.decode_snapshot(body, key)
            except StorageError as error:
                if is_fatal(error):
                    raise
                continue  # the other copy lacks it too, or does not give it
            await backup.put(key, body, options=self.put)
            mended.add(key)
        return mended

    async def blobs(self, backup: Storage, bad: Mapping[Digest, int], concurrency: int) -> set[Digest]:
        """Write blobs (sizes in bytes) anew, hashed on the way; those that the other copy had, whole and right."""
        copied: set[Digest] = set()
        carrier = Carrier(self.storage, backup, put=self.put)

        async def one(blob: tuple[Digest, int]) -> None:
            digest, size = blob
            source = form.blob_key(digest) if self.is_backup else layout.blob_key(digest)
            try:
                await carrier.copy(source, form.blob_key(digest), digest=digest, size=size)
            except StorageError as error:
                if is_fatal(error):
                    raise
            else:
                copied.add(digest)

        await each_blob(carrier.road, largest_first(bad.items()), one, concurrency=concurrency)
        return copied
