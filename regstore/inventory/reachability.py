"""Reachability over an inventory: what each repository's roots keep, by frontier iteration in SQL.

The table `reach(repository, digest, expand, round)` holds, for each repository, every digest that is reached in it, by
the rules of LAYOUT section 2:

- a digest is marked whatever names it, and followed when it is a manifest there: a root, an index's entry of a
  manifest media type, or a digest that this repository links as a revision. Nothing is downloaded to find out, and
  what another repository has marked does not end the walk in this one;
- a revision whose `subject` is reached is reached too, with its own closure;
- a layer link's body may name another digest than its path (sha512 layers are stored by their sha256): where the
  path's digest is reached, the body's is.

`expand` says that the digest is followed, `round` when it was met. A digest may stand twice, once for each value of
`expand`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import Statements
from regstore.manifest import EdgeKind

_SQL: Final = Statements(
    "regstore.inventory",
    "reachability.sql",
    subject=str(int(EdgeKind.SUBJECT)),
    manifest=str(int(EdgeKind.MANIFEST)),
)


class Reachability:
    """`reach` of one inventory, empty at first; roots only ever add to it. The inventory has all its links and
    manifests by then.

    revisions: the revision links that count. also: SQL for (repository, digest, beside, expand), what a repository
    keeps besides, where it reaches a digest.
    """

    def __init__(
        self, inventory: Inventory, table: str = "reach", *, revisions: str = "revision_link", also: str = ""
    ) -> None:
        self._inventory = inventory
        self._revisions = revisions
        self._round = 0
        self.table = table
        _SQL.run(inventory, "create", table=table)
        also = also or _SQL.text("nothing_else")
        [(beside,)] = _SQL.run(inventory, "beside", table=table, revisions=revisions, also=also).fetchall()
        self._step = _SQL.text("named_or_beside" if beside else "named", table=table)

    def add(self, roots: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Add roots, SQL that gives (repository, digest, expand), with all they keep, to a fixpoint. parameters: of
        that SQL."""
        if self._advance(roots, parameters or {}):
            while self._advance(self._step, {}):
                pass

    def _advance(self, incoming: str, parameters: Mapping[str, Any]) -> int:
        """Mark what is new in `incoming`, as the next round, and return how much that is."""
        self._round += 1
        given = {**parameters, "round": self._round}
        done = _SQL.run(
            self._inventory, "advance", given, table=self.table, revisions=self._revisions, incoming=incoming
        )
        [(new,)] = done.fetchall()
        return int(new)
