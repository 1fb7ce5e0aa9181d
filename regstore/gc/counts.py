"""What an inventory holds, as gc leaves it in the store for the next run (`regstore.state.counts`)."""

from __future__ import annotations

from collections.abc import Collection

from regstore.inventory.inventory import Inventory
from regstore.state.counts import Counts


def count_inventory(
    inventory: Inventory,
    *,
    runs: Collection[str],
    gone_links: int = 0,
    gone_tags: str = "",
    gone_revisions: str = "",
) -> Counts:
    """What the inventory holds. gone_links: how many of its links have been removed since it was made; gone_tags,
    gone_revisions: the tables of the tags (repository, name) and the revisions (repository, digest) among them."""
    tags = "from tag" + (f" anti join {gone_tags} using (repository, name)" if gone_tags else "")
    revisions = "from revision_link" + (
        f" anti join {gone_revisions} using (repository, digest)" if gone_revisions else ""
    )
    tagged = inventory.all(
        f"select r.name, count(*) from ({tags}) t join repository r on r.id = t.repository group by r.name"
    )
    untagged = inventory.all(
        f"select r.name, count(*) from ({revisions}) v join repository r on r.id = v.repository"
        f" where v.repository not in (select repository from ({tags})) group by r.name"
    )
    return Counts(
        blobs=inventory.count("blob"),
        links=sum(map(inventory.count, ("tag", "revision_link", "layer_link"))) - gone_links,
        tagged=dict(tagged),
        untagged=dict(untagged),
        runs=frozenset(runs),
    )
