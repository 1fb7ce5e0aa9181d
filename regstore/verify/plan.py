"""What is wrong with a registry's storage, as relations in the inventory. No I/O, no clock.

What is held against what, for each repository:

- *followed* manifests: every linked revision, every tag's target, and children that are linked, or were. A child of
  an index that nothing of the repository links is normal (a sparse index), unless all that the child names is linked
  there: then its own link was lost;
- a followed manifest needs its config, layers and other entries: their blobs, and links to them, for a registry
  serves a blob only through a link of the repository. Foreign layers are needed only where they are linked;
- every link's body is the digest of its path; a layer link by sha512 names the digest under which the bytes lie;
- a blob has the size that descriptors say, and the bytes that its digest says, as far as anybody looked: the
  scan at manifests, `read` at others (table `verify_rotten(digest, detail)`, and `verify_proven(digest)` for those
  that were right);
- a tag's folder has its current/link. Its history, and the signatures of schema1, have sound links
  (`verify_odd_link(area, repository, tag, revision, digest, size, mtime, body)` are those that were read and are not).

A blob or link that the store has and does not give (table `verify_unread(digest, detail)`; `unread` of a link) is
named, for no registry can serve it, and it is damage of that key. But of what it holds nothing is known: nothing is
repaired, rewritten or dropped on such evidence. Of what is archived the listing's word is taken, unless somebody could
read it all the same (`verify_at_hand(key)`: a copy that was restored for a while).

A layer link that no manifest needs and whose blob is gone is a leftover, no damage: garbage-collect of Distribution
2.x leaves one for each layer it removes. In a pull-through cache nothing that is absent is damage.

The plan's tables: verify_fault(id, kind, area, repository, digest, tag, size, mtime, body, repairable, detail);
verify_at(fault, repository, digest): where a fault strikes; verify_touched(fault, repository, tag, pull): the tags it
touches, `pull` when the tag can't be pulled whole, not only a referrer of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from regstore.digest import Digest
from regstore.inventory.inventory import Inventory, text_sql
from regstore.inventory.scan import LINK_MAX
from regstore.manifest import EdgeKind

_MANIFEST: Final = int(EdgeKind.MANIFEST)
_FOREIGN: Final = int(EdgeKind.FOREIGN_LAYER)
_SUBJECT: Final = int(EdgeKind.SUBJECT)
ODD_LINK_COLUMNS: Final = (
    "area varchar, repository integer, tag varchar, revision blob, "
    "digest blob, size bigint, mtime bigint, body blob, unread varchar"
)
ARCHIVED_LINK_COLUMNS: Final = (
    "key varchar, class varchar, area varchar, repository varchar, digest blob, tag varchar"
)
#: Faults that a summary names; all are counted.
FAULTS_NAMED: Final = 10_000


class FaultKind(StrEnum):
    BLOB_MISSING = "blob missing"
    BLOB_DAMAGED = "blob damaged"  # its bytes were read, and are others
    BLOB_UNREADABLE = "blob unreadable"  # the store has it and does not give its bytes: nothing is known of them
    LINK_UNREADABLE = "link unreadable"  # likewise
    ARCHIVED = "archived"  # a blob or a link that nobody can read before it is restored
    SIZE_DIFFERS = "size differs"
    LINK_DAMAGED = "link damaged"
    LINK_MISSING = "link missing"
    MANIFEST_UNREADABLE = "manifest unreadable"  # its bytes are right, but what it needs is not known

    @property
    def is_damage(self) -> bool:
        return self is not FaultKind.MANIFEST_UNREADABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class TouchedTag:
    """pull: the tag itself can't be pulled whole; otherwise something that refers to it is concerned."""

    repository: str
    tag: str
    pull: bool

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong.

    area: `blob`, `manifest`, or the kind of link: `layer`, `revision`, `tag`, `history` (of a tag), `signature` (of
    schema1). repository: of a link. digest: for a missing link of a tag, what it named last.
    repositories: those that need it. repairable: its path says what a damaged link must hold, and the blob is there; or
    it is the empty link of a tag that only ever named one manifest, and that is whole.
    """

    kind: FaultKind
    area: str
    detail: str
    repository: str = ""
    digest: Digest | None = None
    tag: str = ""
    repairable: bool = False
    repositories: tuple[str, ...] = ()
    touched: tuple[TouchedTag, ...] = ()

    @property
    def subject(self) -> str:
        """What is wrong, in a few words: `blob sha256:…`, `the layer link a/b@sha256:…`, `the link of tag a/b:1`."""
        if self.area == "history":
            return f"the history of tag {self.repository}:{self.tag} at {self.digest}"
        if self.tag:
            return f"the link of tag {self.repository}:{self.tag}"
        if self.area in ("blob", "manifest"):
            return f"{self.area} {self.digest}"
        return f"the {self.area} link {self.repository}@{self.digest}"

    @property
    def remedy(self) -> str:
        """What would put it right, for the one who runs regstore."""
        match self.kind:
            case FaultKind.BLOB_MISSING:
                return "--repair-from a store or a backup that has it, or push it again"
            case FaultKind.BLOB_DAMAGED:
                return "--repair-from a store or a backup that has it; a push does not replace it"
            case FaultKind.BLOB_UNREADABLE:
                return "nothing: see why the store does not give it; move it away if it is lost, then --repair-from"
            case FaultKind.LINK_UNREADABLE:
                return "nothing: see why the store does not give it; move it away if it is lost, then push again"
            case FaultKind.ARCHIVED:
                return "restore it, copy it to a class that is read at once, and let no lifecycle rule archive it again"
            case FaultKind.SIZE_DIFFERS if "the manifest is wrong" in self.detail:
                return "push the image again: what its manifest says was wrong from the start"
            case FaultKind.SIZE_DIFFERS:
                return "--read-data tells which of the two is wrong"
            case FaultKind.LINK_DAMAGED if self.repairable:
                return "--repair writes it anew"
            case FaultKind.LINK_DAMAGED if self.area in ("history", "signature"):
                return "push the tag again; pulls do not need this link"
            case FaultKind.LINK_DAMAGED | FaultKind.LINK_MISSING if self.tag:
                return "push the tag again, or --drop-broken-tags"
            case FaultKind.LINK_DAMAGED | FaultKind.LINK_MISSING:
                return "push the image again, or --repair-from a store that has the link, with --restore-links"
            case FaultKind.MANIFEST_UNREADABLE:
                return "nothing: its bytes are what was pushed, but what it needs can't be known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Absences:
    """What is absent and normally so, in numbers.

    foreign: non-distributable layers. sparse: children of indexes. cached: what a pull-through cache did not fetch.
    leftovers: layer links that nothing needs, to blobs that are gone. signatures: links to signatures of schema1.
    """

    foreign: int = 0
    sparse: int = 0
    cached: int = 0
    leftovers: int = 0
    signatures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The plan in numbers, and its faults (the first FAULTS_NAMED of them). Sizes in bytes."""

    repositories: int
    tags: int
    tags_touched: int
    tags_broken: int
    revisions: int
    layer_links: int
    blobs: int
    blob_bytes: int
    unknown: int
    absent: Absences
    counts: dict[FaultKind, int]
    faults: tuple[Fault, ...]

    @property
    def damage(self) -> int:
        return sum(number for kind, number in self.counts.items() if kind.is_damage)

    @property
    def unproven(self) -> int:
        return sum(number for kind, number in self.counts.items() if not kind.is_damage)


