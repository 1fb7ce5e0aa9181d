"""What an inventory holds, as gc leaves it in the store for the next run (`regstore.state.counts`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Final

from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import Statements
from regstore.state.counts import Counts

_SQL: Final = Statements("regstore.gc", "counts.sql")


def count_inventory(
    inventory: Inventory,
    *,
    runs: Collection[str],
    chosen: Collection[str] = (),
    gone_links: int = 0,
    gone_tags: str = "",
    gone_revisions: str = "",
) -> Counts:
    """What the inventory holds, and which of the chosen have no tag. gone_links: how many of its links have been
    removed since it was made; gone_tags, gone_revisions: the tables of the tags (repository, name) and the revisions
    (repository, digest) among them."""
    tags = f"(from tag anti join {gone_tags} using (repository, name))" if gone_tags else "tag"
    revisions = (
        f"(from revision_link anti join {gone_revisions} using (repository, digest))"
        if gone_revisions
        else "revision_link"
    )
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for what, name, number in _SQL.run(inventory, "counts", tags=tags, revisions=revisions).fetchall():
        found[what][name] = number
    return Counts(
        blobs=found["blobs"][""],
        links=found["links"][""] - gone_links,
        tagged=found["tagged"],
        untagged=found["untagged"],
        runs=frozenset(runs),
        chosen=frozenset(name for name in chosen if name in found["untagged"]),
    )


def count_left(
    inventory: Inventory, *, runs: Collection[str], chosen: Collection[str] = (), gone_links: int = 0
) -> Counts:
    """What is left when the inventory's plan is carried out, so many of its links being gone."""
    return count_inventory(
        inventory,
        runs=runs,
        chosen=chosen,
        gone_links=gone_links,
        gone_tags="gc_dead_tag",
        gone_revisions="gc_dead_revision",
    )


def add_counts(parts: Sequence[Counts], *, runs: Collection[str], chosen: Collection[str] = ()) -> Counts:
    """Of shards that have different repositories, and of those that have blobs."""
    untagged = {name: number for part in parts for name, number in part.untagged.items()}
    return Counts(
        blobs=sum(part.blobs for part in parts),
        links=sum(part.links for part in parts),
        tagged={name: number for part in parts for name, number in part.tagged.items()},
        untagged=untagged,
        runs=frozenset(runs),
        chosen=frozenset(name for name in chosen if name in untagged),
    )
