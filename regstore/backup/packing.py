"""The packs of repositories, written as they are planned: none is held in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

from regstore.backup.format import LeftOut, PackSummary
from regstore.backup.plan import PackPlan, make_tables, needing
from regstore.backup.writing import PackWriter
from regstore.digest import Digest
from regstore.errors import StorageFull
from regstore.events import OnEvent, Progress, ignore
from regstore.inventory.inventory import Inventory
from regstore.storage.base import Repeatable

#: Bytes that are read at once.
_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PackFile:
    """Where the bytes of a pack lie in a file of the inventory's folder. md5: of them, in hex."""

    encoded: str
    path: Path
    start: int
    size: int
    md5: str

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)

    def stream(self) -> Repeatable:
        return _Stream(self)


class _Stream(Repeatable):
    def __init__(self, pack: PackFile) -> None:
        self._pack = pack

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._pack.size
        with self._pack.path.open("rb") as file:
            file.seek(self._pack.start)
            while left and (piece := file.read(min(left, _PIECE))):
                left -= len(piece)
                yield piece

    @asynccontextmanager
    async def again(self) -> AsyncIterator[AsyncIterator[bytes]]:
        yield aiter(self)


class Packing:
    """Packs of repositories, each as it was planned last, and the blobs that they need, in the inventory's
    `backup_need`. No I/O but for files in the inventory's folder.

    summaries, packs: of those that have a manifest. left_out, missing: what is left out, and digests without a blob, of
    those of which there is any. unlinked: repositories that lacked a link of what is packed, at any time.
    """

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._files = 0
        self.summaries: dict[str, PackSummary] = {}
        self.packs: dict[str, PackFile] = {}
        self.left_out: dict[str, Sequence[LeftOut]] = {}
        self.missing: dict[str, set[Digest]] = {}
        self.unlinked: set[str] = set()
        make_tables(inventory)

    def plan(
        self,
        names: Sequence[str],
        *,
        lost: Mapping[Digest, str] | None = None,
        tags: Sequence[str] = (),
        on_event: OnEvent = ignore,
    ) -> None:
        """Pack these repositories (sorted), as the inventory has them now. lost, tags: as `PackPlan` takes them."""
        for name in names:
            for known in (self.summaries, self.packs, self.left_out, self.missing):
                known.pop(name, None)
        on_event(Progress(phase="packing", done=0, total=len(names), unit="repositories"))
        plan = PackPlan(self._inventory, names, lost or {}, tags)
        told = plan.told()
        self.left_out |= told.left_out
        self.missing |= told.missing
        self.unlinked |= told.unlinked
        try:
            self._write(plan, names, on_event)
        except OSError as error:
            raise StorageFull(
                f"the packs can't be written to {self._inventory.folder} (TMPDIR says where): {error}"
            ) from error
        plan.close()
        on_event(Progress(phase="packing", done=len(names), total=len(names), unit="repositories"))

    def _write(self, plan: PackPlan, names: Sequence[str], on_event: OnEvent) -> None:
        self._files += 1
        path = self._inventory.folder / f"packs-{self._files}"
        with path.open("xb") as file:
            for place, rows in groupby(plan.rows(), key=lambda row: row[0]):
                name = names[place]
                start = file.tell()
                writer = PackWriter(name, file)
                writer.take(rows)
                self.summaries[name] = summary = writer.end()
                self.packs[name] = PackFile(
                    encoded=summary.pack, path=path, start=start, size=file.tell() - start, md5=writer.md5
                )
                on_event(Progress(phase="packing", done=place + 1, total=len(names), unit="repositories"))

    def needing(self, digests: Collection[Digest]) -> set[str]:
        """The repositories whose packs need any of these."""
        return needing(self._inventory, list(digests))