#: What tells a fault from others, in any look at the store.
IDENTITY: Final = "kind, area, repository, digest, tag"


def plan_verify(inventory: Inventory, *, pull_through: bool = False, among: str = "") -> Findings:
    """Make the plan's tables in the inventory, and sum them up. among: a table with the columns of IDENTITY; faults
    that it does not have are passed over."""
    planner = _Planner(inventory, pull_through)
    planner.follow()
    planner.require()
    planner.find_blobs()
    planner.find_links()
    if among:
        planner.keep(among)
    planner.touch()
    planner.find_lost_targets()
    return planner.summary()


class _Planner:
    def __init__(self, inventory: Inventory, pull_through: bool) -> None:
        self._inventory = inventory
        self._pull_through = pull_through
        run = inventory.execute
        run("create table if not exists verify_rotten (digest blob not null, detail varchar not null)")
        run("create table if not exists verify_unread (digest blob not null, detail varchar not null)")
        run("create table if not exists verify_proven (digest blob not null)")
        run(f"create table if not exists verify_odd_link ({ODD_LINK_COLUMNS})")
        run(f"create table if not exists verify_archived_link ({ARCHIVED_LINK_COLUMNS})")
        run("create table if not exists verify_at_hand (key varchar not null)")
        run("drop table if exists verify_fault")
        run("create or replace sequence verify_number")
        run(
            """
            create table verify_fault (
                id bigint default nextval('verify_number'), kind varchar not null, area varchar not null,
                repository integer, digest blob, tag varchar, size bigint, mtime bigint, body blob,
                repairable boolean default false, detail varchar not null
            )
            """
        )
        run("create or replace table verify_at (fault bigint, repository integer, digest blob)")

    def follow(self) -> None:
        """verify_followed, and verify_lost: children whose own link was lost."""
        run = self._inventory.execute
        run(
            """
            create or replace table verify_linked as
            select repository, digest from revision_link union select repository, digest from layer_link
            """
        )
        run(
            """
            create or replace table verify_followed as
            select repository, digest from revision_link
            union select repository, target from tag where target is not null
            union select repository, digest from legacy_revision
            """
        )
        run("create or replace table verify_lost (repository integer, digest blob)")
        while self._follow_children():
            pass

    def _follow_children(self) -> bool:
        run = self._inventory.execute
        run(
            f"""
            create or replace temp table child as
            select distinct f.repository, e.target as digest, l.digest is not null as linked
            from verify_followed f
            join edge e on e.source = f.digest and e.kind = {_MANIFEST}
            left join verify_linked l on l.repository = f.repository and l.digest = e.target
            anti join verify_followed k on k.repository = f.repository and k.digest = e.target
            """
        )
        run(
            f"""
            create or replace temp table lost as
            select c.repository, c.digest from child c
            join edge e on e.source = c.digest and e.kind not in ({_SUBJECT}, {_FOREIGN})
            left join verify_linked l on l.repository = c.repository and l.digest = e.target
            where not c.linked
            group by c.repository, c.digest having count(*) = count(l.digest)
            """
        )
        run("insert into verify_lost from lost")
        found = self._inventory.all(
            """
            insert into verify_followed
            select repository, digest from child where linked union select repository, digest from lost
            returning 1
            """
        )
        return bool(found)

    def require(self) -> None:
        """verify_need: what followed manifests name; verify_required(repository, digest, stored): every digest that
        a repository needs, and the one under which its bytes lie, null where that is not known."""
        run = self._inventory.execute
        run(
            f"""
            create or replace table verify_named as
            select f.repository, e.target as digest, e.source, e.kind, e.size,
                l.digest is not null as linked, k.digest is not null as followed
            from verify_followed f
            join edge e on e.source = f.digest and e.kind <> {_SUBJECT}
            left join verify_linked l on l.repository = f.repository and l.digest = e.target
            left join verify_followed k on k.repository = f.repository and k.digest = e.target
            """
        )
        run(
            f"""
            create or replace table verify_need as from verify_named
            where case kind when {_MANIFEST} then followed when {_FOREIGN} then linked else true end
            """
        )
        run(
            """
            create or replace table verify_required as
            with needed as (
                select repository, digest from verify_followed union select repository, digest from verify_need
            )
            select n.repository, n.digest, case
                when octet_length(n.digest) = 32 then n.digest
                when l.digest is not null then l.target
                when f.digest is not null then n.digest end as stored
            from needed n
            left join layer_link l on l.repository = n.repository and l.digest = n.digest
            left join verify_followed f on f.repository = n.repository and f.digest = n.digest
            """
        )

    def find_blobs(self) -> None:
        run = self._inventory.execute
        run(
            """
            create or replace temp table missing as
            select distinct repository, stored as digest from verify_required
            where stored is not null and stored not in (select digest from blob)
            """
        )
        if not self._pull_through:
            self._add_blobs(
                FaultKind.BLOB_MISSING,
                "select digest, 'its blob is not there' as detail from missing",
                strikes="select repository, digest from missing",
            )
        self._add_blobs(
            FaultKind.BLOB_DAMAGED,
            "select digest, reason as detail from manifest where state = 'mismatch'"
            " union all select digest, detail from verify_rotten",
            strikes="select repository, stored as digest from verify_required",
        )
        self._add_blobs(
            FaultKind.BLOB_UNREADABLE,
            "select digest, detail from verify_unread where digest not in (select digest from archived_blob)"
            " union all select digest, 'it can''t be read: ' || reason from manifest"
            " where state = 'unreadable' and digest not in (select digest from archived_blob)",
            strikes="select repository, stored as digest from verify_required",
        )
        self._add_blobs(
            FaultKind.ARCHIVED,
            f"""
            select digest, {_ARCHIVED} as detail from archived_blob
            where digest in (select stored from verify_required)
                and key not in (from verify_at_hand)
                and digest not in (select digest from manifest where state in ('ok', 'mismatch', 'invalid'))
            """,
            strikes="select repository, stored as digest from verify_required",
        )
        self._add_blobs(
            FaultKind.MANIFEST_UNREADABLE,
            "select digest, reason as detail from manifest where state in ('invalid', 'too large')"
            " and digest in (select digest from verify_followed)",
            strikes="select repository, digest from verify_followed",
        )
        self._add_blobs(
            FaultKind.SIZE_DIFFERS,
            f"""
            select distinct s.digest, 'manifest ' || {text_sql("s.source")} || ' says ' || s.size || ' bytes, it has '
                || b.size || case
                    when b.digest in (select digest from verify_proven union all
                        select digest from manifest where state in ('ok', 'invalid'))
                        then '; its own bytes are right, the manifest is wrong'
                    else '' end as detail
            from (
                select n.source, n.size, n.digest, r.stored from verify_need n
                join verify_required r on r.repository = n.repository and r.digest = n.digest
                where n.size >= 0
            ) s
            join blob b on b.digest = s.stored
            where b.size <> s.size and s.stored not in (
                select digest from verify_fault where kind = '{FaultKind.BLOB_DAMAGED}'
            )
            """,
        )

    def _add_blobs(
        self, kind: FaultKind, found: str, strikes: str = "select repository, digest from verify_required"
    ) -> None:
        """A fault for each digest of `found` (digest, detail), in every repository of `strikes`."""
        self._inventory.execute(
            f"""
            insert into verify_fault (kind, area, digest, detail)
            select '{kind}', case when digest in (select digest from manifest where state <> 'missing'
                union all select digest from revision_link) then 'manifest' else 'blob' end, digest, min(detail)
            from ({found}) group by digest order by digest
            """
        )
        self._inventory.execute(
            f"""
            insert into verify_at
            select distinct f.id, s.repository, s.digest from verify_fault f join ({strikes}) s on s.digest = f.digest
            where f.kind = '{kind}'
            """
        )

    def find_links(self) -> None:
        run = self._inventory.execute
        for area in ("revision", "layer", "tag"):
            label = "x.digest, null" if area != "tag" else "null, x.name"
            run(
                f"""
                insert into verify_fault (kind, area, repository, digest, tag, size, mtime, detail)
                select '{FaultKind.LINK_UNREADABLE}', '{area}', x.repository, {label}, x.size, x.mtime,
                    'it can''t be read: ' || x.unread
                from {area}{"" if area == "tag" else "_link"} x join repository r on r.id = x.repository
                where x.unread is not null and not exists (
                    from verify_archived_link a where a.area = '{area}' and a.repository = r.name
                        and a.digest is not distinct from {label.split(", ")[0]}
                        and a.tag is not distinct from {label.split(", ")[1]}
                )
                order by 3, 4, 5
                """
            )
        run(
            f"""
            insert into verify_fault (kind, area, repository, tag, digest, size, mtime, detail)
            select '{FaultKind.LINK_UNREADABLE}', area, repository, tag, digest, size, mtime,
                'it can''t be read: ' || unread
            from verify_odd_link where unread is not null order by area, repository, tag, digest
            """
        )
        run(
            f"""
            insert into verify_fault (kind, area, repository, digest, tag, detail)
            select '{FaultKind.ARCHIVED}', a.area, r.id, a.digest, a.tag, {_ARCHIVED}
            from verify_archived_link a join repository r on r.name = a.repository
            where key not in (from verify_at_hand) order by 2, 3, 4, 5
            """
        )
        for area in ("revision", "layer"):
            run(
                f"""
                insert into verify_fault (kind, area, repository, digest, size, mtime, body, repairable, detail)
                select '{FaultKind.LINK_DAMAGED}', '{area}', x.repository, x.digest, x.size, x.mtime,
                    case when x.target is null then x.body else coalesce(x.body, encode({text_sql("x.target")})) end,
                    octet_length(x.digest) = 32 and x.digest in (select digest from blob)
                        and {"false" if self._pull_through else "true"},
                    case when x.target is not null then 'it names ' || {text_sql("x.target")}
                        when x.size = 0 then 'it is empty'
                        when x.size > {LINK_MAX} then 'it has ' || x.size || ' bytes'
                        else 'its ' || x.size || ' bytes are no digest' end
                from {area}_link x
                where x.unread is null and (x.target is null or x.target <> x.digest
                    and {"true" if area == "revision" else "octet_length(x.digest) = 32"})
                order by 3, 4
                """
            )
        run(
            f"""
            insert into verify_fault (kind, area, repository, tag, size, mtime, body, detail)
            select '{FaultKind.LINK_DAMAGED}', 'tag', repository, name, size, mtime, body,
                case when size = 0 then 'it is empty' else 'its ' || size || ' bytes are no digest' end
            from tag where target is null and unread is null order by repository, name
            """
        )
        run(
            f"""
            insert into verify_fault (kind, area, repository, tag, digest, size, mtime, body, detail)
            select '{FaultKind.LINK_DAMAGED}', area, repository, tag, digest, size, mtime, body,
                case when size = 0 then 'it is empty' else 'its ' || size || ' bytes are not this digest' end
            from verify_odd_link where unread is null order by area, repository, tag, digest
            """
        )
        if not self._pull_through:
            run(
                f"""
                insert into verify_fault (kind, area, repository, tag, digest, detail)
                select '{FaultKind.LINK_MISSING}', 'tag', repository, name, arg_max(digest, mtime),
                    'its history is there, its current/link is not'
                from tag_index i
                anti join tag t on t.repository = i.repository and t.name = i.name
                group by repository, name order by repository, name
                """
            )
            run(
                f"""
                insert into verify_fault (kind, area, repository, digest, detail)
                select '{FaultKind.LINK_MISSING}', area, repository, digest, min(detail) from (
                    select 'revision' as area, t.repository, t.target as digest,
                        'a tag names it, and the repository does not link it' as detail
                    from tag t
                    anti join verify_linked l on l.repository = t.repository and l.digest = t.target
                    where t.target is not null
                    union all
                    select 'revision', repository, digest,
                        'an index names it, and what it names is linked, but not the manifest itself'
                    from verify_lost
                    union all
                    select 'layer', repository, digest,
                        'manifest ' || {text_sql("source")} || ' names it, and the repository does not link it'
                    from verify_need where not linked and kind not in ({_MANIFEST}, {_FOREIGN})
                ) group by area, repository, digest order by repository, digest
                """
            )
        run(
            """
            insert into verify_at select id, repository, digest from verify_fault
            where repository is not null and digest is not null and area in ('layer', 'revision')
            union all
            select f.id, o.repository, o.revision from verify_fault f join verify_odd_link o
                on o.area = f.area and o.repository = f.repository and o.digest = f.digest
            where f.area = 'signature'
            """
        )

    def keep(self, among: str) -> None:
        run = self._inventory.execute
        run(
            f"""
            delete from verify_fault f where not exists (
                from {among} a where a.kind = f.kind and a.area = f.area
                    and a.repository is not distinct from f.repository
                    and a.digest is not distinct from f.digest and a.tag is not distinct from f.tag
            )
            """
        )
        run("delete from verify_at where fault not in (select id from verify_fault)")

    def touch(self) -> None:
        """verify_touched: up from where faults strike, to the tags, through whatever names it or is referred to."""
        run = self._inventory.execute
        run(
            r"""
            create or replace temp table scheme as
            select repository, target as digest,
                unhex(regexp_extract(name, '^sha(?:256|512)-([0-9a-f]+)', 1)) as subject
            from tag
            where target is not null
                and regexp_full_match(name, 'sha256-[0-9a-f]{64}(\..+)?|sha512-[0-9a-f]{128}(\..+)?')
            """
        )
        run("create or replace temp table reached as select fault, repository, digest, true as pull from verify_at")
        run("create or replace temp table front as from reached")
        while self._inventory.count("front"):
            run(
                f"""
                create or replace temp table above as
                with incoming as (
                    select f.fault, f.repository, n.source as digest, f.pull from front f
                    join verify_need n on n.repository = f.repository and n.digest = f.digest
                    union all
                    select f.fault, f.repository, l.digest, f.pull from front f
                    join layer_link l on l.repository = f.repository and l.target = f.digest
                    where octet_length(l.digest) <> 32
                    union all
                    select f.fault, f.repository, e.target, false from front f
                    join edge e on e.source = f.digest and e.kind = {_SUBJECT}
                    join verify_followed s on s.repository = f.repository and s.digest = e.source
                    join verify_followed k on k.repository = f.repository and k.digest = e.target
                    union all
                    select f.fault, f.repository, s.subject, false from front f
                    join scheme s on s.repository = f.repository and s.digest = f.digest
                    join verify_followed k on k.repository = f.repository and k.digest = s.subject
                )
                select i.fault, i.repository, i.digest, bool_or(i.pull) as pull from incoming i
                group by i.fault, i.repository, i.digest
                """
            )
            run(
                """
                create or replace temp table front as
                from above a anti join reached r on r.fault = a.fault and r.repository = a.repository
                    and r.digest = a.digest and r.pull >= a.pull
                """
            )
            run("insert into reached from front")
        run(
            """
            create or replace table verify_touched as
            select x.fault, x.repository, t.name as tag, bool_or(x.pull) as pull
            from reached x join tag t on t.repository = x.repository and t.target = x.digest
            group by x.fault, x.repository, t.name
            union all
            select id, repository, tag, area = 'tag' from verify_fault where tag is not null
            """
        )

    def find_lost_targets(self) -> None:
        """Empty links of tags that only ever named one manifest, which is linked and whole: these are repairable."""
        if self._pull_through:
            return
        self._inventory.execute(
            f"""
            update verify_fault f set repairable = true where f.kind = '{FaultKind.LINK_DAMAGED}' and f.area = 'tag'
                and f.size = 0 and exists (
                    from {ONLY_TARGET} o join revision_link r on r.repository = o.repository and r.digest = o.digest
                    where o.repository = f.repository and o.name = f.tag and r.target = r.digest
                        and o.digest in (select digest from manifest where state = 'ok')
                        and not exists (
                            from reached x where x.repository = o.repository and x.digest = o.digest and x.pull
                        )
                )
            """
        )

    def summary(self) -> Findings:
        one, count = self._inventory.one, self._inventory.count
        counts = dict(self._inventory.all("select kind, count(*) from verify_fault group by kind order by kind"))
        return Findings(
            repositories=count("repository"),
            tags=count("tag"),
            tags_touched=one(f"select count(*) from (select distinct repository, tag from {_TOUCHED})"),
            tags_broken=one(f"select count(*) from (select distinct repository, tag from {_TOUCHED} where pull)"),
            revisions=count("revision_link"),
            layer_links=count("layer_link"),
            blobs=count("blob"),
            blob_bytes=one("select coalesce(sum(size), 0)::bigint from blob"),
            unknown=count("unknown"),
            absent=self._absences(),
            counts={FaultKind(kind): number for kind, number in counts.items()},
            faults=tuple(self._faults()),
        )

    def _absences(self) -> Absences:
        one = self._inventory.one
        unlinked = "not linked and not followed and digest not in (select digest from blob)"
        cached = 0
        if self._pull_through:
            cached = one("select count(distinct digest) from missing")
        return Absences(
            foreign=one(f"select count(distinct digest) from verify_named where kind = {_FOREIGN} and {unlinked}"),
            sparse=one(
                f"""
                select count(*) from (select distinct repository, digest from verify_named
                where kind = {_MANIFEST} and not followed)
                """
            ),
            cached=cached,
            leftovers=one(
                """
                select count(*) from layer_link l
                where l.target is not null and l.target not in (select digest from blob)
                    and (l.target = l.digest or octet_length(l.digest) <> 32)
                    and not exists (
                        from verify_required r where r.repository = l.repository and r.digest = l.digest
                    )
                """
            ),
            signatures=one("select count(*) from signature_link where digest not in (select digest from blob)"),
        )

    def _faults(self) -> list[Fault]:
        inventory = self._inventory
        names = dict(inventory.all("select id, name from repository"))
        rows = inventory.all(
            "select id, kind, area, detail, repository, digest, tag, repairable from verify_fault"
            f" order by id limit {FAULTS_NAMED}"
        )
        last = rows[-1][0] if rows else 0
        touched: dict[int, list[TouchedTag]] = {}
        for fault, repository, tag, pull in inventory.all(
            "select fault, r.name, tag, pull from verify_touched join repository r on r.id = repository"
            " where fault <= ? order by 1, 2, 3",
            [last],
        ):
            touched.setdefault(fault, []).append(TouchedTag(repository=repository, tag=tag, pull=pull))
        needing: dict[int, list[str]] = {}
        for fault, name in inventory.all(
            "select distinct fault, r.name from verify_at join repository r on r.id = repository"
            " where fault <= ? order by 1, 2",
            [last],
        ):
            needing.setdefault(fault, []).append(name)
        return [
            Fault(
                kind=FaultKind(kind),
                area=area,
                detail=detail,
                repository="" if repository is None else names[repository],
                digest=None if digest is None else Digest.from_raw(bytes(digest)),
                tag=tag or "",
                repairable=repairable,
                repositories=tuple(needing.get(number, () if repository is None else (names[repository],))),
                touched=tuple(touched.get(number, ())),
            )
            for number, kind, area, detail, repository, digest, tag, repairable in rows
        ]


#: Tags whose history holds one manifest, by a sound link: (repository, name, digest, mtime).
ONLY_TARGET: Final = """(
    select i.repository, i.name, min(i.digest) as digest, max(i.mtime) as mtime from tag_index i
    group by i.repository, i.name having count(*) = 1 and not exists (
        from verify_odd_link o where o.area = 'history' and o.repository = i.repository and o.tag = i.name
    )
)"""
#: Tags that damage touches.
_TOUCHED: Final = (
    f"(select v.* from verify_touched v join verify_fault f on f.id = v.fault"
    f" where f.kind <> '{FaultKind.MANIFEST_UNREADABLE}')"
)
#: SQL for what is said of a row of `archived`. class: "" where reading told.
_ARCHIVED: Final = """case class
    when '' then 'it is archived, as reading it tells (a listing does not show what Intelligent-Tiering archives)'
    else 'its storage class is ' || class end || ': nobody can pull it before it is restored'"""
