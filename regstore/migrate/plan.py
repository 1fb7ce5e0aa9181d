"""What a migration would copy, as a plan: relations over two inventories, and a summary of them. No I/O, no clock.

The source's inventory is the open one; the target's is attached to it as `dst` (DuckDB opens the file of another
inventory read-only once it is closed). So each keeps the one schema, both are filled by the same scan, and no table
of either is ever taken for the other's.

What is copied, within the repositories of the scope:

- every revision and every tag, with all they reach (`inventory.reachability`), as gc without `--delete-untagged` keeps
  it; with tag patterns, the tags that match, what they reach, referrers, and `sha256-…` tags of what is reached;
- manifests that v2.1.0 linked under `_layers` (every later version serves them), as revisions;
- layer links younger than the grace;
- of a repository with a manifest that can't be read (*protected*), everything it links;
- with `all`, everything else that is sound.

Differences are found by content: a blob by digest and size, a link by its body. What is damaged at the source is
reported and never written: a link with a wrong body, a link to nothing, a manifest whose bytes have another digest, and
whatever reaches that.

The plan's tables, each with what the target lacks: migrate_blob(digest, size, suspect), migrate_layer_link(repository,
digest, target), migrate_revision(repository, digest, rank), migrate_signature(repository, revision, digest),
migrate_tag_index(repository, name, digest), migrate_tag(repository, name, target, mtime, present, was),
migrate_delete_tag(origin, name, tag, digest); migrate_conflict as migrate_tag; and migrate_blocked(digest): what must
not be written since something below it could not be copied.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, Final

from regstore.digest import Digest
from regstore.errors import InputError
from regstore.inventory.inventory import Inventory, digest_text, text_sql
from regstore.inventory.reachability import Reachability
from regstore.manifest import EdgeKind
from regstore.migrate.estimate import Sides, estimate
from regstore.migrate.options import MigrateOptions
from regstore.migrate.result import Conflict, Count, MigrateSummary, Problem, RepositoryShare
from regstore.reference import is_name

_SUBJECT: Final = int(EdgeKind.SUBJECT)
_MANIFEST: Final = int(EdgeKind.MANIFEST)
#: SQL: states of a manifest that is there and is not copied.
_BAD: Final = "'mismatch', 'unreadable'"
#: SQL for the size of a sound link to the digest in the column.
_LINK_SIZE: Final = "case octet_length({0}) when 32 then 71 when 48 then 103 else 135 end"


def plan_migrate(
    inventory: Inventory,
    options: MigrateOptions,
    *,
    now: int,
    source: str,
    place: str,
    target: str,
    pull_through: bool,
    sides: Sides,
    notes: tuple[str, ...] = (),
    first: bool = True,
) -> MigrateSummary:
    """Make the plan's tables. `inventory` is the source's, with the target's attached as `dst`, the record of our
    passes in `migrate_record`, and of passes that wrote the source in `source_record`. `now` in microseconds, by the
    source's clock. place: what the record calls the source. pull_through: what it lacks was not fetched. notes:
    for the summary.

    InputError where names collide, and in the first pass for a pattern that nothing matches.
    """
    planner = _Planner(inventory, options, now, source, place, pull_through)
    planner.choose_repositories(first)
    planner.reach()
    if first:
        planner.check_tags()
    planner.find_live()
    planner.find_damage()
    planner.rank()
    planner.compare()
    planner.compare_tags()
    planner.find_deletes()
    return planner.summary(target, sides, notes)


def block(inventory: Inventory, digests: list[bytes]) -> None:
    """Note blobs that could not be copied, and everything that reaches them."""
    execute = inventory.execute
    execute("create or replace temp table newly (digest blob)")
    inventory.insert("newly", {"digest": ("binary", digests)})
    execute(
        """
        insert into newly
        select distinct r.digest from live_manifest r join manifest m using (digest)
        where m.state in ('invalid', 'too large') and r.repository in (
            select l.repository from layer_link l join newly n on n.digest = l.target
        )
        """
    )
    while inventory.count("newly"):
        execute(
            "create or replace temp table newly as"
            " select distinct digest from newly anti join migrate_blocked using (digest)"
        )
        execute("insert into migrate_blocked from newly")
        execute(
            f"""
            create or replace temp table newly as
            select e.source as digest from edge e join newly n on n.digest = e.target where e.kind <> {_SUBJECT}
            union
            select l.digest from layer_link l join newly n on n.digest = l.target where l.digest <> l.target
            """
        )


class _Planner:
    def __init__(
        self,
        inventory: Inventory,
        options: MigrateOptions,
        now: int,
        source: str,
        place: str,
        pull_through: bool,
    ) -> None:
        self._inventory = inventory
        self._options = options
        self._cutoff = now - options.grace
        self._source = source
        self._place = place
        #: SQL: whether what is missing is damage.
        self._missing = "false" if pull_through else "true"
        self._reach = Reachability(inventory)

    # -- the scope

    def choose_repositories(self, first: bool) -> None:
        """migrate_repository(id, name, target, dst): those in the scope. dst: its id at the target, or null."""
        run = self._inventory.execute
        run("create or replace table migrate_repository (id integer, name varchar, target varchar, dst integer)")
        run(
            "create or replace table migrate_problem"
            " (class varchar, repository varchar, subject varchar, reason varchar)"
        )
        run("create or replace table migrate_blocked (digest blob)")
        at_target = dict(self._inventory.all("select name, id from dst.repository"))
        rows = self._inventory.all("select id, name from repository order by name")
        taken: dict[str, str] = {}
        chosen: list[tuple[int, str, str]] = []
        for identity, name in rows:
            target = self._options.target_of(name)
            if target is None:
                continue
            if not is_name(name):
                self._problem("damaged", name, "", "is not a name that a registry accepts: left")
                continue
            if target in taken:
                raise InputError(f"both {taken[target]} and {name} would become {target} at the target")
            taken[target] = name
            chosen.append((identity, name, target))
        if first:
            self._check_repositories([name for _, name in rows])
        missing = sorted(self._options.rename.keys() - {name for _, name, _ in chosen})
        if missing and first:
            raise InputError(f"nothing to rename: there is no repository {missing[0]} in the scope")
        self._inventory.insert(
            "migrate_repository",
            {
                "id": ("int32", [identity for identity, _, _ in chosen]),
                "name": ("utf8", [name for _, name, _ in chosen]),
                "target": ("utf8", [target for _, _, target in chosen]),
                "dst": ("int32", [at_target.get(target) for _, _, target in chosen]),
            },
        )

    def _check_repositories(self, names: list[str]) -> None:
        """InputError where a pattern matches none of them. With `delete`, what came from one that is gone counts."""
        if self._options.delete:
            rows = self._inventory.all("select distinct origin from migrate_record where place = ?", [self._place])
            names = names + [origin for (origin,) in rows]
        patterns = self._options.repositories
        wrong = [each for each in patterns if not any(fnmatchcase(name, each) for name in names)]
        if wrong:
            raise InputError(f"{self._source} has no repository {' and no '.join(wrong)}")

    def check_tags(self) -> None:
        """InputError where a pattern matches none in the scope. After `reach`."""
        wrong = [
            pattern
            for pattern in self._options.tags
            if not self._inventory.one("select count(*) from migrate_scope_tag where name glob ?", [pattern])
        ]
        if wrong:
            where = " in the repositories of the scope" if self._options.repositories else ""
            raise InputError(f"{self._source} has no tag {' and no '.join(wrong)}{where}")

    def _problem(self, kind: str, repository: str, subject: str, reason: str) -> None:
        self._inventory.execute(
            "insert into migrate_problem values (?, ?, ?, ?)", [kind, repository, subject, reason]
        )

    # -- what is live

    def reach(self) -> None:
        run = self._inventory.execute
        run("create or replace table migrate_protected (repository integer)")
        matches = " or ".join(["name glob ?"] * len(self._options.tags)) or "true"
        run(
            f"""
            create or replace table migrate_scope_tag as
            select repository, name, target from tag where repository in (select id from migrate_repository)
                and ({matches})
            """,
            list(self._options.tags),
        )
        roots = (
            "select repository, target as digest, true as expand from migrate_scope_tag where target is not null"
        )
        if not self._options.tags:
            roots += f"""
                union all
                select repository, digest, true from revision_link
                where repository in (select id from migrate_repository)
                union all
                select repository, digest, true from legacy_revision
                where repository in (select id from migrate_repository)
                union all
                select repository, unnest([digest, target]), false from layer_link
                where mtime >= {self._cutoff} and repository in (select id from migrate_repository)
            """
        self._reach.add(roots)
        while self._protect() | self._follow():
            pass

    def _protect(self) -> bool:
        """Take repositories with something unreadable whole; whether there were new ones."""
        in_scope = (
            f"repository in (select id from migrate_repository) and {'false' if self._options.tags else 'true'}"
        )
        damaged_links = f"""
            select repository, 'the link of revision ' || {text_sql("digest")} || ' is damaged' as reason
            from revision_link where target is distinct from digest and {in_scope}
            union all
            select repository, 'manifest ' || {text_sql("digest")} || ' can''t be read: ' || reason
            from (select repository, digest from revision_link union all from legacy_revision)
            join manifest using (digest) where state = 'missing' and {self._missing} and {in_scope}
        """
        # With tag patterns, one that has other bytes is left out, and nothing that was not asked for comes instead.
        unreadable = "m.state not in ('ok', 'missing'" + (
            ", 'mismatch', 'unreadable')" if self._options.tags else ")"
        )
        found = self._inventory.all(
            f"""
            select k.repository, any_value(k.reason) from (
                {damaged_links}
                union all
                select x.repository, 'manifest ' || {text_sql("x.digest")} || ' can''t be read: ' || m.reason
                from {self._reach.table} x join manifest m on m.digest = x.digest
                where x.expand and {unreadable}
            ) k where k.repository not in (from migrate_protected) group by k.repository
            """
        )
        if not found:
            return False
        names = dict(self._inventory.all("select id, name from migrate_repository"))
        for repository, reason in found:
            self._problem("protected", names[repository], "", reason)
        self._inventory.insert("migrate_protected", {"repository": ("int32", [row[0] for row in found])})
        self._reach.add(
            "select repository, digest, true as expand from revision_link"
            " where repository in (from migrate_protected)"
            " union all select repository, unnest([digest, target]), false from layer_link"
            " where repository in (from migrate_protected)"
        )
        return True

    def _follow(self) -> bool:
        """With tag patterns: tags that name a reached manifest come too (referrers, signatures)."""
        if not self._options.tags:
            return False
        found = self._inventory.all(
            f"""
            insert into migrate_scope_tag
            select t.repository, t.name, t.target from tag t
            join {self._reach.table} k on k.repository = t.repository and names_digest(t.name, k.digest)
            where not exists (
                    from migrate_scope_tag s where s.repository = t.repository and s.name = t.name
                )
            group by all
            returning repository
            """
        )
        if found:
            self._reach.add("select repository, target as digest, true as expand from migrate_scope_tag")
        return bool(found)

    def find_live(self) -> None:
        """live_*: everything sound of the scope, whether the target has it or not."""
        run = self._inventory.execute
        everything = "true" if self._options.all else "false"
        reached = (
            f"exists (from {self._reach.table} k where k.repository = x.repository"
            " and (k.digest = x.digest or k.digest = x.target))"
        )
        wanted = (
            f"x.repository in (select id from migrate_repository) and ({everything}"
            f" or x.repository in (from migrate_protected) or {reached})"
        )
        run(
            f"""
            create or replace table live_layer_link as
            select x.repository, x.digest, x.target from layer_link x semi join blob b on b.digest = x.target
            where {_SOUND_LAYER} and {wanted}
            """
        )
        run(
            f"""
            create or replace table live_revision as
            select x.repository, x.digest from revision_link x
            semi join blob b using (digest)
            join manifest m using (digest)
            where x.target = x.digest and m.state not in ({_BAD}, 'missing') and {wanted}
            """
        )
        # What a registry serves as a manifest: a revision, or linked under _layers as v2.1.0 did.
        run(
            f"""
            create or replace table live_manifest as
            select repository, digest from live_revision
            union all
            select l.repository, l.digest from live_layer_link l
            join manifest m using (digest)
            semi join (
                select repository, revision as digest from signature_link union all select repository, target from tag
            ) n on n.repository = l.repository and n.digest = l.digest
            anti join revision_link r on r.repository = l.repository and r.digest = l.digest
            where l.target = l.digest and m.state not in ({_BAD}, 'missing')
            """
        )
        run(
            f"""
            create or replace table live_signature as
            select x.repository, x.revision, x.digest from signature_link x
            semi join blob b using (digest)
            semi join live_manifest r on r.repository = x.repository and r.digest = x.revision
            where x.size = {_LINK_SIZE.format("x.digest")}
            """
        )
        # Where migrate wrote the source too, a tag is as old as it was there before.
        run(
            """
            create or replace table live_tag as
            select t.repository, t.name, t.target, coalesce(w.time, t.mtime) as mtime from tag t
            join repository n on n.id = t.repository
            left join source_record w on w.repository = n.name and w.tag = t.name and w.digest = t.target
                and t.mtime <= w.set_by
            semi join migrate_scope_tag s on s.repository = t.repository and s.name = t.name
            semi join live_manifest r on r.repository = t.repository and r.digest = t.target
            """
        )
        run(
            f"""
            create or replace table live_tag_index as
            select x.repository, x.name, x.digest from tag_index x
            semi join live_tag t on t.repository = x.repository and t.name = x.name
            semi join live_manifest r on r.repository = x.repository and r.digest = x.digest
            where x.size = {_LINK_SIZE.format("x.digest")}
            """
        )
        orphans = "union select digest from blob" if self._options.all and self._options.everything else ""
        # A blob whose size is not what a descriptor says is never left to the server to copy unseen.
        run(
            f"""
            create or replace table live_blob as
            with named as (
                select digest from {self._reach.table}
                union select target from live_layer_link
                union select digest from live_revision
                union select digest from live_signature
                {orphans}
            ),
            sized as (select target as digest, any_value(size) as size from edge where size >= 0 group by target)
            select b.digest, any_value(b.size) as size, bool_or(s.size is not null and s.size <> b.size) as suspect
            from blob b semi join named n on n.digest = b.digest left join sized s on s.digest = b.digest
            group by b.digest
            """
        )

    def rank(self) -> None:
        """A manifest's rank is above that of every manifest it names: children are written first."""
        run = self._inventory.execute
        run("create or replace table migrate_rank as select distinct digest, 0 as rank from live_revision")
        rank = 0
        changed = 1
        while changed:
            rank += 1
            changed = len(
                self._inventory.all(
                    f"""
                    update migrate_rank set rank = {rank} where digest in (
                        select e.source from edge e join migrate_rank c on c.digest = e.target
                        where c.rank = {rank - 1} and e.kind <> {_SUBJECT}
                    ) returning digest
                    """
                )
            )

    # -- what is not right at the source

    def find_damage(self) -> None:
        """Take out of live_* what is known to be damaged, with all that reaches it, and say so."""
        run = self._inventory.execute
        bad = self._inventory.all(f"select digest from manifest where state in ({_BAD})")
        block(self._inventory, [bytes(digest) for (digest,) in bad])
        run(_BLOCKED)
        for table, column in _LIVE.items():
            run(f"delete from {table} where {column} in (select digest from migrate_blocked)")
        run(f"delete from live_blob where digest in (select digest from manifest where state in ({_BAD}))")
        run(
            "delete from live_tag_index x where not exists"
            " (from live_tag t where t.repository = x.repository and t.name = x.name)"
        )
        reached = "true"
        if self._options.tags:
            reached = (
                f"exists (from {self._reach.table} k where k.repository = x.repository and k.digest = x.digest)"
            )
        for statement in _DAMAGE:
            run(statement.replace("{reached}", reached).replace("{missing}", self._missing))

    # -- what differs at the target

    def compare(self) -> None:
        run = self._inventory.execute
        run(
            """
            create or replace table migrate_blob as
            select l.digest, l.size, l.suspect or d.size is not null as suspect
            from live_blob l left join dst.blob d using (digest)
            where d.size is distinct from l.size
            """
        )
        run(
            """
            create or replace table migrate_layer_link as
            select l.repository, l.digest, l.target
            from live_layer_link l join migrate_repository m on m.id = l.repository
            left join dst.layer_link d on d.repository = m.dst and d.digest = l.digest
            where d.target is distinct from l.target
            """
        )
        run(
            """
            create or replace table migrate_revision as
            select l.repository, l.digest, k.rank
            from live_revision l join migrate_repository m on m.id = l.repository join migrate_rank k using (digest)
            left join dst.revision_link d on d.repository = m.dst and d.digest = l.digest
            where d.target is distinct from l.digest
            """
        )
        run(
            """
            create or replace table migrate_signature as
            select l.repository, l.revision, l.digest
            from live_signature l join migrate_repository m on m.id = l.repository
            left join dst.signature_link d
                on d.repository = m.dst and d.revision = l.revision and d.digest = l.digest and d.size in (71, 103, 135)
            where d.digest is null
            """
        )

    def compare_tags(self) -> None:
        run = self._inventory.execute
        run(
            """
            create or replace table migrate_tag_difference as
            select l.repository, l.name, l.target, l.mtime, d.name is not null as present, d.target as was,
                d.name is not null and not exists (
                    from migrate_record r where r.repository = m.target and r.tag = l.name and d.target is not null
                        and r.place = $1 and r.origin = m.name
                        and (r.digest = d.target or r.was = d.target and d.mtime <= r.written)
                ) as foreign_
            from live_tag l join migrate_repository m on m.id = l.repository
            left join dst.tag d on d.repository = m.dst and d.name = l.name
            where d.target is distinct from l.target
            """,
            [self._place],
        )
        kept = "false" if self._options.overwrite_tags else "foreign_"
        if not self._options.overwrite_tags:  # what cannot be seen is not written over
            unread = "join dst.tag d on d.repository = m.dst and d.name = x.name and d.unread is not null"
            run(
                f"""
                insert into migrate_problem
                select 'damaged', m.target, 'tag ' || x.name, 'stands at the target, can''t be read there, and is not'
                    || ' written over without --overwrite-tags: ' || d.unread
                from migrate_tag_difference x join migrate_repository m on m.id = x.repository {unread}
                """
            )
            run(
                f"""
                delete from migrate_tag_difference where (repository, name) in (
                    select (x.repository, x.name) from migrate_tag_difference x
                    join migrate_repository m on m.id = x.repository {unread}
                )
                """
            )
        run(f"create or replace table migrate_conflict as from migrate_tag_difference where {kept}")
        run(
            "create or replace table migrate_tag as select repository, name, target, mtime, present, was"
            f" from migrate_tag_difference where not {kept}"
        )
        run(
            f"""
            create or replace table migrate_tag_index as
            select l.repository, l.name, l.digest
            from live_tag_index l join migrate_repository m on m.id = l.repository
            anti join migrate_conflict c on c.repository = l.repository and c.name = l.name
            left join dst.tag_index d on d.repository = m.dst and d.name = l.name and d.digest = l.digest
                and d.size = {_LINK_SIZE.format("d.digest")}
            where d.digest is null
            """
        )

    def find_deletes(self) -> None:
        """Tags that our record says we set from this source, the target still has so, and the source has no longer."""
        run = self._inventory.execute
        run("create or replace table migrate_delete_tag (origin varchar, name varchar, tag varchar, digest blob)")
        run("create or replace table deletable (origin varchar, repository varchar)")
        if not self._options.delete:
            return
        pairs = self._inventory.all(
            "select distinct origin, repository from migrate_record where place = $1", [self._place]
        )
        chosen = [(origin, name) for origin, name in pairs if self._options.target_of(origin) == name]
        self._inventory.insert(
            "deletable",
            {
                "origin": ("utf8", [pair[0] for pair in chosen]),
                "repository": ("utf8", [pair[1] for pair in chosen]),
            },
        )
        run(
            """
            insert into migrate_delete_tag
            select r.origin, r.repository, r.tag, r.digest
            from migrate_record r semi join deletable using (origin, repository)
            join dst.repository dr on dr.name = r.repository
            join dst.tag d on d.repository = dr.id and d.name = r.tag and d.target = r.digest
            where r.place = $1 and not exists (
                from tag t join repository s on s.id = t.repository where s.name = r.origin and t.name = r.tag
            )
            """,
            [self._place],
        )

    # -- in numbers

    def summary(self, target: str, sides: Sides, notes: tuple[str, ...]) -> MigrateSummary:
        inventory = self._inventory

        def count(live: str, missing: str) -> Count:
            return Count(total=inventory.count(live), to_copy=inventory.count(missing))

        blobs, size = inventory.all("select count(*), coalesce(sum(size), 0)::bigint from migrate_blob")[0]
        links = (
            ("live_layer_link", "migrate_layer_link"),
            ("live_revision", "migrate_revision"),
            ("live_signature", "migrate_signature"),
            ("live_tag_index", "migrate_tag_index"),
            ("live_tag", "migrate_tag"),
        )
        layer_links, revisions, signatures, tag_index, tags = (count(*pair) for pair in links)
        deletes = inventory.all("select name || ':' || tag from migrate_delete_tag order by name, tag")
        return MigrateSummary(
            source=self._source,
            target=target,
            blobs=Count(total=inventory.count("live_blob"), to_copy=blobs, bytes=size),
            layer_links=layer_links,
            revisions=revisions,
            signatures=signatures,
            tag_index=tag_index,
            tags=tags,
            to_delete=len(deletes),
            to_delete_tags=tuple(each for (each,) in deletes),
            deletable=inventory.one(
                "select count(*) from migrate_record r semi join deletable using (origin, repository)"
                " join dst.repository o on o.name = r.repository"
                " join dst.tag d on d.repository = o.id and d.name = r.tag and d.target = r.digest where r.place = ?",
                [self._place],
            ),
            conflicts=self._conflicts(),
            damaged=self._problems("damaged"),
            incomplete=self._problems("incomplete"),
            protected=self._problems("protected"),
            shares=self._shares(),
            unknown=inventory.count("unknown"),
            uploads=inventory.one("select count(distinct (repository, uuid)) from upload_part"),
            server_side=sides.copied_whole is not None,
            estimate=estimate(inventory, sides, self._options),
            notes=notes,
        )

    def _problems(self, kind: str) -> tuple[Problem, ...]:
        rows = self._inventory.all(
            "select distinct repository, subject, reason from migrate_problem where class = ? order by all",
            [kind],
        )
        return tuple(Problem(repository=row[0], subject=row[1], reason=row[2]) for row in rows)

    def _conflicts(self) -> tuple[Conflict, ...]:
        rows = self._inventory.all(
            "select m.target, c.name, c.target, c.was from migrate_conflict c"
            " join migrate_repository m on m.id = c.repository order by 1, 2"
        )
        return tuple(
            Conflict(repository=row[0], tag=row[1], source=digest_text(row[2]), target=_text_or_none(row[3]))
            for row in rows
        )

    def _shares(self) -> tuple[RepositoryShare, ...]:
        rows = self._inventory.all(
            f"""
            with reached as (
                select repository, digest from {self._reach.table}
                union select repository, target from live_layer_link
            ),
            blobs as (
                select r.repository, count(*) as blobs, sum(b.size)::bigint as size
                from reached r join migrate_blob b using (digest) group by all
            ),
            layers as (select repository, count(*) as n from migrate_layer_link group by all),
            revisions as (select repository, count(*) as n from migrate_revision group by all),
            tags as (select repository, count(*) as n from migrate_tag group by all)
            select m.name, m.target, coalesce(blobs.blobs, 0), coalesce(blobs.size, 0), coalesce(layers.n, 0),
                coalesce(revisions.n, 0), coalesce(tags.n, 0)
            from migrate_repository m
            left join blobs on blobs.repository = m.id
            left join layers on layers.repository = m.id
            left join revisions on revisions.repository = m.id
            left join tags on tags.repository = m.id
            where coalesce(blobs.blobs, layers.n, revisions.n, tags.n) is not null
            order by m.name
            """
        )
        return tuple(
            RepositoryShare(
                name=row[0],
                target=row[1],
                blobs=row[2],
                blob_bytes=row[3],
                layer_links=row[4],
                revisions=row[5],
                tags=row[6],
            )
            for row in rows
        )


