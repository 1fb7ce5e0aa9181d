"""What the steps of one pass share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
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
from regstore.tasks.putting import PutMany, put_many
from regstore.tasks.runner import Runner
from regstore.tasks.sharing import WORTH_WORKERS, Ways, batches_for, share_out

SQL: Final = Statements("regstore.migrate", "apply.sql")
_ROWS: Final = 2000
#: Links between two words on how far it is.
_TELL: Final = 20

Row = tuple[Any, ...]
#: Key and content of a row; a function of a module.
Made = Callable[[Row], tuple[str, bytes]]


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
    runner: Runner
    on_event: OnEvent

    def rows(self, name: str, parameters: Mapping[str, int] | None = None, **fragments: str) -> Iterator[Row]:
        """Of a section of apply.sql; some at a time, on a connection of their own."""
        cursor = self.inventory.connection.cursor()
        try:
            cursor.execute(SQL.text(name, **fragments), parameters)
            while rows := cursor.fetchmany(_ROWS):
                yield from rows
        finally:
            cursor.close()

    async def put_each(
        self,
        phase: str,
        name: str,
        made: Made,
        parameters: Mapping[str, int] | None = None,
        *,
        left_out: Callable[[Row], Awaitable[object]] | None = None,
    ) -> int:
        """Write to the target what `made` makes of the rows of a section of apply.sql, several at a time; how many were
        written. left_out: awaited instead for those whose last column is true."""
        total = self.inventory.execute(f"select count(*) from ({SQL.text(name)})", parameters).fetchall()[0][0]
        if not total:
            return 0
        skipped: list[Row] = []
        rows = self.rows(name, parameters)
        if left_out is not None:
            rows = _without(rows, skipped)
        if self.runner.near.takes(total, WORTH_WORKERS, self.target):
            await self._put_elsewhere(phase, rows, made, total)
        else:
            await self._put_here(phase, rows, made, total)
        if left_out is not None:
            await for_each(skipped, left_out, concurrency=self.options.concurrency)
        return int(total) - len(skipped)

    async def _put_here(self, phase: str, rows: Iterator[Row], made: Made, total: int) -> None:
        done = 0

        async def one(row: Row) -> None:
            nonlocal done
            key, body = made(row)
            await self.target.put(key, body, options=self.options.put)
            done += 1
            if done % _TELL == 0 or done == total:
                self.on_event(Progress(phase=phase, done=done, total=total, unit="links"))

        await for_each(rows, one, concurrency=self.options.concurrency)

    async def _put_elsewhere(self, phase: str, rows: Iterator[Row], made: Made, total: int) -> None:
        """In batches, by this process and others."""
        done = 0

        def tell() -> None:
            self.on_event(Progress(phase=phase, done=done + ways.done, total=total, unit="links"))

        ways = Ways(tell, self.on_event)

        async def one(runner: Runner, batch: Sequence[Row]) -> None:
            nonlocal done
            with ways.of_one() as on_event:
                work = PutMany(rows=batch, made=made, put=self.options.put)
                await runner.run(put_many, work, self.target, on_event=on_event)
            done += len(batch)
            tell()

        batches = batches_for(self.runner.near, rows, total)
        await share_out(self.runner.near, batches, one, concurrency=self.options.concurrency)


def _without(rows: Iterator[Row], skipped: list[Row]) -> Iterator[Row]:
    for row in rows:
        if row[-1]:
            skipped.append(row)
        else:
            yield row
