"""What repositories share, by digest: the blobs that are used (`live_blob`), and what must not be written since
something that it reaches can't be copied (`migrate_blocked`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Final

from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import EDGE_KINDS, Statements
from regstore.migrate.live import sql_of
from regstore.migrate.options import MigrateOptions

_SQL: Final = Statements("regstore.migrate", "shared.sql", **EDGE_KINDS)


def find_blobs(inventory: Inventory, options: MigrateOptions) -> None:
    _SQL.run(inventory, "blobs", orphans=sql_of(options.all and options.everything))


def block(inventory: Inventory, digests: Sequence[bytes]) -> None:
    """Note blobs that could not be copied, and everything that reaches them."""
    if not digests:
        return
    with inventory.given("given", {"digest": ("binary", digests)}):
        [(new,)] = _SQL.run(inventory, "block").fetchall()
    for above in count(1):
        if not new:
            break
        [(new,)] = _SQL.run(inventory, "block_above", {"round": above}).fetchall()
    _SQL.run(inventory, "block_all")


def leave_damaged_out(inventory: Inventory) -> None:
    """Take manifests with other bytes, or that the store does not give, out of live_*, with all that reaches them."""
    _SQL.run(inventory, "blocked")
    damaged = _SQL.run(inventory, "damaged_manifests").fetchall()
    if damaged:
        block(inventory, [bytes(digest) for (digest,) in damaged])
        _SQL.run(inventory, "drop_blocked")
