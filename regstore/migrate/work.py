"""What the steps of one pass share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from regstore.concurrency import for_each
from regstore.events import OnEvent, Progress
from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import Statements
from regstore.migrate.options import MigrateOptions
from regstore.migrate.others import Others
from regstore.migrate.result import MigrateResult
from regstore.storage.base import Storage

SQL: Final = Statements("regstore.migrate", "apply.sql")
_ROWS: Final = 2000


@dataclass(frozen=True, kw_only=True)
class Work:
    """One pass over a plan's tables, which are in the inventory. In the record of tags, `name` is the pass's and
    `place` the source's. others: who was at work at the target before it was listed. result: gets what was done."""

    source: Storage
    target: Storage
    inventory: Inventory
    options: MigrateOptions
    result: MigrateResult
    name: str
    place: str
    others: Others
    on_event: OnEvent

    def rows(
        self, name: str, parameters: Mapping[str, int] | None = None, **fragments: str
    ) -> Iterator[tuple[Any, ...]]:
        """Of a section of apply.sql; some at a time, on a connection of their own."""
        cursor = self.inventory.connection.cursor()
        try:
            cursor.execute(SQL.text(name, **fragments), parameters)
            while rows := cursor.fetchmany(_ROWS):
                yield from rows
        finally:
            cursor.close()

    async def each(
        self,
        phase: str,
        name: str,
        function: Callable[[tuple[Any, ...]], Awaitable[object]],
        parameters: Mapping[str, int] | None = None,
    ) -> None:
        """Await function(row) for the rows of a section of apply.sql, several at a time."""
        total = self.inventory.execute(f"select count(*) from ({SQL.text(name)})", parameters).fetchall()[0][0]
        if not total:
            return
        done = 0

        async def one(row: tuple[Any, ...]) -> None:
            nonlocal done
            await function(row)
            done += 1
            self.on_event(Progress(phase=phase, done=done, total=total, unit="links"))

        await for_each(self.rows(name, parameters), one, concurrency=self.options.concurrency)
