"""The keys of some repositories that go now, in the order in which they go: a relation, for one repository may lose
any number of links.

    gc_now(position, repository, step, key, size, mtime, body, loose)

loose: a tag that names a manifest which the repository does not link.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from regstore.gc.order import find_ranks
from regstore.gc.plan import Step
from regstore.inventory.inventory import Inventory
from regstore.layout import REPOSITORIES

#: Rows in memory at a time.
SLICE: Final = 5_000


@dataclass(frozen=True, slots=True)
class Row:
    """A key that goes, as it was listed. Its body where that is known."""

    position: int
    step: Step
    key: str
    size: int
    mtime: int
    body: bytes | None
    loose: bool


class Going:
    """What of these repositories, by id in the inventory, its plan removes."""

    def __init__(self, inventory: Inventory, repositories: Sequence[int]) -> None:
        self._inventory = inventory
        self._repositories = list(repositories)

    def choose(self) -> None:
        ranks = find_ranks(self._inventory, self._repositories)
        self._inventory.execute("create or replace temp table gc_rank (key varchar, rank integer)")
        self._inventory.insert("gc_rank", {"key": ("utf8", list(ranks)), "rank": ("int32", list(ranks.values()))})
        self._inventory.execute(
            f"""
            create or replace table gc_now as
            with loose as (
                select '{REPOSITORIES}' || r.name || '/_manifests/tags/' || t.name || '/current/link' as key
                from gc_dead_tag d join tag t using (repository, name) join repository r on r.id = t.repository
                where not exists (from revision_link x where x.repository = t.repository and x.digest = t.target)
            )
            select row_number() over (order by step, coalesce(rank, 0), key) as position,
                repository, step, key, size, mtime, body, key in (from loose) as loose
            from gc_unlink left join gc_rank using (key)
            where repository in (select unnest(?::integer[]))
            """,
            [self._repositories],
        )
        self._inventory.execute("drop table gc_rank")

    def keep_what_changed(self, look: Inventory, busy: Collection[str]) -> int:
        """Let go only what the plan of this later look removes too, as it was, and nothing of the busy repositories.
        How many keys stay."""
        before = len(self)
        look.execute(
            """
            delete from main.gc_now where key not in (
                select key from main.gc_now n join gc_unlink u using (key)
                where u.size = n.size and u.mtime = n.mtime and u.body is not distinct from n.body
            )
            """
        )
        self._inventory.execute(
            "delete from gc_now where repository in (select id from repository where list_contains(?, name))",
            [sorted(busy) or [""]],
        )
        return before - len(self)

    def drop(self, keys: Sequence[str]) -> None:
        """These stay after all."""
        if keys:
            self._inventory.execute("delete from gc_now where key in (select unnest(?::varchar[]))", [list(keys)])

    def __len__(self) -> int:
        return self._inventory.count("gc_now")

    def upload_keys(self) -> set[str]:
        return {key for (key,) in self._inventory.all(f"select key from gc_now where step = {Step.UPLOAD}")}

    def slices(self, step: Step | None = None) -> Iterator[list[Row]]:
        """Some rows at a time, in their order; of one step, or of all."""
        only = "" if step is None else f"step = {step} and"
        position = 0
        while rows := self._inventory.all(
            f"select position, step, key, size, mtime, body, loose from gc_now where {only} position > ?"
            " order by position limit ?",
            [position, SLICE],
        ):
            position = rows[-1][0]
            yield [
                Row(position, Step(step), key, size, mtime, None if body is None else bytes(body), loose)
                for position, step, key, size, mtime, body, loose in rows
            ]
