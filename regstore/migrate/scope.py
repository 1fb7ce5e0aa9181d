"""Which repositories and tags a pass is about: `migrate_repository` and `migrate_scope_tag`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from typing import Final

from regstore.errors import InputError
from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import Statements
from regstore.migrate.options import MigrateOptions
from regstore.migrate.result import Problem
from regstore.reference import is_name
from regstore.words import meant

_SQL: Final = Statements("regstore.migrate", "scope.sql")


def choose(
    inventory: Inventory, options: MigrateOptions, *, source: str, place: str, first: bool
) -> tuple[Problem, ...]:
    """Make both tables; the repositories that are left out since no registry accepts their names. source: its URL;
    place: what the record calls it.

    InputError where two would have one name at the target; in the first pass, where a pattern, or a name to be renamed,
    is not there.
    """
    left = []
    taken: dict[str, str] = {}
    chosen: list[tuple[int, str, str]] = []
    rows = inventory.all("select id, name from repository order by name")
    for identity, name in rows:
        target = options.target_of(name)
        if target is None:
            continue
        if not is_name(name):
            left.append(Problem(repository=name, subject="", reason="is not a name that a registry accepts: left"))
            continue
        if target in taken:
            raise InputError(f"both {taken[target]} and {name} would become {target} at the target")
        taken[target] = name
        chosen.append((identity, name, target))
    if first:
        _check_repositories(inventory, options, (name for _, name in rows), source, place)
        _check_renamed(options, taken.values())
    identities, names, targets = zip(*chosen, strict=True) if chosen else ((), (), ())
    with inventory.given(
        "chosen", {"id": ("int32", identities), "name": ("utf8", names), "target": ("utf8", targets)}
    ):
        _SQL.run(inventory, "repositories")
    _SQL.run(inventory, "tags", {"patterns": options.tags})
    if first and options.tags:
        _check_tags(inventory, options, source)
    return tuple(left)


def _check_repositories(
    inventory: Inventory, options: MigrateOptions, names: Iterable[str], source: str, place: str
) -> None:
    """With `delete`, what came from one that is gone counts too."""
    there = list(names)
    if options.delete:
        rows = inventory.all("select distinct origin from migrate_record where place = ?", [place])
        there += [origin for (origin,) in rows]
    wrong = [each for each in options.repositories if not any(fnmatchcase(name, each) for name in there)]
    if wrong:
        raise InputError(f"{source} has no repository {' and no '.join(wrong)}{meant(wrong[0], there)}")


def _check_renamed(options: MigrateOptions, names: Collection[str]) -> None:
    missing = sorted(options.rename.keys() - set(names))
    if missing:
        close = meant(missing[0], list(names))
        raise InputError(f"nothing to rename: there is no repository {missing[0]} in the scope{close}")


def _check_tags(inventory: Inventory, options: MigrateOptions, source: str) -> None:
    matched = {
        pattern for (pattern,) in _SQL.run(inventory, "matched_patterns", {"patterns": options.tags}).fetchall()
    }
    wrong = [pattern for pattern in options.tags if pattern not in matched]
    if wrong:
        where = " in the repositories of the scope" if options.repositories else ""
        raise InputError(f"{source} has no tag {' and no '.join(wrong)}{where}")
