"""A `Runner` whose tasks run in executors: what verify and migrate hand out to worker processes goes to a cluster.

Each task is a job of its own, with one partition, whose answer comes back to the driver. Between tasks there is nothing
that Spark could lose and compute again: what has come back is never asked of the store a second time. Where an executor
is lost in the midst of one, Spark begins it anew (`Context.attempt`), as a pool does where a worker dies; and so only
tasks that may run twice, and late, are given to it (`Runner.is_far`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Self, TypeVar

from regstore import layout
from regstore.concurrency import in_thread
from regstore.errors import StorageError
from regstore.events import OnEvent, ignore
from regstore.spark.options import ClusterOptions
from regstore.spark.session import ask, check_executors, executors, result_of, run_tasks
from regstore.spark.tasks.executing import AT_ONCE, StoreWork, store_work
from regstore.spark.tasks.running import TaskWork, packed_work
from regstore.storage.base import Storage
from regstore.storage.optional import OpensElsewhere
from regstore.tasks.packing import unpack
from regstore.tasks.runner import HERE, Context, Done, Runner, Task, Work

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

T = TypeVar("T")

#: Jobs that wait with Spark for an executor to be free, for each that one has: so none is idle while the driver thinks.
_WAITING: Final = 0.25
#: Microseconds after which a mark was left by a run that was killed.
_OLD_MARK: Final = 30 * 24 * 3600 * 1_000_000


class SparkRunner:
    """A `Runner`. Its tasks tell nothing until they end. Cancelled, a task is given up by Spark, which ends its process
    in the executor some seconds later."""

    is_far: Final = True

    def __init__(
        self,
        session: SparkSession,
        options: ClusterOptions,
        *,
        concurrency: int = AT_ONCE,
        near: Runner = HERE,
        on_event: OnEvent = ignore,
    ) -> None:
        """concurrency: requests at once of one task, at most. near: of this computer. on_event: hears where the cluster
        has no executor."""
        context = session.sparkContext
        cores = max(1, context.defaultParallelism)
        self.size: Final = options.tasks or cores
        self.share: Final = -(-cores // max(1, executors(session)))
        self.near: Final = near
        self._session = session
        self._on_event = on_event
        self._concurrency = min(AT_ONCE, concurrency)
        self._rate = options.request_rate / self.size
        jobs = options.tasks or cores + max(1, int(cores * _WAITING))
        self._free = asyncio.Semaphore(jobs)
        self._threads = ThreadPoolExecutor(jobs, thread_name_prefix="spark-job")
        self._name = f"regstore-{secrets.token_hex(4)}"
        self._jobs = 0
        #: By identity: where each store is, as the executors are to find it.
        self._known: dict[str, StoreWork] = {}
        self._looking = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await in_thread(self._threads.shutdown)

    def reaches(self, *stores: Storage) -> bool:
        return all(isinstance(store, OpensElsewhere) for store in stores)

    def takes(self, count: int, least: int, *stores: Storage) -> bool:
        return count > 0 and self.reaches(*stores)

    @asynccontextmanager
    async def marked(self, storage: Storage) -> AsyncIterator[None]:
        """For the time that executors write to a store: a mark there, which each of their tasks must find. Refused
        where one does not, before anything is written."""
        mark = f"{layout.PROBE}{secrets.token_hex(8)}"
        await _remove_old_marks(storage)
        try:
            await storage.put(mark, b"")
            await self._look(storage, mark)
            yield
        finally:
            self._known.pop(storage.identity(), None)
            with suppress(StorageError):
                await storage.delete_many([mark])

    async def run(self, task: Task[Work, Done], work: Work, *stores: Storage, on_event: OnEvent = ignore) -> Done:
        if not self.reaches(*stores):
            return await task(Context(stores=stores, concurrency=self._concurrency, on_event=on_event), work)
        places = tuple([await self._place(store) for store in stores])
        packed = packed_work(TaskWork(task=task, work=work, stores=places, concurrency=self._concurrency))
        (answer,) = await self._in_spark(task.__name__.replace("_", " "), lambda: ask(self._session, [packed]))
        for store, counters in zip(stores, answer.counters, strict=False):
            store.counters.add(counters)
        if answer.error is not None:
            raise unpack(answer.error)
        return answer.result  # type: ignore[no-any-return]

    async def _place(self, storage: Storage) -> StoreWork:
        """As it is to be opened now."""
        async with self._looking:
            known = self._known.get(storage.identity()) or await self._look(storage)
        return await self._work(storage, known.mark, known.place)

    async def _look(self, storage: Storage, mark: str = "") -> StoreWork:
        """Whether all executors see it; each task looks again."""
        work = await self._work(storage, mark)
        await self._in_spark("look for the store", lambda: check_executors(self._session, work, self.size))
        self._known[storage.identity()] = work
        return work

    async def _work(self, storage: Storage, mark: str, place: str = "") -> StoreWork:
        return await store_work(storage, concurrency=self._concurrency, rate=self._rate, mark=mark, place=place)

    async def _in_spark(self, what: str, jobs: Callable[[], T]) -> T:
        """Of a group of their own. In a thread."""
        self._jobs += 1
        group = f"{self._name}-{self._jobs}"

        def run() -> T:
            run_tasks(lambda: self._session.sparkContext.setJobGroup(group, f"regstore: {what}"))
            return jobs()

        async with self._free:
            running = asyncio.get_running_loop().run_in_executor(self._threads, run)
            cancel = partial(self._session.sparkContext.cancelJobGroup, group)
            return await result_of(self._session, running, cancel, self._on_event)


async def _remove_old_marks(storage: Storage) -> None:
    now, old = await storage.now(), []
    async for page in storage.list(layout.PROBE):
        old += [key for key, mtime in zip(page.keys, page.mtimes, strict=True) if mtime < now - _OLD_MARK]
    if old:
        await storage.delete_many(old)
