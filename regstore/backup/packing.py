"""What is planned of each repository: its pack, in the inventory, and what is said of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from regstore.backup import format as form
from regstore.backup.format import LeftOut, PackSummary
from regstore.backup.listings import listings, mark
from regstore.backup.plan import plan_pack
from regstore.digest import Digest
from regstore.events import OnEvent, Progress, ignore
from regstore.inventory.inventory import Inventory


class Packing:
    """Packs of repositories, each as it was planned last: `backup_pack(repository, encoded, body)`, and the blobs that
    they need, `backup_need(repository, digest, size)`. No I/O.

    summaries: of those that have a manifest. left_out, missing: of every one that was planned, what is left out, and
    digests without a blob. unlinked: repositories that lacked a link of what is packed, at any time.
    """

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self.summaries: dict[str, PackSummary] = {}
        self.left_out: dict[str, tuple[LeftOut, ...]] = {}
        self.missing: dict[str, frozenset[Digest]] = {}
        self.unlinked: set[str] = set()
        inventory.execute(
            "create table backup_need (repository varchar not null, digest blob not null, size bigint not null)"
        )
        inventory.execute(
            "create table backup_pack (repository varchar not null, encoded varchar not null, body blob not null)"
        )

    def plan(
        self,
        names: Sequence[str],
        *,
        lost: Mapping[Digest, str] | None = None,
        tags: Sequence[str] = (),
        on_event: OnEvent = ignore,
    ) -> None:
        """Pack these repositories (sorted), as the inventory has them now. lost, tags: as `plan_pack` takes them."""
        mark(self._inventory)
        self._forget([name for name in names if name in self.left_out])
        rows = _Rows(self._inventory)
        for done, (listing, manifests, blobs) in enumerate(listings(self._inventory, names), start=1):
            planned = plan_pack(listing, manifests, blobs, lost=lost, tags=tags)
            name, pack = listing.name, planned.pack
            self.left_out[name] = planned.left_out
            self.missing[name] = planned.missing
            if planned.unlinked:
                self.unlinked.add(name)
            on_event(Progress(phase="packing", done=done, total=len(names), unit="repositories"))
            if pack.manifests:
                encoded, body = form.encode_pack(pack)
                self.summaries[name] = PackSummary.of(encoded, pack)
                rows.add(name, pack.blobs, encoded, body)
        rows.flush()

    def _forget(self, names: Sequence[str]) -> None:
        """What was planned for these before."""
        for table in ("backup_need", "backup_pack"):
            self._inventory.execute(f"delete from {table} where repository in (select unnest(?))", [list(names)])
        for name in names:
            self.summaries.pop(name, None)

    def needing(self, digests: Collection[Digest]) -> set[str]:
        """The repositories whose packs need any of these."""
        rows = self._inventory.all(
            "select distinct repository from backup_need where digest in (select unnest(?::blob[]))",
            [[digest.raw for digest in digests]],
        )
        return {name for (name,) in rows}


class _Rows:
    """Rows of `backup_need` and `backup_pack`, many at a time."""

    _MOST: Final = 50_000

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._needs: list[tuple[str, bytes, int]] = []
        self._packs: list[tuple[str, str, bytes]] = []

    def add(self, name: str, blobs: Mapping[Digest, int], encoded: str, body: bytes) -> None:
        self._packs.append((name, encoded, body))
        for digest, size in blobs.items():
            self._needs.append((name, digest.raw, size))
            if len(self._needs) >= self._MOST:
                self.flush()

    def flush(self) -> None:
        needs, packs = self._needs, self._packs
        self._needs, self._packs = [], []
        types = {"repository": "utf8", "digest": "binary", "size": "int64"}
        self._inventory.insert_rows("backup_need", types, needs)
        types = {"repository": "utf8", "encoded": "utf8", "body": "binary"}
        self._inventory.insert_rows("backup_pack", types, packs)
