"""What gc would remove, as a plan: relations in the inventory, and a summary of them. No I/O, no clock.

The rules, for each repository:

- roots: every revision; with `delete_untagged` every tag, and what is younger than the grace;
- all that roots reach is kept (`inventory.reachability`), and referrers with what they refer to;
- a tag that names a digest (`sha256-<hex>`, cosign's `.sig`, `.att`, `.sbom`) follows the manifest it names, when that
  manifest is a revision of the same repository and the tag's own target does not hold it;
- a repository with anything that can't be read and verified is *protected*: nothing in it is unlinked, and all it
  links counts as live. So it is, too, where a link is one that the store does not give: a sha256 link's path says what
  it keeps, a tag keeps all that its history names, and of a sha512 link only the body knows, so no blob goes at all;
- a link younger than the grace is a root, whatever names it;
- a tag that a policy drops (`gc.retention`) is no root, and goes;
- a revision that can't be read, where the operator lets such go (`gc.broken`), goes with the tags that point at it.

A blob goes when no repository reaches it, no link that stays names it, no unknown key names it, and it is older
than the grace.

The plan's tables: gc_dead_tag(repository, name), gc_dead_tag_index(repository, name, digest),
gc_dead_revision(repository, digest), gc_dead_signature(repository, revision, digest), gc_dead_layer_link(repository,
digest), gc_dead_blob(digest, size, mtime), gc_dead_upload(repository, uuid, size), gc_protected(repository, reason),
gc_dropped_tag(repository, name, rule); gc_dead_litter (`gc.litter`); and gc_unlink(repository, step, label, digest,
key, size, mtime, body): every key of theirs but the blobs', as it was listed, in the order of `Step`. label: of a tag's
keys the tag, of an upload's its id; digest: what a link is named by, and what a tag names; both null elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Final

from regstore import layout
from regstore.gc.broken import LINK_REASON, find_broken, keep_broken
from regstore.gc.litter import collect_litter, collect_outer_litter
from regstore.gc.one_time import find_one_time
from regstore.gc.policy import BrokenScope, Policy
from regstore.gc.retention import Fate, Retention
from regstore.gc.staying import Held, Young, find_young, hold_by_unknown
from regstore.inventory.inventory import Inventory, path_sql, text_sql
from regstore.inventory.reachability import Reachability
from regstore.inventory.scan import LINK_MAX
from regstore.inventory.unlinked import Unlinked, find_unlinked
from regstore.manifest import EdgeKind
from regstore.reference import is_name

_MANIFEST: Final = int(EdgeKind.MANIFEST)
#: Stands for repositories whose keys can't be decoded.
_NOWHERE: Final = -1
HOUR: Final = 3600 * 1_000_000


@dataclass(frozen=True, kw_only=True)
class GcOptions:
    """What to keep. Durations in microseconds."""

    delete_untagged: bool = False
    grace: int = 24 * HOUR
    uploads_older_than: int = 7 * 24 * HOUR
    policy: Policy | None = None
    drop_broken: tuple[BrokenScope, ...] = ()

    def __post_init__(self) -> None:
        if self.policy is not None and self.policy.delete_untagged:
            object.__setattr__(self, "delete_untagged", True)


class Step(IntEnum):
    """The order in which a repository's keys go: whatever is cut short leaves garbage, never a link to nothing."""

    TAG = 1
    TAG_INDEX = 2
    REVISION = 3
    SIGNATURE = 4
    LAYER = 5
    UPLOAD = 6
    LITTER = 7


@dataclass(frozen=True, kw_only=True)
class Count:
    total: int
    dead: int


@dataclass(frozen=True, kw_only=True)
class Protected:
    """A repository that is left alone, and every reason why."""

    name: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RepositoryShare:
    """What goes from one repository. blob_bytes: of dead blobs that its dead links name (shared ones count in each)."""

    name: str
    tags: int
    revisions: int
    layer_links: int
    uploads: int
    blob_bytes: int
    emptied: bool


@dataclass(frozen=True, kw_only=True)
class RuleShare:
    """What one rule of the policy does. tags: that it is about. unknown_times: that stay because their image's time
    can't be read. own_times: judged by their own time, because their image says none."""

    name: str
    newest_by: str
    tags: int
    dropped: int
    unknown_times: int
    own_times: int


