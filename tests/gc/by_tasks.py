"""A run of gc whose links and blobs go by tasks, as an engine would have it: this process holds the lock, plans, looks,
and ends the run."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from regstore.concurrency import in_thread
from regstore.gc.apply.application import Application
from regstore.gc.apply.candidates import Candidates
from regstore.gc.apply.fate import Fate
from regstore.gc.apply.going import Going, Group, dead_uploads, groups
from regstore.gc.apply.looks import Looks
from regstore.gc.apply.steps import OwnHands, apply_plan
from regstore.gc.apply.sweep import Swept
from regstore.gc.apply.sweep_range import SweepRange, SweptRange, sweep_range
from regstore.gc.apply.unlink import NOTHING_UNLINKED, Unlinked
from regstore.gc.apply.unlink_repositories import UnlinkRepositories, UnlinkWork, unlink_repositories
from regstore.gc.report import GcReport
from regstore.gc.run import GcRunOptions, open_run
from regstore.state.lock import hold_lock
from regstore.storage.base import Storage
from regstore.tasks import Context
from regstore.testing.faulty import FaultyStorage, Killed

FOR_EVER = 2**60
#: Blobs of a task.
SOME = 3


class Dying:
    """A `Runner` whose processes die: each task has a storage of its own, and before or after the `die_at`th change
    made by tasks its process is gone, and another one tries again."""

    size = 2

    def __init__(self, die_at: int = 0, *, tries: int = 3, before: Callable[[str, str], Any] | None = None) -> None:
        self.die_at = die_at
        self.tries = tries
        self.before = before
        self.deaths = 0
        #: What all tasks changed, in order.
        self.mutations: list[Any] = []
        self.between: Callable[[], None] = lambda: None

    async def run(self, task: Any, work: Any, storage: Storage) -> Any:
        for attempt in range(self.tries):
            left = self.die_at - len(self.mutations)
            faulty = FaultyStorage(storage, die_at=left if left > 0 else None, when="after", before=self.before)
            context = Context(stores=(faulty,), concurrency=1, attempt=attempt)
            try:
                return pickle.loads(pickle.dumps(await task(context, pickle.loads(pickle.dumps(work)))))
            except Killed:
                self.deaths += 1
            except BaseExceptionGroup as group:
                if group.subgroup(Killed) is None:
                    raise
                self.deaths += 1
            finally:
                self.mutations += faulty.mutations
            self.between()
        raise Killed("as often as it was tried")


@dataclass
class Done:
    report: GcReport
    unlinked: Unlinked
    fates: dict[str, Fate] = field(default_factory=dict)


class TaskHands(OwnHands):
    """The repositories and the blobs go by tasks, and this process looks."""

    def __init__(self, application: Application, runner: Any, until: int) -> None:
        super().__init__(application)
        self._runner = runner
        self._until = until
        self._looks = Looks(application, Candidates(application.inventory))
        self.fates: dict[str, Fate] = {}
        self.unlinked = NOTHING_UNLINKED

    async def unlink(self) -> Unlinked:
        application, number = self._application, 0
        inventory, options = application.inventory, application.options
        of_run = UnlinkWork(
            run=application.lock.run,
            lease=application.lock.lease,
            shard=0,
            plan=options.plan,
            offline=options.offline,
            scanned_at=inventory.scanned_at,
        )
        for several in groups(inventory):
            for group in (Group([one], [name]) for one, name in zip(several.ids, several.names, strict=True)):
                going = Going(inventory, group)
                await in_thread(going.choose)
                work = UnlinkRepositories(
                    work=replace(of_run, shard=number),
                    rows=[row for rows in going.slices() for row in rows],
                    uploads=dead_uploads(inventory, group.ids),
                )
                number += 1
                result = await self._runner.run(unlink_repositories, work, application.storage)
                assert not self.fates.keys() & result.fates.keys()
                self.fates |= result.fates
                self.unlinked += result.unlinked
                for key, said in result.failures.items():
                    application.failures.add(key, said)
        return self.unlinked

    async def sweep(self) -> Swept:
        application = self._application
        await self._looks.before_blobs()
        candidates = self._looks._candidates
        position = gone = size = vanished = 0
        while batch := candidates.after(position, SOME):
            position = batch[-1].position
            some = SweepRange(
                run=application.lock.run,
                lease=application.lock.lease,
                shard=position,
                trash=application.options.trash,
                until=self._until,
                digests=[blob.raw for blob in batch],
                sizes=[blob.size for blob in batch],
                mtimes=[blob.mtime for blob in batch],
            )
            swept: SweptRange = await self._runner.run(sweep_range, some, application.storage)
            self.fates |= {blob.key: fate for blob, fate in zip(batch, swept.fates, strict=True)}
            taken = [blob for blob in batch if self.fates[blob.key] in (Fate.TAKEN, Fate.VANISHED)]
            candidates.done(batch, taken)
            gone += sum(self.fates[blob.key] is Fate.TAKEN for blob in batch)
            vanished += sum(self.fates[blob.key] is Fate.VANISHED for blob in batch)
            size += sum(blob.size for blob in taken)
        return Swept(
            blobs=gone,
            blob_bytes=size,
            vanished=vanished,
            vanished_digests=(),
            kept=self._looks.kept,
            healed=self._looks.healed,
        )


async def collect_by_tasks(storage: Storage, options: GcRunOptions, runner: Any, *, until: int = FOR_EVER) -> Done:
    made: list[TaskHands] = []

    def hands(application: Application) -> TaskHands:
        made.append(TaskHands(application, runner, until))
        return made[0]

    async with hold_lock(storage, command="gc") as lock, open_run(storage, options, lock) as run:
        assert run._begun is not None
        report = await apply_plan(run._planned, run._begun, hands)
        return Done(report, made[0].unlinked, made[0].fates)
