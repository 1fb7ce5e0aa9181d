"""What a scan could not read, in words."""

from __future__ import annotations

from regstore.inventory.inventory import Inventory, text_sql


def name_unread(inventory: Inventory, *, most: int = 1000) -> tuple[str, ...]:
    """A line for each manifest and link that the store has and did not give; so many at most."""
    rows = inventory.all(
        f"""
        select 'manifest ' || {text_sql("digest")} || ' can''t be read: ' || reason
        from manifest where state = 'unreadable'
        union all
        select r.name || ': the link of tag ' || t.name || ' can''t be read: ' || unread
        from tag t join repository r on r.id = t.repository where unread is not null
        union all
        select r.name || ': the link of revision ' || {text_sql("digest")} || ' can''t be read: ' || unread
        from revision_link t join repository r on r.id = t.repository where unread is not null
        union all
        select r.name || ': the link of layer ' || {text_sql("digest")} || ' can''t be read: ' || unread
        from layer_link t join repository r on r.id = t.repository where unread is not null
        order by 1 limit {most}
        """
    )
    return tuple(line for (line,) in rows)
