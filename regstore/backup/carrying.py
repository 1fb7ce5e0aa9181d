"""Blobs copied into a backup, or out of one, each hashed on its way: by this process, and where there are many, by
others too, small ones in batches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Sequence
from dataclasses import dataclass
from typing import Final

from regstore.concurrency import for_each, task_group
from regstore.digest import Digest
from regstore.events import OnEvent, Progress
from regstore.inventory.inventory import Inventory
from regstore.storage.base import PutOptions, Storage
from regstore.storage.outage import IN_A_ROW
from regstore.storage.transfer import Attempts, Carrier, Failure, Lane, Road, each_blob, largest_first
from regstore.tasks.copying import CopyBlobs, KeyOf, copy_blobs, raised
from regstore.tasks.packing import unpack_of_store
from regstore.tasks.runner import Runner
from regstore.tasks.sharing import (
    BATCH_BYTES,
    WORTH_WORKERS,
    WORTH_WORKERS_BYTES,
    Ways,
    batches_for,
    share_of,
    share_out,
)
from regstore.tasks.under_lock import HeldLock

Blob = tuple[Digest, int]
Took = Callable[[Digest, int, Failure | None], Awaitable[object]]
#: Blobs that are in memory at a time, at some 300 bytes each.
_AT_A_TIME: Final = 100_000


async def _always() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Carrying:
    """source_key, target_key: where a blob stands there. put: how it is stored. phase: in `Progress`. check: awaited
    before each. under: the target's lock, where this process holds it. in_a_row: so many failed copies, and a batch is
    not gone on with before they have been looked at."""

    source: Storage
    target: Storage
    source_key: KeyOf
    target_key: KeyOf
    put: PutOptions | None
    attempts: Attempts
    runner: Runner
    concurrency: int
    phase: str
    on_event: OnEvent
    check: Callable[[], Awaitable[object]] = _always
    under: HeldLock | None = None
    in_a_row: int = IN_A_ROW

    async def copy(
        self, inventory: Inventory, blobs: str, took: Took, *, passed_over: Container[Digest] = ()
    ) -> None:
        """All of `blobs`, SQL that gives each (digest, size) once: the largest first, some at a time, so that no more
        than these are in memory. took: awaited for each, with what kept it from being copied."""
        inventory.execute(f"create or replace table carried as from ({blobs}) order by size desc, digest")
        number, total = inventory.all("select count(*), coalesce(sum(size), 0)::bigint from carried")[0]
        done = 0
        for first in range(0, number, _AT_A_TIME):
            rows = inventory.all(
                "select digest, size from carried where rowid between ? and ? order by rowid",
                [first, first + _AT_A_TIME - 1],
            )
            some = [(Digest.from_raw(bytes(raw)), size) for raw, size in rows]
            run = _Run(self, [blob for blob in some if blob[0] not in passed_over], took, done, total)
            await run.run()
            done += sum(size for _, size in some)
        inventory.execute("drop table carried")


class _Run:
    def __init__(
        self,
        asked: Carrying,
        blobs: Sequence[Blob],
        took: Took,
        done: int,
        total: int,
    ) -> None:
        """done, total: bytes before these, and in all."""
        self._asked = asked
        self._took = took
        self._carrier = Carrier(asked.source, asked.target, put=asked.put)
        self._of_lane = largest_first(blobs)
        self._total = total
        self._done = done
        self._ways = Ways(self._tell, asked.on_event)

    async def run(self) -> None:
        async with task_group() as group:
            for number, lane in enumerate(self._carrier.road.lanes):
                blobs = list(self._of_lane(lane))
                group.create_task(self._small(blobs, lane) if number == 0 else self._large(blobs, lane))

    def _takes(self, count: int, least: int) -> bool:
        return self._asked.runner.takes(count, least, self._asked.source, self._asked.target)

    async def _small(self, blobs: Sequence[Blob], lane: Lane) -> None:
        runner = self._asked.runner
        if not self._takes(len(blobs), WORTH_WORKERS):
            await self._here(blobs, lane)
            return
        batches = batches_for(runner, iter(blobs), len(blobs), weight=lambda blob: blob[1], most=BATCH_BYTES)

        async def one(whose: Runner, batch: Sequence[Blob]) -> None:
            batches.add(await self._batch(whose, batch, runner.share))

        await share_out(runner, batches, one, concurrency=self._asked.concurrency)

    async def _large(self, blobs: Sequence[Blob], lane: Lane) -> None:
        runner = self._asked.runner
        if not self._takes(sum(size for _, size in blobs), WORTH_WORKERS_BYTES):
            await self._here(blobs, lane)
            return

        async def one(blob: Blob) -> None:
            await self._batch(runner, [blob], 1)  # one failure leaves nothing

        at_once = min(max(lane.at_once or 1, runner.size), self._asked.concurrency)
        await for_each(blobs, one, concurrency=at_once)

    async def _here(self, blobs: Sequence[Blob], lane: Lane) -> None:
        road = Road(lanes=(Lane(at_once=lane.at_once),))
        await each_blob(road, lambda _: blobs, self._one, concurrency=self._asked.concurrency)

    async def _one(self, blob: Blob) -> None:
        digest, size = blob
        asked = self._asked
        await asked.check()
        source, target = asked.source_key(digest), asked.target_key(digest)
        copying = self._carrier.copy(source, target, digest=digest, size=size)
        await self._took(digest, size, await asked.attempts.of(source, digest, size, copying))
        self._pass(size)

    async def _batch(self, runner: Runner, blobs: Sequence[Blob], share: int) -> Sequence[Blob]:
        """What was not begun of it."""
        asked = self._asked
        await asked.check()
        work = CopyBlobs(
            blobs=[(digest.raw, size, False) for digest, size in blobs],
            source_key=asked.source_key,
            target_key=asked.target_key,
            put=asked.put,
            share=share,
            in_a_row=asked.in_a_row,
            under=asked.under,
        )
        with self._ways.of_one() as on_event:
            result = await runner.run(copy_blobs, work, asked.source, asked.target, on_event=on_event)
        for digest, size in result.copied(blobs):
            await self._took(digest, size, None)
            self._pass(size)

        async def failed(number: int) -> None:
            failure = result.failed[number]
            asked.attempts.arrived(failure.copied_before)
            digest, size = blobs[failure.number]
            assert failure.error is not None  # nothing is proved
            copying = raised(unpack_of_store(failure.error))
            await self._took(digest, size, await asked.attempts.of(asked.source_key(digest), digest, size, copying))
            self._pass(size)

        await for_each(range(len(result.failed)), failed, concurrency=share_of(runner, asked.concurrency))
        asked.attempts.arrived(result.copied_last)
        return result.left(blobs)

    def _pass(self, size: int) -> None:
        self._done += size
        self._tell()

    def _tell(self) -> None:
        done = self._done + self._ways.done
        self._asked.on_event(Progress(phase=self._asked.phase, done=done, total=self._total, unit="B"))
