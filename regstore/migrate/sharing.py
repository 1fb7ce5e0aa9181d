"""The blobs of a pass shared out: small ones in batches, each large one by itself, to this process and others.

What does not go as it should comes back, and is dealt with here, as every blob is where nothing is shared out. So do
blobs whose bytes are suspect, and those of which a run has left an upload: only this process has looked for these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from regstore import layout
from regstore.concurrency import for_each, task_group
from regstore.digest import Digest
from regstore.migrate.on_server import ServerBatch, copy_on_server
from regstore.migrate.work import Work
from regstore.storage.sizes import MiB
from regstore.storage.transfer import Lane
from regstore.tasks.copying import CopyBlobs, copy_blobs, without
from regstore.tasks.packing import unpack_of_store
from regstore.tasks.runner import Runner
from regstore.tasks.sharing import (
    BATCH_BYTES,
    WORTH_WORKERS,
    WORTH_WORKERS_BYTES,
    Batches,
    batches_for,
    share_of,
    share_out,
)

if TYPE_CHECKING:
    from regstore.migrate.blobs import Blobs, Row

#: Of a batch whose blobs the server copies.
_SERVER_BATCH_BYTES: Final = 4096 * MiB


class SharedBlobs:
    """Shares out what a runner takes of `blobs`."""

    def __init__(self, work: Work, blobs: Blobs) -> None:
        self._work = work
        self._blobs = blobs
        self._transfer = blobs.transfer
        self._runner = work.runner

    async def copy(self, lanes: Sequence[Lane]) -> None:
        """All of them, each lane beside the others."""
        async with task_group() as group:
            for number, lane in enumerate(lanes):
                group.create_task(self._small(lane) if number == 0 else self._large(lane))

    async def _small(self, lane: Lane) -> None:
        count, _ = self._blobs.sums(lane)
        if not self._runner.takes(count, WORTH_WORKERS, self._work.source, self._work.target):
            await self._blobs.each(self._blobs.rows(lane), lane)
            return
        aside: list[Row] = []
        batches: Batches[Row] = batches_for(
            self._runner,
            self._sound(self._blobs.rows(lane), aside),
            count,
            weight=lambda row: row[1],
            most=_SERVER_BATCH_BYTES if self._transfer.asks_server else BATCH_BYTES,
        )

        async def one(runner: Runner, batch: Sequence[Row]) -> None:
            batches.add(await self._batch(runner, batch, self._runner.share))

        await share_out(self._runner, batches, one, concurrency=self._work.options.concurrency)
        await self._blobs.each(aside, lane)

    async def _large(self, lane: Lane) -> None:
        _, size = self._blobs.sums(lane)
        shared = self._runner.takes(size, WORTH_WORKERS_BYTES, self._work.source, self._work.target)
        if not shared or self._transfer.asks_server:  # it has the work of that, not we
            await self._blobs.each(self._blobs.rows(lane), lane)
            return
        aside: list[Row] = []

        async def one(row: Row) -> None:
            for left in await self._batch(self._runner, [row], 1):
                await self._blobs.one(left)

        at_once = min(max(lane.at_once or 1, self._runner.size), self._work.options.concurrency)
        await for_each(self._sound(self._blobs.rows(lane), aside), one, concurrency=at_once)
        await self._blobs.each(aside, lane)

    def _sound(self, rows: Iterator[Row], aside: list[Row]) -> Iterator[Row]:
        for row in rows:
            if row[2] or self._transfer.is_begun(Digest.from_raw(row[0])):
                aside.append(row)
            else:
                yield row

    async def _batch(self, runner: Runner, rows: Sequence[Row], share: int) -> Sequence[Row]:
        """What was not begun of it."""
        with self._blobs.way.batch(rows) as on_event:
            left: list[Row] = []
            there: set[bytes] = set()
            if self._transfer.asks_server:
                rows, there, left = await self._on_server(runner, rows)
            if rows and (self._blobs.is_full or not there):
                blobs = [(raw, size, present or raw in there) for raw, size, _, present in rows]
                result = await runner.run(
                    copy_blobs,
                    CopyBlobs(
                        blobs=blobs,
                        source_key=layout.blob_key,
                        target_key=layout.blob_key,
                        put=self._work.options.put,
                        share=share,
                        in_parts_again=True,
                        prove=self._blobs.is_full,
                    ),
                    self._work.source,
                    self._work.target,
                    on_event=on_event,
                )
                left += result.left(rows)
            else:
                result = None
        if result is None:
            self._blobs.copied(rows)
            return left
        self._blobs.copied(result.copied(rows))

        async def again(number: int) -> None:
            failure = result.failed[number]
            self._blobs.arrived(failure.copied_before)
            error = None if failure.error is None else unpack_of_store(failure.error)
            await self._blobs.one(rows[failure.number], error=error)

        await for_each(
            range(len(result.failed)), again, concurrency=share_of(runner, self._work.options.concurrency)
        )
        self._blobs.arrived(result.copied_last)
        return left

    async def _on_server(self, runner: Runner, rows: Sequence[Row]) -> tuple[Sequence[Row], set[bytes], list[Row]]:
        """Those that are there by now, those of them that the server has copied, and what was not begun."""
        asked = [row for row in rows if not row[3]]
        work = ServerBatch(blobs=[(raw, size) for raw, size, _, _ in asked], put=self._work.options.put)
        result = await runner.run(copy_on_server, work, self._work.source, self._work.target)
        refusal = None if result.refusal is None else unpack_of_store(result.refusal)
        self._transfer.note_server(result.size_only, refusal)
        left = without(asked, {*result.done, *(number for number, _, _ in result.otherwise)})
        for number, copied, packed in result.otherwise:
            error = None if packed is None else unpack_of_store(packed)
            await self._blobs.one(asked[number], asked=copied, error=error)
        there = {asked[number][0] for number in result.done}
        self._blobs.arrived(len(there))
        return [row for row in rows if row[3] or row[0] in there], there, left
