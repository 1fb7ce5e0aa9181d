"""What is needed, gone, and can be given back: read from an inventory, by SQL only.

The inventory holds the store's links and blobs, and what earlier runs took (`gc.past`). Giving back what one plan says
may show that more is needed, for a blob that comes back may be a manifest: so a plan is one round, and who carries it
out says here what stands then (`tags_stand` and the like), until a plan has nothing (`gc.heal`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from regstore.digest import Digest
from regstore.gc.claims import LinkBack, plan_links
from regstore.gc.plan import Step
from regstore.inventory.inventory import Inventory
from regstore.inventory.reachability import Reachability
from regstore.inventory.statements import Statements
from regstore.layout import link_body, parse_link

_SQL: Final = Statements("regstore.gc", "heal_plan.sql")


@dataclass(frozen=True, slots=True)
class TagBack:
    """A tag whose current/link went although it had been pushed again. raw: the digest that its newest index link
    names; mtime: the time of that link, in microseconds."""

    key: str
    repository: int
    name: str
    tag: str
    raw: bytes
    mtime: int

    @property
    def digest(self) -> Digest:
        return Digest.from_raw(self.raw)

    @property
    def body(self) -> bytes:
        return link_body(self.digest)


@dataclass(frozen=True, slots=True)
class CopyBack:
    """A blob that is named and gone, with the key and the size of its newest copy in the trash."""

    raw: bytes
    key: str
    size: int

    @property
    def digest(self) -> Digest:
        return Digest.from_raw(self.raw)


class HealPlan:
    """Of one inventory, as it is when asked."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    def tags(self) -> list[TagBack]:
        return [TagBack(*row) for row in _SQL.run(self._inventory, "tags").fetchall()]

    def tags_stand(self, tags: Sequence[TagBack]) -> None:
        self._inventory.insert(
            "tag",
            {
                "repository": ("int32", [tag.repository for tag in tags]),
                "name": ("utf8", [tag.tag for tag in tags]),
                "target": ("binary", [tag.raw for tag in tags]),
                "size": ("int64", [len(tag.body) for tag in tags]),
                "mtime": ("int64", [tag.mtime for tag in tags]),
            },
        )

    def blobs(self) -> list[CopyBack]:
        if not self._inventory.count("trash"):
            return []
        reach = reach_all(self._inventory)
        rows = _SQL.run(self._inventory, "blobs", reach=reach.table).fetchall()
        return [CopyBack(*row) for row in rows]

    def blobs_stand(self, blobs: Sequence[tuple[CopyBack, int]], *, now: int) -> None:
        """Each with the size that stands."""
        self._inventory.insert(
            "main.blob",
            {
                "digest": ("binary", [copy.raw for copy, _ in blobs]),
                "size": ("int64", [size for _, size in blobs]),
                "mtime": ("int64", [now] * len(blobs)),
            },
        )
        _SQL.run(self._inventory, "no_longer_missing")

    def copies_are_damaged(self, keys: Iterable[str]) -> None:
        """No plan names these any more; there may be older copies."""
        _SQL.run(self._inventory, "damaged", {"keys": list(keys)})

    def links(self) -> list[LinkBack]:
        """By key."""
        return sorted(plan_links(self._inventory), key=lambda link: link.key)

    def links_stand(self, links: Iterable[LinkBack], *, now: int) -> None:
        for step, table in ((Step.LAYER, "layer_link"), (Step.REVISION, "revision_link")):
            some = [link for link in links if link.step is step]
            targets = [parse_link(link.body) for link in some]
            self._inventory.insert(
                table,
                {
                    "repository": ("int32", [link.repository for link in some]),
                    "digest": ("binary", [link.raw for link in some]),
                    "target": ("binary", [target.raw if target else None for target in targets]),
                    "size": ("int64", [len(link.body) for link in some]),
                    "mtime": ("int64", [now] * len(some)),
                },
            )


def reach_all(inventory: Inventory, table: str = "heal_reach") -> Reachability:
    """All that anything names."""
    reach = Reachability(inventory, table)
    reach.add(_SQL.text("reach_all"))
    return reach
