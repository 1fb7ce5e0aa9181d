"""What keeps a digest: the shortest chain of references from each repository that does, read from a plan's tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from regstore import layout
from regstore.digest import Digest
from regstore.gc.plan import GcOptions
from regstore.inventory.inventory import Inventory, digest_text, text_sql
from regstore.manifest import EdgeKind

_KINDS: Final = {
    EdgeKind.CONFIG: "config",
    EdgeKind.LAYER: "layer",
    EdgeKind.FOREIGN_LAYER: "foreign layer",
    EdgeKind.MANIFEST: "manifest",
    EdgeKind.ENTRY: "entry",
    EdgeKind.BLOB: "blob",
}
#: Of a tag `t`: whether it names a digest, and that digest.
_NAMES_DIGEST: Final = r"regexp_full_match(t.name, 'sha256-[0-9a-f]{64}(\..+)?|sha512-[0-9a-f]{128}(\..+)?')"
_SUBJECT: Final = "unhex(regexp_extract(t.name, '^sha(?:256|512)-([0-9a-f]+)', 1))"


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
    raw = digest.raw
    reached = inventory.all(
        "select distinct k.repository, coalesce(r.name, 'unknown keys')"
        " from reach k left join repository r on r.id = k.repository"
        " where k.digest = ? order by 2",
        [raw],
    )
    cutoff = now - options.grace
    chains = [_Search(inventory, options, number, name, cutoff).chain(raw) for number, name in reached[:limit]]
    stored = inventory.one("select count(*) from blob where digest = ?", [raw]) > 0
    return Why(
        digest=str(digest),
        stored=stored,
        goes=inventory.one("select count(*) from gc_dead_blob where digest = ?", [raw]) > 0,
        chains=tuple(chains),
        repositories=len(reached),
        also=tuple(_also(inventory, digest, cutoff)),
    )


class _Search:
    """Breadth first, from the digest back to a root, within what one repository reaches."""

    def __init__(self, inventory: Inventory, options: GcOptions, number: int, name: str, cutoff: int) -> None:
        self._inventory = inventory
        self._options = options
        self._number = number
        self._name = name
        self._cutoff = cutoff

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
        untagged = self._options.delete_untagged
        rows = self._inventory.all(
            f"""
            with wanted as (select unnest($1) as digest)
            select digest, reason from (
                select t.target as digest, 1 as rank, 'tag ' || t.name as reason
                from tag t where t.repository = $2 and not exists (
                    from gc_dead_tag d where d.repository = t.repository and d.name = t.name
                ) and not (
                    {str(untagged and not following).lower()} and {_NAMES_DIGEST} and {_SUBJECT} in (
                        select digest from revision_link where repository = $2)
                )
                union all
                select x.digest, 2, case
                    when {str(not untagged).lower()} then 'revision link'
                    when x.mtime >= {self._cutoff} then 'revision link younger than the grace'
                    else 'revision link of a protected repository' end
                from revision_link x where x.repository = $2 and not exists (
                    from gc_broken_revision b where b.repository = x.repository and b.digest = x.digest
                ) and ({str(not untagged).lower()} or x.mtime >= {self._cutoff}
                    or x.repository in (select repository from gc_protected))
                union all
                select unnest([x.digest, x.target]), 3, 'layer link younger than the grace'
                from layer_link x where x.repository = $2 and x.mtime >= {self._cutoff}
                union all
                select digest, 4, 'manifest linked as v2.1 did' from legacy_revision where repository = $2
                union all
                select digest, 5, 'a key that is not understood'
                from unknown_digest where $2 not in (select id from repository)
            ) where digest in (from wanted) order by rank, reason
            """,
            [digests, self._number],
        )
        return [(bytes(digest), reason) for digest, reason in rows]

    def _above(self, digests: list[bytes]) -> list[tuple[bytes, bytes, str]]:
        """(digest, what it names of the given ones, as what), all reached in this repository."""
        rows = self._inventory.all(
            f"""
            with wanted as (select unnest($1) as digest),
            kept as (select digest, bool_or(expand) as expand from reach where repository = $2 group by digest)
            select e.source, e.target, e.kind::varchar
            from edge e join kept k on k.digest = e.source
            where k.expand and e.kind <> {int(EdgeKind.SUBJECT)} and e.target in (from wanted)
            union
            select e.target, e.source, 'referrer'
            from edge e join kept k on k.digest = e.target
            join gc_sound_revision r on r.repository = $2 and r.digest = e.source
            where e.kind = {int(EdgeKind.SUBJECT)} and e.source in (from wanted)
            union
            select l.digest, l.target, 'what its layer link says'
            from layer_link l join kept k on k.digest = l.digest
            where l.repository = $2 and l.target in (from wanted) and l.target <> l.digest
            union
            select {_SUBJECT} as subject, t.target, 'what tag ' || t.name || ' names'
            from tag t
            where t.repository = $2 and t.target in (from wanted) and {_NAMES_DIGEST}
                and not exists (from gc_dead_tag d where d.repository = t.repository and d.name = t.name)
                and subject in (select digest from kept)
            order by 1, 2, 3
            """,
            [digests, self._number],
        )
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


def _also(inventory: Inventory, digest: Digest, cutoff: int) -> list[str]:
    """What keeps a blob though no repository reaches it."""
    rows = inventory.all(
        f"""
        select 'layer link ' || {text_sql("x.digest")} || ' of ' || r.name from layer_link x
        join repository r on r.id = x.repository
        anti join gc_dead_layer_link d on d.repository = x.repository and d.digest = x.digest
        where x.digest = $1 or x.target = $1
        union all
        select 'revision link ' || {text_sql("x.digest")} || ' of ' || r.name || ', which names it' from revision_link x
        join repository r on r.id = x.repository
        anti join gc_dead_revision d on d.repository = x.repository and d.digest = x.digest
        where x.target = $1 and x.target <> x.digest
        union all
        select 'a signature of ' || {text_sql("x.revision")} || ' in ' || r.name from signature_link x
        join repository r on r.id = x.repository
        anti join gc_dead_signature d
            on d.repository = x.repository and d.revision = x.revision and d.digest = x.digest
        where x.digest = $1
        union all
        select 'unknown key ' || key from unknown
        where contains(key, $2) and starts_with(key, '{layout.REPOSITORIES}')
        union all
        select 'the blob is younger than the grace' from blob where digest = $1 and mtime >= {cutoff}
        order by 1 limit 20
        """,
        [digest.raw, f"{digest.algorithm}/{digest.encoded}"],
    )
    return [row[0] for row in rows]
