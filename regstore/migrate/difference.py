"""What the target lacks of what is live, or has differently: the tables `migrate_*` that a pass works off."""

from __future__ import annotations

from typing import Final

from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import EDGE_KINDS, Statements
from regstore.migrate.options import MigrateOptions

_SQL: Final = Statements("regstore.migrate", "difference.sql", **EDGE_KINDS)
_TABLES: Final = ("blobs", "layer_links", "revisions", "signatures", "tag_differences", "tags")


def compare(inventory: Inventory, options: MigrateOptions, *, place: str) -> None:
    """place: what the record calls the source."""
    for table in _TABLES:
        _SQL.run(inventory, table, {"place": place, "overwrite": options.overwrite_tags})


def find_deletions(inventory: Inventory, options: MigrateOptions, *, place: str) -> int:
    """Make `migrate_delete_tag`; of how many tags that our passes set they are."""
    if not options.delete:
        _SQL.run(inventory, "no_deletions")
        return 0
    given = {"place": place}
    pairs = _SQL.run(inventory, "recorded", given).fetchall()
    chosen = [(origin, name) for origin, name in pairs if options.target_of(origin) == name]
    origins, names = zip(*chosen, strict=True) if chosen else ((), ())
    with inventory.given("deletable", {"origin": ("utf8", origins), "repository": ("utf8", names)}):
        _SQL.run(inventory, "deletions", given)
        [(number,)] = _SQL.run(inventory, "deletable", given).fetchall()
    return int(number)
