"""Reachability over an inventory: what each repository's roots keep, by frontier iteration in SQL.

The table `reach(repository, digest, expand)` holds, for each repository, every digest that is reached in it, by
the rules of LAYOUT section 2:

- a digest is marked whatever names it, and followed when it is a manifest there: a root, an index's entry of a
  manifest media type, or a digest that this repository links as a revision. Nothing is downloaded to find out, and
  what another repository has marked does not end the walk in this one;
- a revision whose `subject` is reached is reached too, with its own closure;
- a layer link's body may name another digest than its path (sha512 layers are stored by their sha256): where the
  path's digest is reached, the body's is.

`expand` says that the digest is followed. A digest may stand twice, once for each value.
"""

from __future__ import annotations

from typing import Final

from regstore.inventory.inventory import Inventory
from regstore.manifest import EdgeKind

_SUBJECT: Final = int(EdgeKind.SUBJECT)
_MANIFEST: Final = int(EdgeKind.MANIFEST)


class Reachability:
    """`reach` of one inventory, empty at first; roots only ever add to it. revisions: the revision links that count."""

    def __init__(self, inventory: Inventory, table: str = "reach", *, revisions: str = "revision_link") -> None:
        self._inventory = inventory
        self._revisions = revisions
        self.table = table
        inventory.execute(
            f"create or replace table {table}"
            " (repository integer not null, digest blob not null, expand boolean not null)"
        )

    def add(self, roots: str) -> None:
        """Add roots, SQL that gives (repository, digest, expand), with all they keep, to a fixpoint."""
        pending = roots
        while self._advance(pending):
            while self._advance(_STEP):
                pass
            pending = _AROUND.format(reach=self.table, revisions=self._revisions)
        self._inventory.execute("drop table if exists frontier")

    def _advance(self, incoming: str) -> int:
        """Mark what is new in `incoming`, leave it as `frontier`, and return how much that is."""
        execute = self._inventory.execute
        execute(
            f"""
            create or replace temp table fresh as
            with incoming as ({incoming}),
            widened as (
                select i.repository, i.digest, bool_or(i.expand or r.digest is not null) as expand
                from incoming i
                left join {self._revisions} r on r.repository = i.repository and r.digest = i.digest
                where i.digest is not null
                group by i.repository, i.digest
            )
            select w.repository, w.digest, w.expand from widened w
            anti join {self.table} k
                on k.repository = w.repository and k.digest = w.digest and k.expand >= w.expand
            """
        )
        execute("create or replace temp table frontier as from fresh")
        execute(f"insert into {self.table} from frontier")
        return self._inventory.count("frontier")


#: From the manifests of the frontier to what they name.
_STEP: Final = f"""
    select f.repository, e.target as digest, e.kind = {_MANIFEST} as expand
    from frontier f join edge e on e.source = f.digest
    where f.expand and e.kind <> {_SUBJECT}
"""

#: Referrers of what is reached, and the bodies of layer links.
_AROUND: Final = f"""
    select r.repository, r.digest, true as expand
    from {{revisions}} r
    join edge e on e.source = r.digest and e.kind = {_SUBJECT}
    join {{reach}} k on k.repository = r.repository and k.digest = e.target
    union all
    select l.repository, l.target, false
    from layer_link l
    join {{reach}} k on k.repository = l.repository and k.digest = l.digest
    where l.target is not null and l.target <> l.digest
"""
