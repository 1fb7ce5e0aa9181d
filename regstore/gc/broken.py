"""Revisions that can't be read, where the operator says that they may go (`--drop-broken-revisions`).

    gc_broken_revision(repository, digest, reason)    those that may go
    gc_broken_tag(repository, name, digest)           tags that point at them; never one that a policy protects
    gc_sound_revision                                 the other revision links

Left alone all the same: one younger than the grace, whose push may not be over; a link too long to be read; and a
document whose bytes are right, or were never read, and that is only not understood: that one goes where its digest is
named, never as one of many. What could not be read is not broken (`gc.confirm`, and the state `unreadable`): it may be
sound. Where something that stays needs such a revision, or the repository is protected for another reason, all of it
stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from regstore.gc.policy import BrokenScope
from regstore.inventory.inventory import Inventory, text_sql

#: SQL for what is wrong with the link of a revision `x`; null where nothing is.
LINK_REASON = f"""case
    when x.target = x.digest then null
    when x.unread is not null then 'the link of revision ' || {text_sql("x.digest")} || ' can''t be read: ' || x.unread
    else 'the link of revision ' || {text_sql("x.digest")} || case
        when x.target is not null then ' names another digest'
        when x.size = 0 then ' is empty'
        else ' is damaged' end end"""


def find_broken(inventory: Inventory, scopes: Sequence[BrokenScope], *, cutoff: int) -> None:
    """Make the tables. gc_tag_fate must stand; cutoff: what is not older, in microseconds, is left alone."""
    everywhere = any(scope.name is None for scope in scopes)
    inventory.execute("create or replace temp table broken_scope (name varchar, digest blob)")
    inventory.insert(
        "broken_scope",
        {
            "name": ("utf8", [scope.name for scope in scopes]),
            "digest": ("binary", [scope.digest.raw if scope.digest else None for scope in scopes]),
        },
    )
    inventory.execute(
        f"""
        create or replace table gc_broken_revision as
        select x.repository, x.digest,
            coalesce({LINK_REASON}, 'manifest ' || {text_sql("x.digest")} || ' can''t be read: ' || m.reason) as reason
        from revision_link x join repository r on r.id = x.repository left join manifest m on m.digest = x.digest
        where (x.target is not distinct from x.digest and m.state <> 'ok'
                or x.target is distinct from x.digest and x.body is not null)
            and x.mtime < {cutoff}
            and (
                coalesce(m.state, 'ok') in ('ok', 'missing', 'mismatch') and ({str(everywhere).lower()} or exists (
                    from broken_scope s where s.name = r.name and s.digest is null))
                or coalesce(m.state, 'ok') in ('ok', 'missing', 'mismatch', 'invalid', 'too large') and exists (
                    from broken_scope s where s.name = r.name and s.digest = x.digest)
            )
        """
    )
    inventory.execute("drop table broken_scope")
    inventory.execute(
        f"""
        create or replace table gc_broken_tag as
        select t.repository, t.name, b.digest
        from tag t join gc_broken_revision b on b.repository = t.repository and b.digest = t.target
        where t.mtime < {cutoff} and not exists (
            from gc_tag_fate f where f.repository = t.repository and f.name = t.name and f.fate = 'protected'
        )
        """
    )
    inventory.execute(
        "create or replace view gc_sound_revision as from revision_link x anti join gc_broken_revision b"
        " on b.repository = x.repository and b.digest = x.digest"
    )


def keep_broken(inventory: Inventory, repositories: str) -> None:
    """Let nothing broken go from these repositories, SQL for their ids: it protects them instead."""
    inventory.execute(
        "insert into gc_protected"
        f" select repository, reason from gc_broken_revision where repository in ({repositories})"
    )
    for table in ("gc_broken_revision", "gc_broken_tag"):
        inventory.execute(f"delete from {table} where repository in ({repositories})")


def unmatched(inventory: Inventory, scopes: Iterable[BrokenScope]) -> list[str]:
    """Those of the scopes in which nothing broken may go."""
    found = {
        (name, bytes(digest))
        for name, digest in inventory.all(
            "select r.name, b.digest from gc_broken_revision b join repository r on r.id = b.repository"
        )
    }
    names = {name for name, _ in found}

    def matches(scope: BrokenScope) -> bool:
        if scope.name is None:
            return bool(found)
        return (scope.name, scope.digest.raw) in found if scope.digest else scope.name in names

    return [str(scope) for scope in scopes if not matches(scope)]