def _text_or_none(raw: Any) -> str:
    return str(Digest.from_raw(bytes(raw))) if raw is not None else ""


#: Its own digest, or that of the same bytes by another algorithm (a sha512 layer is stored by its sha256).
_SOUND_LAYER: Final = (
    "x.target is not null and (x.target = x.digest or octet_length(x.target) <> octet_length(x.digest))"
)

#: Each with the column that says what it leads to.
_LIVE: Final = {
    "live_layer_link": "target",
    "live_revision": "digest",
    "live_manifest": "digest",
    "live_signature": "revision",
    "live_tag": "target",
    "live_tag_index": "digest",
}

_BLOCKED: Final = f"""
    insert into migrate_problem
    select 'damaged', m.name, 'revision ' || {text_sql("x.digest")},
        'reaches a manifest that is damaged, or can''t be read'
    from live_revision x join migrate_repository m on m.id = x.repository
    semi join migrate_blocked b using (digest)
"""

_DAMAGE: Final = (
    f"""
    insert into migrate_problem
    select 'damaged', m.name, 'layer link ' || {text_sql("x.digest")}, case
        when x.size = 0 then 'is empty'
        when x.unread is not null then 'can''t be read: ' || x.unread
        when x.target is null then 'is damaged'
        when not ({_SOUND_LAYER}) then 'names another digest'
        when x.target in (select digest from blob) then 'names a manifest that is damaged, or can''t be read'
        else 'names a blob that is missing' end
    from layer_link x join migrate_repository m on m.id = x.repository
    where {{reached}} and (not ({_SOUND_LAYER}) or {{missing}} and x.target not in (select digest from blob)
        or x.target in (select digest from migrate_blocked))
    """,
    f"""
    insert into migrate_problem
    select 'damaged', m.name, 'revision ' || {text_sql("x.digest")}, case
        when x.size = 0 then 'has an empty link'
        when x.unread is not null then 'has a link that can''t be read: ' || x.unread
        when x.target is null then 'has a damaged link'
        when x.target <> x.digest then 'has a link to another digest'
        else 'can''t be read: ' || d.reason end
    from revision_link x join migrate_repository m on m.id = x.repository left join manifest d using (digest)
    where (x.target is distinct from x.digest or d.state in ({_BAD}) or d.state = 'missing' and {{missing}})
        and {{reached}}
    """,
    f"""
    insert into migrate_problem
    select 'damaged', m.name, 'tag ' || t.name, case
        when t.size = 0 then 'has an empty link'
        when t.unread is not null then 'has a link that can''t be read: ' || t.unread
        when t.target is null then 'has a damaged link'
        else 'names ' || {text_sql("t.target")} || ', which is no readable revision here' end
    from tag t join migrate_repository m on m.id = t.repository
    semi join migrate_scope_tag s on s.repository = t.repository and s.name = t.name
    anti join live_tag l on l.repository = t.repository and l.name = t.name
    where {{missing}} or t.target is null
    """,
    f"""
    insert into migrate_problem
    select distinct 'incomplete', m.name, 'revision ' || {text_sql("x.digest")},
        'names ' || {text_sql("e.target")} || ', which the source does not have'
    from live_manifest x join migrate_repository m on m.id = x.repository
    join edge e on e.source = x.digest
    where {{missing}} and e.kind not in ({_SUBJECT}, {_MANIFEST}, {int(EdgeKind.FOREIGN_LAYER)})
        and e.target not in (select digest from blob)
        and not exists (from layer_link l join blob b on b.digest = l.target
            where l.repository = x.repository and l.digest = e.target)
    """,
)
