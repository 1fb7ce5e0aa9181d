"""What of the trash something that can't be read now may need: nobody knows, so it does not go.

A manifest that was pushed to a registry whose cache still answered for what a run had taken needs that run's trash, and
only its bytes say so. Neither does a link to a tag's manifest tell what it names while it is not given. Both are in
one repository, and a registry takes no manifest there that names what the repository never had. So what is held back
is what runs took from that repository, and no other run's trash waits for one bad object.
"""

from __future__ import annotations

from regstore.gc.heal_plan import reach_all
from regstore.inventory.inventory import Inventory, text_sql


def held_for_unread(inventory: Inventory) -> dict[str, str]:
    """Runs whose trash and journal must stay, and why. The inventory has `gc.past`'s relations, and is healed."""
    unread = "state in ('unreadable', 'unsure')"
    if not inventory.one(
        f"select exists (from manifest where {unread})"
        " or exists (from tag where unread is not null) or exists (from layer_link where unread is not null)"
    ):
        return {}
    reach = reach_all(inventory, "unread_reach")
    rows = inventory.all(
        f"""
        with unread as (
            select k.repository, 'manifest ' || {text_sql("m.digest")} || ' can''t be read: ' || m.reason as why
            from {reach.table} k join manifest m using (digest) where k.expand and m.{unread}
            union all
            select repository, 'the link of tag ' || name || ' can''t be read: ' || unread
            from tag where unread is not null
            union all
            select repository, 'the link of layer ' || {text_sql("digest")} || ' can''t be read: ' || unread
            from layer_link where unread is not null
        ),
        needy as (
            select coalesce(r.name, '') as name, min(why) as why
            from unread left join repository r on r.id = unread.repository group by all
        ),
        -- An unknown key stands in no repository that is known: it may be any.
        took as (
            select m.run, m.digest, n.name, n.why from removed m join needy n on n.name in ('', m.name)
        )
        select run, min(name), min(why) from (
            select run, name, why from took
            union all
            select t.run, k.name, k.why from trash t join took k using (digest)
        ) group by run order by run
        """
    )
    inventory.execute(f"drop table {reach.table}")
    return {
        run: f"{name or 'a key that regstore does not know'} may need what this run took, for {why}"
        for run, name, why in rows
    }
