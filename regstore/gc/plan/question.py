"""What is planned, and what there is to plan for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

from regstore.gc.plan.options import GcOptions
from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import Statements

_SQL: Final = Statements("regstore.gc.plan", "tables.sql")


@dataclass(frozen=True)
class Question:
    """An inventory of a whole store, or of some of its repositories; the options; and the moment, in microseconds, by
    the store's clock."""

    inventory: Inventory
    options: GcOptions
    now: int

    @property
    def cutoff(self) -> int:
        """What was written at this time or later is younger than the grace."""
        return self.now - self.options.grace

    @property
    def parameters(self) -> dict[str, Any]:
        """For the statements of the plan."""
        return {
            "cutoff": self.cutoff,
            "uploads_cutoff": self.now - self.options.uploads_older_than,
            "delete_untagged": self.options.delete_untagged,
        }

    @cached_property
    def present(self) -> frozenset[str]:
        """Which of these the inventory holds at all: 'digest tags', 'unreadable' (manifests), 'odd links' (layer links
        of another algorithm than sha256), 'signatures', 'uploads', 'litter' and 'unknown' (keys). For what can't be
        there no statement is run."""
        return frozenset(what for (what,) in _SQL.run(self.inventory, "present").fetchall())

    def make_tables(self, part: Literal["roots", "links", "blobs"]) -> None:
        """The relations of a part of the plan, empty."""
        _SQL.run(self.inventory, part)
