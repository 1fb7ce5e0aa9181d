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
from regstore.inventory.statements import Statements
from regstore.manifest import EdgeKind

_SQL: Final = Statements(
    "regstore.gc",
    "claims.sql",
    revision=str(int(Step.REVISION)),
    layer=str(int(Step.LAYER)),
    manifest=str(int(EdgeKind.MANIFEST)),
    looked_for=f"{EdgeKind.CONFIG:d}, {EdgeKind.LAYER:d}, {EdgeKind.ENTRY:d}, {EdgeKind.BLOB:d}",
    needs_nothing=f"{EdgeKind.SUBJECT:d}, {EdgeKind.FOREIGN_LAYER:d}",
)


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
    [(missing,)] = _SQL.run(inventory, "missing").fetchall()
    if not missing:
        return []
    rows = _SQL.run(inventory, "needed").fetchall()
    return [LinkBack(repository, Step(step), *rest) for repository, step, *rest in rows]
