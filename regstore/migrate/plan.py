"""What a migration would copy, as a plan: relations over two inventories, and a summary of them. No I/O, no clock.

The source's inventory is the open one; the target's is attached to it as `dst` (DuckDB opens the file of another
inventory read-only once it is closed). So each keeps the one schema, both are filled by the same scan, and no table
of either is ever taken for the other's.

What is copied, within the repositories of the scope:

- every revision and every tag, with all they reach (`inventory.reachability`), as gc without `--delete-untagged` keeps
  it; with tag patterns, the tags that match, what they reach, referrers, and `sha256-…` tags of what is reached;
- manifests that v2.1.0 linked under `_layers` (2.x still serves them), which get the link of a revision besides;
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
not be written since something below it could not be copied. `scope`, `live`, `shared`, `difference` and `problems` make
them, in this order, each from the `.sql` of its name.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import EDGE_KINDS, Statements
from regstore.migrate.difference import compare, find_deletions
from regstore.migrate.estimate import Sides, estimate
from regstore.migrate.live import find_live, sql_of
from regstore.migrate.options import MigrateOptions
from regstore.migrate.result import Conflict, Count, MigrateSummary, Problem, RepositoryShare
from regstore.migrate.scope import choose
from regstore.migrate.shared import find_blobs, leave_damaged_out

_PROBLEMS: Final = Statements("regstore.migrate", "problems.sql", **EDGE_KINDS)
_SUMMARY: Final = Statements("regstore.migrate", "summary.sql")


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
    left = choose(inventory, options, source=source, place=place, first=first)
    find_live(inventory, options, now=now, missing_is_damage=not pull_through)
    find_blobs(inventory, options)
    _PROBLEMS.run(inventory, "table")
    leave_damaged_out(inventory)
    compare(inventory, options, place=place)
    deletable = find_deletions(inventory, options, place=place)
    problems = _problems(inventory, options, missing_is_damage=not pull_through)
    number = dict(_SUMMARY.run(inventory, "numbers").fetchall())

    def count(table: str, size: int = 0) -> Count:
        return Count(total=number[f"live_{table}"], to_copy=number[f"migrate_{table}"], bytes=size)

    deleted = tuple(tag for (tag,) in _SUMMARY.run(inventory, "deleted_tags").fetchall())
    return MigrateSummary(
        source=source,
        target=target,
        blobs=count("blob", number["bytes"]),
        layer_links=count("layer_link"),
        revisions=count("revision"),
        signatures=count("signature"),
        tag_index=count("tag_index"),
        tags=count("tag"),
        to_delete=len(deleted),
        to_delete_tags=deleted,
        deletable=deletable,
        conflicts=_conflicts(inventory),
        damaged=tuple(sorted((*left, *problems["damaged"]))),
        incomplete=tuple(problems["incomplete"]),
        protected=tuple(problems["protected"]),
        shares=_shares(inventory),
        unknown=number["unknown"],
        uploads=number["uploads"],
        server_side=sides.copied_whole is not None,
        estimate=estimate(inventory, sides, options),
        notes=notes,
    )


def _problems(
    inventory: Inventory, options: MigrateOptions, *, missing_is_damage: bool
) -> dict[str, list[Problem]]:
    """Find them. By their class, in order."""
    reached = _PROBLEMS.text("reached" if options.tags else "any")
    _PROBLEMS.run(inventory, "find", missing=sql_of(missing_is_damage), reached=reached)
    found = defaultdict[str, list[Problem]](list)
    for kind, repository, subject, reason in _SUMMARY.run(inventory, "problems").fetchall():
        found[kind].append(Problem(repository=repository, subject=subject, reason=reason))
    return found


def _conflicts(inventory: Inventory) -> tuple[Conflict, ...]:
    return tuple(
        Conflict(repository=repository, tag=tag, source=ours, target=theirs)
        for repository, tag, ours, theirs in _SUMMARY.run(inventory, "conflicts").fetchall()
    )


def _shares(inventory: Inventory) -> tuple[RepositoryShare, ...]:
    return tuple(
        RepositoryShare(
            name=name,
            target=target,
            blobs=blobs,
            blob_bytes=size,
            layer_links=layer_links,
            revisions=revisions,
            tags=tags,
        )
        for name, target, blobs, size, layer_links, revisions, tags in _SUMMARY.run(inventory, "shares").fetchall()
    )
