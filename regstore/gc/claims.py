"""Which of the links that journals say we removed are given back. SQL only, no I/O, no clock.

A layer link is a right to read. So a link comes back only where something needs it that is itself there by right, in
the very repository that it was taken from:

- roots are the repository's revisions and its tags;
- a manifest is followed where the repository links it, or is to get its link back. Not where an index or a tag merely
  names it: who deleted a manifest and left what names it, or named one that the repository never had, has no claim;
- a foreign layer (`urls`) is needed by nobody: a registry takes a manifest that names it without looking for it.

And not where a registry has found the link since the run was over (`removed.over`, see `gc.past`): it was there, and
whoever removed it next meant it. A registry accepts a manifest only when it has found all that it names: so a layer's
link was there when the link of a revision was written whose manifest names it, and a revision's when a tag was set to
it, or to an index that lists it. (Nothing of ours writes these before what they name, but for what `gc.past` makes up
for.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from regstore.gc.plan import Step
from regstore.inventory.inventory import Inventory
from regstore.manifest import EdgeKind

#: What a registry looks for among the layers before it takes a manifest.
_LOOKED_FOR: Final = f"({EdgeKind.CONFIG:d}, {EdgeKind.LAYER:d}, {EdgeKind.ENTRY:d}, {EdgeKind.BLOB:d})"
_NEEDS_NOTHING: Final = f"({EdgeKind.SUBJECT:d}, {EdgeKind.FOREIGN_LAYER:d})"


@dataclass(frozen=True, slots=True)
class LinkBack:
    """A link of a layer or a revision that comes back as the journal has it. repository: its id in the inventory;
    raw: the digest that it is named by."""

    repository: int
    step: Step
    raw: bytes
    key: str
    body: bytes


def plan_links(inventory: Inventory) -> list[LinkBack]:
    """The links to give back, by `gc.past`'s relation `removed`."""
    if not inventory.count("removed"):
        return []
    inventory.execute(
        f"""
        create or replace temp table heal_missing as
        select r.id as repository, m.* from removed m join repository r using (name)
        where case when m.step = {Step.REVISION}
            then not exists (from revision_link x where x.repository = r.id and x.digest = m.digest)
            else not exists (from layer_link x where x.repository = r.id and x.digest = m.digest) end
        """
    )
    if not inventory.count("heal_missing"):
        return []
    inventory.execute(
        f"""
        create or replace temp table heal_claim as
        with old as (select distinct repository, digest, step from heal_missing where over is not null),
        found as (
            select o.repository, o.digest, o.step, i.mtime from old o
            join tag_index i on i.repository = o.repository and i.digest = o.digest
            where o.step = {Step.REVISION}
            union all
            select o.repository, o.digest, o.step, i.mtime from old o
            join edge e on e.target = o.digest and e.kind = {EdgeKind.MANIFEST:d}
            join tag_index i on i.repository = o.repository and i.digest = e.source
            where o.step = {Step.REVISION}
            union all
            select o.repository, o.digest, o.step, v.mtime from old o
            join edge e on e.target = o.digest and e.kind in {_LOOKED_FOR}
            join revision_link v on v.repository = o.repository and v.digest = e.source
            where o.step = {Step.LAYER}
        ),
        last as (select repository, digest, step, max(mtime) as mtime from found group by all)
        select c.* from heal_missing c left join last l using (repository, digest, step)
        where c.over is null or l.mtime is null or l.mtime <= c.over
        """
    )
    rows = inventory.all(f"""
        with recursive home as (select distinct repository from heal_claim),
        linked as (
            select repository, digest from revision_link semi join home using (repository)
            union select repository, digest from legacy_revision semi join home using (repository)
            union select repository, digest from heal_claim where step = {Step.REVISION}
        ),
        root as (
            select repository, digest, true as as_manifest from revision_link semi join home using (repository)
            union select repository, digest, true from legacy_revision semi join home using (repository)
            union select repository, target, true from tag semi join home using (repository)
            -- The body of a link by another algorithm says which blob is meant.
            union select repository, target, false from layer_link semi join home using (repository)
                where target <> digest
        ),
        need as (
            from root where digest is not null
            union
            select n.repository, e.target, e.kind = {EdgeKind.MANIFEST:d}
            from need n join linked l on l.repository = n.repository and l.digest = n.digest
            join edge e on e.source = n.digest
            where n.as_manifest and e.kind not in {_NEEDS_NOTHING}
        )
        select c.repository, c.step, c.digest, c.key, arg_max(c.body, c.run) from heal_claim c
        join need n on n.repository = c.repository and n.digest = c.digest
        where n.as_manifest or c.step = {Step.LAYER}
        group by c.repository, c.step, c.digest, c.key
        """)
    return [LinkBack(repository, Step(step), *rest) for repository, step, *rest in rows]
