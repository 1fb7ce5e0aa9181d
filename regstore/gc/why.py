"""What keeps a digest: the shortest chain of references from each repository that does, read from a plan's tables."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from regstore import layout
from regstore.digest import Digest
from regstore.gc.plan import GcOptions
from regstore.inventory.inventory import Inventory, digest_text
from regstore.inventory.statements import Statements
from regstore.manifest import EdgeKind

_KINDS: Final = {
    EdgeKind.CONFIG: "config",
    EdgeKind.LAYER: "layer",
    EdgeKind.FOREIGN_LAYER: "foreign layer",
    EdgeKind.MANIFEST: "manifest",
    EdgeKind.ENTRY: "entry",
    EdgeKind.BLOB: "blob",
}
_SQL: Final = Statements(
    "regstore.gc", "why.sql", subject=str(int(EdgeKind.SUBJECT)), repositories=layout.REPOSITORIES
)


@dataclass(frozen=True, kw_only=True)
class Link:
    """One digest of a chain, and as what it is named by the one before."""

    digest: str
    named_as: str


@dataclass(frozen=True, kw_only=True)
class Chain:
    """root: what stays by itself, in words; links: from what it names down to the digest that was asked for."""

    repository: str
    root: str
    links: tuple[Link, ...]


@dataclass(frozen=True, kw_only=True)
class Why:
    """stored: whether there is a blob of this digest. goes: the plan removes it. chains: one for each repository that
    reaches it, up to the limit; repositories: how many do. also: what keeps it besides."""

    digest: str
    stored: bool
    goes: bool
    chains: tuple[Chain, ...]
    repositories: int
    also: tuple[str, ...]


def why(inventory: Inventory, options: GcOptions, digest: Digest, *, now: int, limit: int = 20) -> Why:
    """Why the planned gc keeps a digest. now: as in the plan."""
    given = {"digest": digest.raw, "cutoff": now - options.grace, "delete_untagged": options.delete_untagged}
    reached = _SQL.run(inventory, "reached", given).fetchall()
    shown = dict(reached[:limit])
    chains = _search(inventory, given, shown, following=False)
    # A tag that follows a manifest is a root only where there is no other.
    chains |= _search(inventory, given, {one: shown[one] for one in shown if one not in chains}, following=True)
    [(stored, goes)] = _SQL.run(inventory, "stored", given).fetchall()
    unknown = (Link(digest=str(digest), named_as=""),)
    return Why(
        digest=str(digest),
        stored=stored > 0,
        goes=goes > 0,
        chains=tuple(
            chains.get(number) or Chain(repository=name, root="unknown", links=unknown)
            for number, name in shown.items()
        ),
        repositories=len(reached),
        also=tuple(words for (words,) in _SQL.run(inventory, "also", given).fetchall()),
    )


def _search(
    inventory: Inventory, given: dict[str, Any], names: dict[int, str], *, following: bool
) -> dict[int, Chain]:
    """Breadth first, from the digest back to a root, within what each repository reaches; all of them at a time. The
    chains of those in which there is one. names: of repositories, by number."""
    if not names:
        return {}
    given = given | {"numbers": list(names), "following": following, "round": 0}
    _SQL.run(inventory, "begin", given)
    found = 0
    while True:
        found += int(_SQL.run(inventory, "roots", given).fetchall()[0][0])
        if found == len(names) or not _SQL.run(inventory, "above", given).fetchall()[0][0]:
            break
        given["round"] += 1
    chains: dict[int, Chain] = {}
    for number, steps in groupby(_SQL.run(inventory, "found").fetchall(), key=itemgetter(0)):
        rows = list(steps)
        links = tuple(Link(digest=digest_text(bytes(row[2])), named_as=_said(row[3])) for row in rows)
        chains[number] = Chain(repository=names[number], root=rows[0][1], links=links)
    return chains


def _said(text: str) -> str:
    """What a link is named as, in words."""
    return _KINDS[EdgeKind(int(text))] if text.isdigit() else text