@dataclass(frozen=True, kw_only=True)
class BrokenRevision:
    """One that can't be read and goes, why, and the tags that go with it."""

    repository: str
    digest: str
    reason: str
    tags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class GcSummary:
    """The plan in numbers. Sizes in bytes. untagged: repositories that have no tag, but for such as follow what they
    name, and would lose all revisions, for want of one."""

    blobs: Count
    blob_bytes: int
    dead_blob_bytes: int
    orphan_blobs: int
    orphan_blob_bytes: int
    revisions: Count
    layer_links: Count
    tags: Count
    tag_index: Count
    signatures: Count
    uploads: Count
    dead_upload_bytes: int
    litter: Count
    repositories: int
    emptied: tuple[str, ...]
    protected: tuple[Protected, ...]
    shares: tuple[RepositoryShare, ...]
    unknown: int
    sweep_blocked: str
    uploads_blocked: str
    problems: tuple[str, ...] = field(default=())
    rules: tuple[RuleShare, ...] = ()
    broken: tuple[BrokenRevision, ...] = ()
    held: Held = field(default_factory=Held)
    young: Young = field(default_factory=Young)
    untagged: tuple[str, ...] = ()
    one_time: tuple[str, ...] = ()
    unlinked: Unlinked = field(default_factory=Unlinked)

    @property
    def nothing_to_do(self) -> bool:
        return not any(
            count.dead
            for count in (
                self.blobs,
                self.revisions,
                self.layer_links,
                self.tags,
                self.tag_index,
                self.signatures,
                self.uploads,
                self.litter,
            )
        )


def plan_gc(inventory: Inventory, options: GcOptions, *, now: int) -> GcSummary:
    """Make the plan's tables in the inventory. `now` in microseconds, by the store's clock."""
    planner = _Planner(inventory, options, now)
    planner.links()
    blocked = planner.collect_blobs()
    collect_outer_litter(inventory)
    return planner.summary(blocked)


def plan_links(inventory: Inventory, options: GcOptions, *, now: int) -> None:
    """The same without the blobs, for an inventory that holds some repositories only."""
    _Planner(inventory, options, now).links()


def plan_blobs(inventory: Inventory, options: GcOptions, *, now: int) -> None:
    """The same without the summary, for a second look, when links are gone already: every tag, revision and other link
    that still stands counts, whatever was planned for it: it came, or changed, or the store would not delete it."""
    planner = _Planner(inventory, replace(options, policy=None, drop_broken=(), delete_untagged=False), now)
    planner.links()
    for table in ("gc_dead_layer_link", "gc_dead_revision", "gc_dead_signature"):
        inventory.execute(f"delete from {table}")
    planner.collect_blobs()


