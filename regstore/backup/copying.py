"""The blobs that a backup lacks, copied from the registry: what can't be had there is told from what went wrong."""

from __future__ import annotations

from typing import Final

from regstore import layout
from regstore.backup import format as form
from regstore.backup.carrying import Carrying
from regstore.backup.options import CreateOptions
from regstore.digest import Digest
from regstore.errors import StorageError
from regstore.events import OnEvent
from regstore.inventory.inventory import Inventory
from regstore.inventory.sample import other_blobs
from regstore.storage.base import Storage
from regstore.storage.streams import verified_size
from regstore.storage.transfer import Attempts, Failure, Fault
from regstore.tasks.runner import Runner

_LACKING: Final = (
    "select n.digest, any_value(n.size) as size from backup_need n"
    " anti join backup_blob b on b.digest = n.digest and b.size = n.size group by n.digest"
)
#: Copied blobs that are put into a table at once.
_ROWS: Final = 20_000


class Copying:
    """lost: blobs that can't be copied, and why. resized: damaged at the source, and there from better days, of
    another size than the source's. damaged: what was found, in words. new_bytes: of new_blobs."""

    def __init__(
        self,
        source: Storage,
        backup: Storage,
        inventory: Inventory,
        options: CreateOptions,
        runner: Runner,
        on_event: OnEvent,
    ) -> None:
        self._source = source
        self._backup = backup
        self._inventory = inventory
        self._options = options
        self._runner = runner
        self._on_event = on_event
        self.lost: dict[Digest, str] = {}
        self.resized: set[Digest] = set()
        self.damaged: list[str] = []
        self.new_blobs = self.new_bytes = 0

    async def copy(self) -> set[Digest]:
        """Copy what the backup lacks, or has with another size; the blobs that were gone.

        A blob whose own bytes are wrong, or that the source has and does not give, joins `lost`. Any other error
        raises: the backup, the network or the source as a whole failed, and that makes no blob lost.
        """
        gone: set[Digest] = set()
        # What the backup does not take ends the run at once.
        attempts = Attempts(self._source, other_blobs(self._inventory), most=1)
        copied: list[tuple[bytes, int]] = []

        async def took(digest: Digest, size: int, failure: Failure | None) -> None:
            if failure is None:
                copied.append((digest.raw, size))
                self.new_blobs += 1
                self.new_bytes += size
                if len(copied) >= _ROWS:
                    self._note_copied(copied)
            elif failure.fault is Fault.GONE:
                gone.add(digest)
            elif failure.fault is Fault.WRONG:
                await self._source_is_damaged(digest, size, failure.error)
            else:
                self.lost[digest] = f"can't be read at the source ({failure.of_source})"
                self.damaged.append(f"blob {digest}: {failure.of_source}")

        carrying = Carrying(
            source=self._source,
            target=self._backup,
            source_key=layout.blob_key,
            target_key=form.blob_key,
            put=self._options.put,
            attempts=attempts,
            runner=self._runner,
            concurrency=self._options.concurrency,
            phase="copying blobs",
            on_event=self._on_event,
            in_a_row=1,
        )
        await carrying.copy(self._inventory, _LACKING, took, passed_over=self.lost)
        await attempts.end()
        self._note_copied(copied)
        return gone

    def _note_copied(self, copied: list[tuple[bytes, int]]) -> None:
        """That they are in the backup now. Leaves none."""
        self._inventory.execute(
            "delete from backup_blob where digest in (select unnest(?::blob[]))", [[raw for raw, _ in copied]]
        )
        self._inventory.insert(
            "backup_blob",
            {"digest": ("binary", [raw for raw, _ in copied]), "size": ("int64", [size for _, size in copied])},
        )
        copied.clear()

    async def _source_is_damaged(self, digest: Digest, size: int, error: StorageError) -> None:
        """Unless it is, the error raises. The backup may have the blob from better days; then that is its size, and
        what needs it is packed anew."""
        if await verified_size(self._source, layout.blob_key(digest), digest, size) is not None:
            raise error
        self.damaged.append(f"blob {digest}: {error}")
        there = await verified_size(self._backup, form.blob_key(digest), digest)
        if there is None:
            self.lost[digest] = "is damaged at the source"
            return
        self._inventory.execute("update blob set size = ? where digest = ?", [there, digest.raw])
        self.resized.add(digest)
