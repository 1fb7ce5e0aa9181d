"""What keeps a digest: the shortest chain of references from each repository that does, read from a plan's tables."""

from __future__ import annotations

from dataclasses import dataclass
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
    given = {"digest": digest.raw, "cutoff": now - options.grace}
    reached = _SQL.run(inventory, "reached", given).fetchall()
    searches = [_Search(inventory, options, number, name, now - options.grace) for number, name in reached[:limit]]
    [(stored, goes)] = _SQL.run(inventory, "stored", given).fetchall()
    return Why(
        digest=str(digest),
        stored=stored > 0,
        goes=goes > 0,
        chains=tuple(search.chain(digest.raw) for search in searches),
        repositories=len(reached),
        also=tuple(words for (words,) in _SQL.run(inventory, "also", given).fetchall()),
    )


class _Search:
    """Breadth first, from the digest back to a root, within what one repository reaches."""

    def __init__(self, inventory: Inventory, options: GcOptions, number: int, name: str, cutoff: int) -> None:
        self._inventory = inventory
        self._name = name
        self._given: dict[str, Any] = {
            "number": number,
            "cutoff": cutoff,
            "delete_untagged": options.delete_untagged,
        }

    def chain(self, raw: bytes) -> Chain:
        """A tag that follows a manifest is a root only where there is no other."""
        return self._search(raw, following=False) or self._search(raw, following=True) or self._no_chain(raw)

    def _no_chain(self, raw: bytes) -> Chain:
        return Chain(repository=self._name, root="unknown", links=(Link(digest=digest_text(raw), named_as=""),))

    def _search(self, raw: bytes, *, following: bool) -> Chain | None:
        #: Of each digest met: the next one down, and as what it names that.
        down: dict[bytes, tuple[bytes, str] | None] = {raw: None}
        front = [raw]
        while front:
            roots = self._roots(front, following=following)
            if roots:
                digest, root = roots[0]
                return Chain(repository=self._name, root=root, links=tuple(_links(digest, down)))
            fresh = []
            for above, below, named_as in self._above(front):
                if above not in down:
                    down[above] = (below, named_as)
                    fresh.append(above)
            front = fresh
        return None

    def _roots(self, digests: list[bytes], *, following: bool) -> list[tuple[bytes, str]]:
        """Which of the digests are roots of the repository, and in words why; the plainest reason first."""
        given = self._given | {"digests": digests, "following": following}
        rows = _SQL.run(self._inventory, "roots", given).fetchall()
        return [(bytes(digest), reason) for digest, reason in rows]

    def _above(self, digests: list[bytes]) -> list[tuple[bytes, bytes, str]]:
        """(digest, what it names of the given ones, as what), all reached in this repository."""
        rows = _SQL.run(self._inventory, "above", self._given | {"digests": digests}).fetchall()
        return [
            (bytes(above), bytes(below), _KINDS[EdgeKind(int(said))] if said.isdigit() else said)
            for above, below, said in rows
        ]


def _links(digest: bytes, down: dict[bytes, tuple[bytes, str] | None]) -> list[Link]:
    links = [Link(digest=digest_text(digest), named_as="")]
    while (step := down[digest]) is not None:
        digest, named_as = step
        links.append(Link(digest=digest_text(digest), named_as=named_as))
    return links
