"""Repositories listed until two listings agree: then all in them stood together at the moment between the two."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

from regstore.backup.statements import SQL
from regstore.events import OnEvent
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import Scanner, ScanOptions
from regstore.storage.base import Storage

#: Listings of a repository that does not hold still, after the first two.
_TRIES: Final = 6
_TABLES: Final = ("layer_link", "revision_link", "signature_link", "tag", "tag_index")


class Settling:
    """restless: repositories whose last two listings differed."""

    def __init__(self, storage: Storage, inventory: Inventory, scanning: ScanOptions, on_event: OnEvent) -> None:
        """inventory: has a listing, and gets the later ones."""
        self._storage = storage
        self._inventory = inventory
        self._scanning = scanning
        self._on_event = on_event
        self.restless: set[str] = set()

    async def list_again(self) -> set[str]:
        """All links once more; the repositories that changed."""
        with self._later() as later:
            await Scanner(self._storage, later, self._scanning, self._on_event).list_links()
            moving = self._differing(later)
            self._adopt(later, moving)
        return moving

    async def settle(self, names: Collection[str]) -> None:
        """List these anew until they hold still, or are restless."""
        names = set(names)
        self.restless -= names
        for _ in range(_TRIES):
            if not names:
                return
            with self._later() as later:
                scanner = Scanner(self._storage, later, self._scanning, self._on_event)
                await scanner.list_repositories(sorted(names))
                changed = self._differing(later) & names
                self._adopt(later, changed)
            names = changed
        self.restless |= names

    @contextmanager
    def _later(self) -> Iterator[Inventory]:
        later = self._inventory.child()
        try:
            yield later
        finally:
            later.close()

    def _differing(self, later: Inventory) -> set[str]:
        """Repositories that the two listings show differently. Times do not count: content does."""
        one, other = SQL.text("contents", schema="main"), SQL.text("contents", schema=_schema(later))
        rows = SQL.run(self._inventory, "differing", one=one, other=other).fetchall()
        return {name for (name,) in rows}

    def _adopt(self, later: Inventory, names: Collection[str]) -> None:
        """Take these repositories from the later listing."""
        if not names:
            return
        given, schema = {"names": sorted(names)}, _schema(later)
        SQL.run(self._inventory, "adopt_repositories", given, schema=schema)
        for table in _TABLES:
            columns = [name for (name,) in SQL.run(self._inventory, "columns", table=table).fetchall()]
            SQL.run(
                self._inventory,
                "adopt",
                given,
                table=table,
                schema=schema,
                columns=", ".join(columns),
                later_columns=", ".join(f"t.{column}" for column in columns),
            )


def _schema(inventory: Inventory) -> str:
    return str(inventory.one("select current_schema()"))
