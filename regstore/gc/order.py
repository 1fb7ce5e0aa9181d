"""The order of a repository's keys within one step of the unlinking.

What is cut short must not look like a loss that heal mends: an index goes before the manifests that it names, and a
layer link that names another digest goes before that digest's own link. Otherwise the next run would give back what
this one had taken, as young as a push.
"""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import TopologicalSorter

from regstore import layout
from regstore.digest import Digest
from regstore.inventory.inventory import Inventory
from regstore.layout import LayerLinkKey, RevisionLinkKey
from regstore.manifest import EdgeKind


def find_ranks(inventory: Inventory, repositories: Sequence[int]) -> dict[str, int]:
    """The ranks, from 1, of dead revision and layer links of these repositories that depend on each other: lower ones
    go first. Keys that it does not hold may go at any time."""
    revisions = inventory.all(
        f"""
        select distinct r.name, e.source, e.target from gc_dead_revision p
        join edge e on e.source = p.digest and e.kind <> {int(EdgeKind.SUBJECT)}
        join gc_dead_revision c on c.repository = p.repository and c.digest = e.target
        join repository r on r.id = p.repository
        where p.repository in (select unnest(?))
        """,
        [list(repositories)],
    )
    # Two links can name each other: the smaller digest's goes first then.
    layers = inventory.all(
        """
        select r.name, l.digest, l.target from gc_dead_layer_link d
        join layer_link l using (repository, digest)
        join gc_dead_layer_link t on t.repository = l.repository and t.digest = l.target
        join repository r on r.id = l.repository
        where l.repository in (select unnest(?)) and l.target <> l.digest and not (l.digest > l.target and exists (
            from layer_link b where b.repository = l.repository and b.digest = l.target and b.target = l.digest
        ))
        """,
        [list(repositories)],
    )
    order: TopologicalSorter[str] = TopologicalSorter()
    for name, source, target in revisions:
        order.add(_revision(name, target), _revision(name, source))
    ranks = {key: number for number, key in enumerate(order.static_order(), start=1)}
    aliases = {_layer(name, digest) for name, digest, _ in layers}
    targets = {_layer(name, target) for name, _, target in layers}
    return ranks | dict.fromkeys(aliases, 1) | dict.fromkeys(targets - aliases, 2)


def _revision(name: str, raw: bytes) -> str:
    return layout.encode(RevisionLinkKey(name, Digest.from_raw(bytes(raw))))


def _layer(name: str, raw: bytes) -> str:
    return layout.encode(LayerLinkKey(name, Digest.from_raw(bytes(raw))))
