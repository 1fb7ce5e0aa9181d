"""What is live in the scope: the tables `live_*` of each repository, and which of them are protected.

Everything sound that is to be at the target, whether it is there already or not.
"""

from __future__ import annotations

from typing import Final

from regstore.inventory.inventory import Inventory
from regstore.inventory.reachability import Reachability
from regstore.inventory.statements import Statements
from regstore.migrate.options import MigrateOptions

_SQL: Final = Statements("regstore.migrate", "live.sql")
_TABLES: Final = ("layer_links", "revisions", "signatures", "tags", "tag_index")


def find_live(inventory: Inventory, options: MigrateOptions, *, now: int, missing_is_damage: bool) -> None:
    """`now` in microseconds, by the source's clock. After `scope.choose`."""
    fragments = {
        "whole": sql_of(not options.tags),
        "everything": sql_of(options.all),
        "missing": sql_of(missing_is_damage),
    }
    _SQL.run(inventory, "protected")
    reach = Reachability(inventory)
    reach.add(_SQL.text("roots", **fragments, cutoff=str(now - options.grace)))
    while _protect(inventory, reach, fragments) | _follow(inventory, reach, options):
        pass
    for table in _TABLES:
        _SQL.run(inventory, table, None, **fragments)


def _protect(inventory: Inventory, reach: Reachability, fragments: dict[str, str]) -> bool:
    """Take repositories with something unreadable whole; whether there were new ones."""
    found = _SQL.run(inventory, "protect", None, **fragments).fetchall()
    if found:
        reach.add(_SQL.text("roots_of_protected"))
    return bool(found)


def _follow(inventory: Inventory, reach: Reachability, options: MigrateOptions) -> bool:
    found = _SQL.run(inventory, "follow").fetchall() if options.tags else []
    if found:
        reach.add(_SQL.text("roots_of_tags"))
    return bool(found)


def sql_of(condition: bool) -> str:
    return "true" if condition else "false"