class _Planner:
    def __init__(self, inventory: Inventory, options: GcOptions, now: int) -> None:
        self._inventory = inventory
        self._options = options
        self._now = now
        self._cutoff = now - options.grace
        self._uploads_cutoff = now - options.uploads_older_than

    def links(self) -> None:
        self.choose_tags()
        find_broken(self._inventory, self._options.drop_broken, cutoff=self._cutoff)
        self.protect()
        self.reach()
        self.collect_links()
        self.collect_uploads()
        collect_litter(self._inventory, cutoff=self._cutoff)
        self.collect_keys()

    def choose_tags(self) -> None:
        """gc_tag_fate and gc_dropped_tag: what the policy says of each tag."""
        run = self._inventory.execute
        policy = self._options.policy
        if policy is None:
            run("create or replace table gc_tag_fate (repository integer, name varchar, fate varchar)")
            run("create or replace table gc_dropped_tag (repository integer, name varchar, rule varchar)")
            return
        retention = Retention(self._inventory, policy, now=self._now, grace=self._options.grace)
        retention.sort()
        retention.decide()
        run("create or replace temp table rule_name (rule integer, label varchar)")
        self._inventory.insert(
            "rule_name",
            {
                "rule": ("int32", list(range(len(policy.rules)))),
                "label": ("utf8", [rule.name for rule in policy.rules]),
            },
        )
        run(
            f"""
            create or replace table gc_dropped_tag as
            select repository, name, label as rule from gc_tag_fate join rule_name using (rule)
            where fate = '{Fate.GOES}'
            """
        )

    def protect(self) -> None:
        """Protected for what stands in the repository itself; `reach` adds those that reach something unreadable."""
        run = self._inventory.execute
        run("create or replace table gc_protected (repository integer not null, reason varchar not null)")
        invalid = [row for row in self._inventory.all("select id, name from repository") if not is_name(row[1])]
        self._inventory.insert(
            "gc_protected",
            {
                "repository": ("int32", [row[0] for row in invalid]),
                "reason": ("utf8", ["its name is not one that a registry accepts"] * len(invalid)),
            },
        )
        run(
            f"""
            insert into gc_protected
            select x.repository, {LINK_REASON} from revision_link x
            where (x.target is null or x.target <> x.digest) and not {_is_broken("x.digest")}
            """
        )
        run(
            f"""
            insert into gc_protected
            select x.repository, 'manifest ' || {text_sql("x.digest")} || ' can''t be read: ' || m.reason
            from (select repository, digest from revision_link union select repository, digest from legacy_revision) x
            join manifest m using (digest) where m.state <> 'ok' and not {_is_broken("x.digest")}
            """
        )
        run(
            f"""
            insert into gc_protected
            select x.repository, 'tag ' || x.name || ' names ' || {text_sql("x.target")} || ', which can''t be read: '
                || m.reason
            from tag x join manifest m on m.digest = x.target
            where m.state not in ('ok', 'missing') and not {_is_broken("x.target")}
            """
        )
        run(
            f"""
            insert into gc_protected
            select repository, 'the link of tag ' || name || ' can''t be read: ' || unread
            from tag where unread is not null
            union all
            select repository, 'the link of layer ' || {text_sql("digest")} || ' can''t be read: ' || unread
            from layer_link where unread is not null
            """
        )
        if self._options.delete_untagged:
            run(
                """
                insert into gc_protected
                select repository, 'the link of tag ' || name
                    || case when size = 0 then ' is empty' else ' is damaged' end
                from tag where target is null and unread is null
                """
            )
        self._spare("select repository from gc_protected")

    def _spare(self, repositories: str) -> None:
        """Protected repositories, SQL for their ids, lose neither tags nor broken revisions."""
        keep_broken(self._inventory, repositories)
        self._inventory.execute(f"delete from gc_dropped_tag where repository in ({repositories})")

    def reach(self) -> None:
        """Fill `reach`: roots, then whatever newly protected repositories and followed tags add, to a fixpoint."""
        self._find_followers()
        self._reach = Reachability(
            self._inventory, revisions="gc_sound_revision" if self._options.drop_broken else "revision_link"
        )
        young_links = (
            "select repository, unnest([digest, target]) as digest, false as expand from layer_link"
            f" where mtime >= {self._cutoff}"
        )
        tags = f"select repository, target, true from tag where target is not null and not ({_GOES_OR_FOLLOWS})"
        revisions = "select repository, digest, true from gc_sound_revision"
        if self._options.delete_untagged:
            revisions += f" where mtime >= {self._cutoff} or repository in (select repository from gc_protected)"
        odd = (
            "select repository, digest, true from legacy_revision"
            " union all select repository, i.digest, true from tag_index i"
            " join tag t using (repository, name) where t.unread is not null"
            f" union all select {_NOWHERE}, digest, followed from unknown_digest"
        )
        self._reach.add(f"{young_links} union all {tags} union all {revisions} union all {odd}")
        while self._protect_reaching() | self._protect_needing() | self._follow():
            pass

    def _find_followers(self) -> None:
        """Tags that stay only as long as the manifest they name: gc_follower(repository, name, target, subject)."""
        run = self._inventory.execute
        wanted = "true" if self._options.delete_untagged else "false"
        run(
            rf"""
            create or replace table gc_follower as
            with named as (
                select repository, name, target,
                    unhex(regexp_extract(name, '^sha(?:256|512)-([0-9a-f]+)', 1)) as subject
                from tag
                where mtime < {self._cutoff} and target is not null
                    and repository not in (select repository from gc_protected)
                    and regexp_full_match(name, 'sha256-[0-9a-f]{{64}}(\..+)?|sha512-[0-9a-f]{{128}}(\..+)?')
            )
            select n.* from named n
            join revision_link r on r.repository = n.repository and r.digest = n.subject
            where n.target <> n.subject
                and ({wanted} or exists (
                    from gc_broken_revision b where b.repository = n.repository and b.digest = n.subject))
                and not exists (from gc_broken_tag b where b.repository = n.repository and b.name = n.name)
                and not exists (
                    from gc_tag_fate f
                    where f.repository = n.repository and f.name = n.name and f.fate = '{Fate.PROTECTED}')
            """
        )
        # A tag whose own target holds the manifest it names is an ordinary tag.
        run(
            "create or replace temp table held as"
            " select repository, name, target as digest, true as followed from gc_follower"
        )
        run("create or replace temp table front as from held")
        while self._inventory.count("front"):
            run(
                f"""
                create or replace temp table fresh as
                with next as (
                    select f.repository, f.name, e.target as digest, e.kind = {_MANIFEST} as followed
                    from front f join edge e on e.source = f.digest
                    where f.followed and e.kind <> {int(EdgeKind.SUBJECT)}
                ),
                widened as (
                    select n.repository, n.name, n.digest, bool_or(n.followed or r.digest is not null) as followed
                    from next n left join revision_link r on r.repository = n.repository and r.digest = n.digest
                    group by n.repository, n.name, n.digest
                )
                from widened w anti join held h on h.repository = w.repository and h.name = w.name
                    and h.digest = w.digest and h.followed >= w.followed
                """
            )
            run("insert into held from fresh")
            run("create or replace temp table front as from fresh")
        run(
            """
            delete from gc_follower f using held h
            where h.repository = f.repository and h.name = f.name and h.digest = f.subject
            """
        )

    def _protect_reaching(self) -> bool:
        """Protect repositories that reach a manifest which is there but can't be read; whether there were new ones."""
        found = self._inventory.all(
            f"""
            insert into gc_protected
            select distinct k.repository, 'manifest ' || {text_sql("k.digest")} || ' can''t be read: ' || m.reason
            from {self._reach.table} k join manifest m on m.digest = k.digest
            where k.expand and m.state not in ('ok', 'missing') and k.repository <> {_NOWHERE}
                and k.repository not in (select repository from gc_protected)
            returning repository
            """
        )
        return self._protect_more(found)

    def _protect_needing(self) -> bool:
        """Protect repositories in which something that stays needs a revision that was to go, unreadable as it is."""
        if not self._options.drop_broken:
            return False
        found = self._inventory.all(
            f"""
            insert into gc_protected
            select distinct b.repository, b.reason || '; what stays refers to it'
            from gc_broken_revision b
            join {self._reach.table} k on k.repository = b.repository and k.digest = b.digest
            returning repository
            """
        )
        return self._protect_more(found)

    def _protect_more(self, found: Sequence[tuple[Any, ...]]) -> bool:
        """Make roots of all that the newly protected repositories hold."""
        if not found:
            return False
        self._inventory.execute("create or replace temp table newly (repository integer)")
        self._inventory.insert("newly", {"repository": ("int32", sorted({row[0] for row in found}))})
        self._inventory.execute("delete from gc_follower where repository in (from newly)")
        self._spare("from newly")
        self._reach.add(
            "select repository, digest, true as expand from revision_link where repository in (from newly)"
            " union all select repository, target, true from tag where repository in (from newly)"
        )
        return True

    def _follow(self) -> bool:
        """Make roots of the tags whose subject is reached; whether there were any."""
        self._inventory.execute(
            f"""
            create or replace temp table followed as
            select f.repository, f.name, f.target from gc_follower f
            where exists (
                from {self._reach.table} k where k.repository = f.repository and k.digest = f.subject
            )
            """
        )
        if not self._inventory.count("followed"):
            return False
        self._inventory.execute(
            "delete from gc_follower f using followed w where w.repository = f.repository and w.name = f.name"
        )
        self._reach.add("select repository, target as digest, true as expand from followed")
        return True

    def collect_links(self) -> None:
        run = self._inventory.execute
        old = f"mtime < {self._cutoff} and repository not in (select repository from gc_protected)"
        unreached = (
            f"not exists (from {self._reach.table} k where k.repository = x.repository and k.digest = x.digest)"
        )
        run(
            "create or replace table gc_dead_tag as select repository, name from gc_follower"
            " union select repository, name from gc_dropped_tag union select repository, name from gc_broken_tag"
        )
        run(
            f"""
            create or replace table gc_dead_revision as
            select repository, digest from revision_link x
            where {old} and (
                {"true" if self._options.delete_untagged else "false"} and {unreached} or {_is_broken("x.digest")}
            )
            """
        )
        run(
            f"""
            create or replace table gc_dead_signature as
            select repository, revision, digest from signature_link x
            where repository not in (select repository from gc_protected) and (
                exists (from gc_dead_revision d where d.repository = x.repository and d.digest = x.revision)
                or mtime < {self._cutoff} and not exists (
                    from {self._reach.table} k where k.repository = x.repository and k.digest = x.revision
                ) and not exists (
                    from revision_link r where r.repository = x.repository and r.digest = x.revision
                )
            )
            """
        )
        run(
            f"""
            create or replace table gc_dead_layer_link as
            select repository, digest from layer_link x
            where {old} and {unreached}
                and (target is not null or body is not null or size <= {LINK_MAX})
                and (target is null or not exists (
                    from {self._reach.table} k where k.repository = x.repository and k.digest = x.target
                ))
                -- only such a link tells which blob a sha512 reference means, in whatever repository it stands
                and (octet_length(digest) = 32 or digest not in (select digest from {self._reach.table}))
            """
        )
        # v2.x finds repositories by their layer links alone: its garbage-collect would delete all that a repository
        # without any holds.
        run(
            """
            delete from gc_dead_layer_link d
            using (
                select x.repository, min(x.digest) as digest from layer_link x
                where exists (
                    from revision_link r where r.repository = x.repository and not exists (
                        from gc_dead_revision g where g.repository = r.repository and g.digest = r.digest)
                ) or exists (
                    from tag t where t.repository = x.repository and not exists (
                        from gc_dead_tag g where g.repository = t.repository and g.name = t.name)
                )
                group by x.repository
                having count(*) = (select count(*) from gc_dead_layer_link g where g.repository = x.repository)
            ) kept
            where d.repository = kept.repository and d.digest = kept.digest
            """
        )
        # An index entry goes with its tag, or when it names a revision that is gone; a tag without current/link is
        # a leftover, unless an entry is so young that a push may be between the two.
        run(
            f"""
            create or replace table gc_dead_tag_index as
            with state as (
                select x.repository, x.name, x.digest, x.mtime,
                    max(x.mtime) over (partition by x.repository, x.name) as newest,
                    t.name is not null and not exists (
                        from gc_dead_tag d where d.repository = x.repository and d.name = x.name
                    ) as tagged,
                    t.target,
                    r.digest is not null and not exists (
                        from gc_dead_revision d where d.repository = x.repository and d.digest = x.digest
                    ) as kept
                from tag_index x
                left join tag t on t.repository = x.repository and t.name = x.name
                left join revision_link r on r.repository = x.repository and r.digest = x.digest
            )
            select repository, name, digest from state
            where repository not in (select repository from gc_protected) and case
                when tagged then mtime < {self._cutoff} and target is distinct from digest and not kept
                else newest < {self._cutoff} end
            """
        )

    def collect_uploads(self) -> None:
        self._inventory.execute(
            f"""
            create or replace table gc_dead_upload as
            select repository, uuid, sum(size)::bigint as size from (
                select repository, uuid, size, mtime from upload_part
                union all
                select repository, uuid, size, newest from multipart_upload
            )
            group by repository, uuid
            having max(mtime) < {self._uploads_cutoff} and {str(not self._inventory.multipart_uploads_unknown).lower()}
            """
        )

    def collect_blobs(self) -> str:
        """gc_dead_blob, and why it must stay empty, or ""."""
        run = self._inventory.execute
        # Only its body tells which blob such a link means: without it, any blob may be the one.
        unresolved = self._inventory.all(
            f"""
            select 'the layer link ' || {text_sql("x.digest")} || ' of ' || r.name || ' can''t be read'
            from layer_link x join repository r on r.id = x.repository
            where octet_length(x.digest) <> 32 and x.target is null and not exists (
                from gc_dead_layer_link d where d.repository = x.repository and d.digest = x.digest
            )
            union all
            select 'an unknown key names ' || {text_sql("digest")} from unknown_digest where octet_length(digest) <> 32
            limit 1
            """
        )
        run(
            f"""
            create or replace temp table live_blob as
            select digest from {self._reach.table} where repository <> {_NOWHERE}
            union
            select unnest([x.digest, x.target]) from layer_link x
            anti join gc_dead_layer_link d on d.repository = x.repository and d.digest = x.digest
            union
            select unnest([x.digest, x.target]) from revision_link x
            anti join gc_dead_revision d on d.repository = x.repository and d.digest = x.digest
            union
            select x.digest from signature_link x
            anti join gc_dead_signature d
                on d.repository = x.repository and d.revision = x.revision and d.digest = x.digest
            """
        )
        run(
            f"""
            create or replace table gc_dead_blob as
            select b.digest, b.size, b.mtime from blob b anti join live_blob l on l.digest = b.digest
            where b.mtime < {self._cutoff} and {"false" if unresolved else "true"}
            """
        )
        self.held = hold_by_unknown(
            self._inventory,
            # No `not in`: of an empty link live_blob holds a null.
            f"select digest from {self._reach.table} anti join live_blob using (digest)"
            f" where repository = {_NOWHERE}",
        )
        run("drop table live_blob")
        if not unresolved:
            return ""
        return f"no blob is removed: {unresolved[0][0]}, so which blob it keeps is not known"

    def collect_keys(self) -> None:
        own = f"coalesce(body, encode({text_sql('digest')}))"
        tag_body = f"coalesce(body, encode({text_sql('target')}))"
        self._inventory.execute(
            f"""
            create or replace table gc_unlink as
            with keys as (
                select repository, {Step.TAG} as step, name as label, target as digest,
                    '_manifests/tags/' || name || '/current/link' as tail, size, mtime, {tag_body} as body
                from tag join gc_dead_tag using (repository, name)
                union all
                select repository, {Step.TAG_INDEX}, name, digest,
                    '_manifests/tags/' || name || '/index/' || {path_sql("digest")} || '/link', size, mtime,
                    case when sound then encode({text_sql("digest")}) end
                from tag_index join gc_dead_tag_index using (repository, name, digest)
                union all
                select repository, {Step.REVISION}, null, digest,
                    '_manifests/revisions/' || {path_sql("digest")} || '/link', size, mtime, {own}
                from revision_link join gc_dead_revision using (repository, digest)
                union all
                select repository, {Step.SIGNATURE}, null, digest, '_manifests/revisions/'
                    || {path_sql("revision")} || '/signatures/' || {path_sql("digest")} || '/link', size, mtime,
                    case when sound then encode({text_sql("digest")}) end
                from signature_link join gc_dead_signature using (repository, revision, digest)
                union all
                select repository, {Step.LAYER}, null, digest, '_layers/' || {path_sql("digest")} || '/link',
                    size, mtime,
                    case when target is null then body else coalesce(body, encode({text_sql("target")})) end
                from layer_link join gc_dead_layer_link using (repository, digest)
                union all
                select repository, {Step.UPLOAD}, uuid, null, '_uploads/' || uuid || '/' || part, u.size, mtime, null
                from upload_part u join gc_dead_upload using (repository, uuid)
            )
            select repository, step::tinyint as step, label, digest,
                '{layout.REPOSITORIES}' || name || '/' || tail as key, size, mtime, body
            from keys join repository on repository.id = keys.repository
            union all
            select repository, {Step.LITTER}, null, null, key, size, mtime, null
            from gc_dead_litter where repository is not null
            """
        )

    def summary(self, sweep_blocked: str) -> GcSummary:
        one, count = self._inventory.one, self._inventory.count
        names = dict(self._inventory.all("select id, name from repository"))
        reasons: dict[int, list[str]] = {}
        for repository, reason in self._inventory.all(
            "select distinct repository, reason from gc_protected order by 2"
        ):
            reasons.setdefault(repository, []).append(reason)
        shares = self._shares(names)
        orphans = self._inventory.all(
            """
            select count(*), coalesce(sum(size), 0)::bigint from gc_dead_blob where digest not in (
                select digest from gc_dead_layer_link union select digest from gc_dead_revision
                union select x.target from layer_link x join gc_dead_layer_link using (repository, digest)
                where x.target is not null
            )
            """
        )[0]
        return GcSummary(
            blobs=Count(total=count("blob"), dead=count("gc_dead_blob")),
            blob_bytes=one("select coalesce(sum(size), 0)::bigint from blob"),
            dead_blob_bytes=one("select coalesce(sum(size), 0)::bigint from gc_dead_blob"),
            orphan_blobs=orphans[0],
            orphan_blob_bytes=orphans[1],
            revisions=Count(total=count("revision_link"), dead=count("gc_dead_revision")),
            layer_links=Count(total=count("layer_link"), dead=count("gc_dead_layer_link")),
            tags=Count(total=count("tag"), dead=count("gc_dead_tag")),
            tag_index=Count(total=count("tag_index"), dead=count("gc_dead_tag_index")),
            signatures=Count(total=count("signature_link"), dead=count("gc_dead_signature")),
            uploads=Count(
                total=one(
                    "select count(*) from (select repository, uuid from upload_part"
                    " union select repository, uuid from multipart_upload)"
                ),
                dead=count("gc_dead_upload"),
            ),
            dead_upload_bytes=one("select coalesce(sum(size), 0)::bigint from gc_dead_upload"),
            litter=Count(total=count("litter"), dead=count("gc_dead_litter")),
            repositories=len(names),
            emptied=tuple(share.name for share in shares if share.emptied),
            protected=tuple(
                Protected(name=names[repository], reasons=tuple(found))
                for repository, found in sorted(reasons.items(), key=lambda item: names[item[0]])
            ),
            shares=tuple(shares),
            unknown=count("unknown"),
            sweep_blocked=sweep_blocked,
            uploads_blocked=self._uploads_blocked(),
            problems=tuple(self._problems()),
            rules=tuple(self._rules()),
            broken=tuple(self._broken()),
            one_time=find_one_time(self._inventory, self._options.policy),
            held=self.held,
            young=find_young(self._inventory, cutoff=self._cutoff, now=self._now),
            untagged=tuple(self._untagged()),
            unlinked=find_unlinked(self._inventory),
        )

    def _untagged(self) -> list[str]:
        if not self._options.delete_untagged:
            return []
        rows = self._inventory.all(
            """
            select r.name from repository r
            join (select repository, count(*) as number from revision_link group by all) v on v.repository = r.id
            join (select repository, count(*) as number from gc_dead_revision group by all) d on d.repository = r.id
            where v.number = d.number and not exists (
                -- a signature's tag says nothing of where the others are
                from tag t where t.repository = r.id and not exists (
                    from gc_follower f where f.repository = t.repository and f.name = t.name)
            )
            order by r.name
            """
        )
        return [name for (name,) in rows]

    def _uploads_blocked(self) -> str:
        why = self._inventory.multipart_uploads_unknown
        return f"no upload is removed, for the store does not list multipart uploads: {why}" if why else ""

    def _rules(self) -> list[RuleShare]:
        policy = self._options.policy
        if policy is None:
            return []
        rows = self._inventory.all(
            f"""
            select f.rule, count(*), count(*) filter (d.name is not null),
                count(*) filter (fate = '{Fate.UNKNOWN_TIME}'), count(*) filter (time_by <> 'created')
            from gc_tag_fate f left join gc_dropped_tag d on d.repository = f.repository and d.name = f.name
            where f.rule is not null group by f.rule
            """
        )
        found = {rule: counts for rule, *counts in rows}
        shares = []
        for number, rule in enumerate(policy.rules):
            tags, dropped, unknown, own = found.get(number, (0, 0, 0, 0))
            shares.append(
                RuleShare(
                    name=rule.name,
                    newest_by=rule.newest_by,
                    tags=tags,
                    dropped=dropped,
                    unknown_times=unknown,
                    own_times=own if rule.newest_by == "created" else 0,
                )
            )
        return shares

    def _broken(self) -> list[BrokenRevision]:
        rows = self._inventory.all(
            f"""
            select r.name, {text_sql("b.digest")}, b.reason,
                coalesce((
                    select list(t.name order by t.name) from gc_broken_tag t
                    where t.repository = b.repository and t.digest = b.digest
                ), [])
            from gc_broken_revision b join repository r on r.id = b.repository
            order by 1, 2
            """
        )
        return [
            BrokenRevision(repository=name, digest=digest, reason=reason, tags=tuple(tags))
            for name, digest, reason, tags in rows
        ]

    def _shares(self, names: dict[int, str]) -> list[RepositoryShare]:
        rows = self._inventory.all(
            f"""
            with dead as (
                select repository, 'tag' as kind from gc_dead_tag
                union all select repository, 'tag_index' from gc_dead_tag_index
                union all select repository, 'revision' from gc_dead_revision
                union all select repository, 'signature' from gc_dead_signature
                union all select repository, 'layer_link' from gc_dead_layer_link
                union all select repository, 'upload' from gc_dead_upload
                union all select repository, 'litter' from gc_dead_litter where repository is not null
            ),
            every as (
                select repository from tag union all select repository from tag_index
                union all select repository from revision_link union all select repository from signature_link
                union all select repository from layer_link
                union all select repository from (
                    select distinct repository, uuid from upload_part
                    union select distinct repository, uuid from multipart_upload
                )
            ),
            totals as (select repository, count(*) as keys from every group by all),
            named as (
                select distinct repository, digest from (
                    select repository, digest from gc_dead_revision
                    union all
                    select repository, unnest([digest, target])
                    from layer_link join gc_dead_layer_link using (repository, digest)
                )
            ),
            bytes as (
                select repository, sum(size)::bigint as bytes from named join gc_dead_blob using (digest) group by all
            ),
            odd as (
                select r.id as repository from repository r semi join (
                    select key[{len(layout.REPOSITORIES) + 1}:] as rest from unknown
                    where starts_with(key, '{layout.REPOSITORIES}')
                ) u on strpos(u.rest, '/_') > 0 and r.name = u.rest[:strpos(u.rest, '/_') - 1]
            )
            select d.repository,
                count(*) filter (kind = 'tag'), count(*) filter (kind = 'revision'),
                count(*) filter (kind = 'layer_link'), count(*) filter (kind = 'upload'),
                any_value(coalesce(bytes, 0)),
                count(*) filter (kind <> 'litter') = coalesce(any_value(keys), 0) and d.repository not in (from odd)
            from dead d left join totals using (repository) left join bytes using (repository)
            group by d.repository
            """
        )
        shares = [_share(names, row) for row in rows]
        return sorted(shares, key=lambda share: (-share.blob_bytes, share.name))

    def _problems(self) -> list[str]:
        rows = self._inventory.all(
            f"""
            select r.name || ': tag ' || t.name || ' names ' || {text_sql("t.target")}
                || ', which the repository does not link; what it reaches is kept'
            from tag t join repository r on r.id = t.repository
            where t.target is not null and not exists (
                from revision_link x where x.repository = t.repository and x.digest = t.target
            )
            union all
            select r.name || ': the link of tag ' || t.name || ' is damaged'
            from tag t join repository r on r.id = t.repository where t.target is null and t.unread is null
            union all
            select r.name || ': the link of layer ' || {text_sql("l.digest")} || ' is damaged'
            from layer_link l join repository r on r.id = l.repository
            where l.unread is null
                and (l.target is null or l.target <> l.digest and octet_length(l.digest) = 32)
            order by 1
            """
        )
        return [row[0] for row in rows]


#: Of a row of `tag`: it is no root, or not yet.
_GOES_OR_FOLLOWS: Final = " or ".join(
    f"exists (from {table} f where f.repository = tag.repository and f.name = tag.name)"
    for table in ("gc_follower", "gc_dropped_tag", "gc_broken_tag")
)


def _is_broken(digest: str) -> str:
    """SQL: whether a digest of a row `x` is a broken revision that may go."""
    return f"exists (from gc_broken_revision b where b.repository = x.repository and b.digest = {digest})"


def _share(names: dict[int, str], row: tuple[Any, ...]) -> RepositoryShare:
    repository, tags, revisions, layer_links, uploads, blob_bytes, emptied = row
    return RepositoryShare(
        name=names[repository],
        tags=tags,
        revisions=revisions,
        layer_links=layer_links,
        uploads=uploads,
        blob_bytes=blob_bytes,
        emptied=emptied,
    )
