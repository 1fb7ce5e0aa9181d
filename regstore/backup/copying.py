"""The blobs that a backup lacks, copied from the registry: what can't be had there is told from what went wrong."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from regstore import layout
from regstore.backup import format as form
from regstore.backup.options import CreateOptions
from regstore.backup.transfer import in_lanes
from regstore.digest import Digest
from regstore.errors import IntegrityError, StorageError
from regstore.events import OnEvent, Progress
from regstore.inventory.inventory import Inventory
from regstore.storage.base import Storage
from regstore.storage.streams import SourceGone, copy_blob, is_fatal, verified_size

#: At most one in so many blobs (one, of fewer) is left out as unreadable: of more, the store is at fault.
_ONE_IN: Final = 100
#: Other blobs of the source that must be readable before one that is not is left out.
_OTHERS: Final = 3


class Copying:
    """lost: blobs that can't be copied, and why. resized: damaged at the source, and there from better days, of
    another size than the source's. damaged: what was found, in words. new_bytes: of new_blobs."""

    def __init__(
        self, source: Storage, backup: Storage, inventory: Inventory, options: CreateOptions, on_event: OnEvent
    ) -> None:
        self._source = source
        self._backup = backup
        self._inventory = inventory
        self._options = options
        self._on_event = on_event
        self.lost: dict[Digest, str] = {}
        self.resized: set[Digest] = set()
        self.damaged: list[str] = []
        self.new_blobs = self.new_bytes = 0

    async def copy(self) -> set[Digest]:
        """Copy what the backup lacks, or has with another size; the blobs that were gone.

        A blob whose own bytes are wrong, or that the source alone of all can't give, joins `lost`. Any other error
        raises: the backup, the network or the source as a whole failed, and that makes no blob lost.
        """
        rows = self._inventory.all(
            "select n.digest, any_value(n.size) from backup_need n"
            " anti join backup_blob b on b.digest = n.digest and b.size = n.size group by n.digest"
        )
        wanted = [(Digest.from_raw(bytes(raw)), size) for raw, size in rows]
        total, done = sum(size for _, size in wanted), 0
        gone: set[Digest] = set()
        failed: dict[Digest, tuple[int, StorageError]] = {}
        copied: list[tuple[bytes, int]] = []

        async def one(blob: tuple[Digest, int]) -> None:
            nonlocal done
            digest, size = blob
            if digest in self.lost:
                return
            try:
                await copy_blob(
                    self._source,
                    _key(digest),
                    self._backup,
                    form.blob_key(digest),
                    digest=digest,
                    size=size,
                    put=self._options.put,
                )
            except SourceGone:
                gone.add(digest)
            except IntegrityError as error:
                await self._source_is_damaged(digest, size, error)
            except StorageError as error:
                failed[digest] = size, error
                if is_fatal(error) or len(failed) > max(1, len(wanted) // _ONE_IN):
                    raise
            else:
                copied.append((digest.raw, size))
                self.new_blobs += 1
                self.new_bytes += size
            done += size
            self._on_event(Progress(phase="copying blobs", done=done, total=total, unit="B"))

        await in_lanes(wanted, one, concurrency=self._options.concurrency, target=self._backup)
        for digest, (size, error) in failed.items():
            await self._is_unreadable(digest, size, error, failed)
        self._inventory.execute(
            "delete from backup_blob where digest in (select unnest(?::blob[]))", [[raw for raw, _ in copied]]
        )
        self._inventory.insert(
            "backup_blob",
            {"digest": ("binary", [raw for raw, _ in copied]), "size": ("int64", [size for _, size in copied])},
        )
        return gone

    async def _source_is_damaged(self, digest: Digest, size: int, error: IntegrityError) -> None:
        """Unless it is, the error raises. The backup may have the blob from better days; then that is its size, and
        what needs it is packed anew."""
        if await verified_size(self._source, _key(digest), digest, size) is not None:
            raise error
        self.damaged.append(f"blob {digest}: {error}")
        there = await verified_size(self._backup, form.blob_key(digest), digest)
        if there is None:
            self.lost[digest] = "is damaged at the source"
            return
        self._inventory.execute("update blob set size = ? where digest = ?", [there, digest.raw])
        self.resized.add(digest)

    async def _is_unreadable(
        self, digest: Digest, size: int, error: StorageError, failed: Collection[Digest]
    ) -> None:
        """Unless it is, and others are not, the error raises."""
        try:
            await verified_size(self._source, _key(digest), digest, size)
        except StorageError as again:
            if not await self._gives_others(size, failed):
                raise
            self.lost[digest] = f"can't be read at the source ({again})"
            self.damaged.append(f"blob {digest}: {again}")
        else:
            raise error

    async def _gives_others(self, size: int, failed: Collection[Digest]) -> bool:
        """Whether the source has other blobs, of about this size, and gives them."""
        rows = self._inventory.all(
            "select digest from blob where size > 0 and digest not in (select unnest(?::blob[]))"
            " order by abs(size - ?), digest limit ?",
            [[one.raw for one in failed], size, _OTHERS],
        )
        for (raw,) in rows:
            try:
                async with self._source.open_read(_key(Digest.from_raw(bytes(raw))), length=1) as handle:
                    async for _ in handle:
                        pass
            except StorageError:
                return False
        return bool(rows)


def _key(digest: Digest) -> str:
    return layout.encode(layout.BlobKey(digest))
