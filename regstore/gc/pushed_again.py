"""Tags that are being pushed while gc plans to take them (`regstore.state.pushed_again`)."""

from __future__ import annotations

from regstore.inventory.inventory import Inventory
from regstore.tagging import UNDER_WAY


def half_pushed(look: Inventory, *, now: int) -> set[str]:
    """Names of repositories in which a tag's index link is newer than its current/link. `now` in microseconds."""
    rows = look.all(
        """
        select distinct r.name from tag_index i
        join tag t on t.repository = i.repository and t.name = i.name
        join repository r on r.id = i.repository
        where i.mtime > t.mtime and i.mtime >= ?
        """,
        [now - UNDER_WAY],
    )
    return {name for (name,) in rows}
