"""What of the trash something that can't be read now may need: nobody knows, so it does not go.

A manifest that was pushed to a registry whose cache still answered for what a run had taken needs that run's trash, and
only its bytes say so. Neither does a link to a tag's manifest tell what it names while it is not given. Both are in
one repository, and a registry takes no manifest there that names what the repository never had. So what is held back
is what runs took from that repository, and no other run's trash waits for one bad object.
"""

from __future__ import annotations

from typing import Final

from regstore.gc.heal_plan import reach_all
from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import Statements

_SQL: Final = Statements("regstore.gc", "unread_needs.sql")


def held_for_unread(inventory: Inventory) -> dict[str, str]:
    """Runs whose trash and journal must stay, and why. The inventory has `gc.past`'s relations, and is healed."""
    if not _SQL.run(inventory, "anything_unread").fetchall():
        return {}
    reach = reach_all(inventory, "unread_reach")
    rows = _SQL.run(inventory, "held", reach=reach.table).fetchall()
    inventory.execute(f"drop table {reach.table}")
    return {
        run: f"{name or 'a key that regstore does not know'} may need what this run took, for {why}"
        for run, name, why in rows
    }
