"""A run of gc whose links and blobs go by tasks, as an engine would have it: this process holds the lock, plans, looks,
and ends the run."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from regstore.concurrency import in_thread
from regstore.gc.apply.candidates import Candidates
from regstore.gc.apply.fate import Fate
from regstore.gc.apply.finish import Outcome, finish
from regstore.gc.apply.going import Going, Group, dead_uploads, groups
from regstore.gc.apply.leftovers import forget_run, remove_folders, remove_outer_litter
from regstore.gc.apply.looks import Looks
from regstore.gc.apply.steps import _empty, _open
from regstore.gc.apply.sweep import Swept
from regstore.gc.apply.sweep_range import SweepRange, SweptRange, sweep_range
from regstore.gc.apply.unlink import Unlinked
from regstore.gc.apply.unlink_repositories import UnlinkRepositories, UnlinkWork, unlink_repositories
from regstore.gc.heal import Healed
from regstore.gc.plan import Step
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


async def collect_by_tasks(storage: Storage, options: GcRunOptions, runner: Any, *, until: int = FOR_EVER) -> Done:
    async with hold_lock(storage, command="gc") as lock, open_run(storage, options, lock) as run:
        planned, begun = run._planned, run._begun
        assert begun is not None
        application = await _open(planned, begun)
        inventory, number = application.inventory, 0
        fates: dict[str, Fate] = {}
        looks = Looks(application, Candidates(inventory))
        of_run = UnlinkWork(
            run=lock.run,
            lease=lock.lease,
            shard=0,
            plan=options.plan,
            offline=options.offline,
            scanned_at=inventory.scanned_at,
        )
        unlinked = Unlinked(
            steps=dict.fromkeys(Step, 0),
            uploads=0,
            upload_bytes=0,
            kept=0,
            kept_keys=(),
            healed=Healed(),
            tags_back=(),
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
                result = await runner.run(unlink_repositories, work, storage)
                assert not fates.keys() & result.fates.keys()
                fates |= result.fates
                unlinked += result.unlinked
                for key, said in result.failures.items():
                    application.failures.add(key, said)
        await looks.before_blobs()
        candidates = looks._candidates
        position = gone = size = vanished = 0
        while batch := candidates.after(position, SOME):
            position = batch[-1].position
            some = SweepRange(
                run=lock.run,
                lease=lock.lease,
                shard=position,
                trash=options.trash,
                until=until,
                digests=[blob.raw for blob in batch],
                sizes=[blob.size for blob in batch],
                mtimes=[blob.mtime for blob in batch],
            )
            swept: SweptRange = await runner.run(sweep_range, some, storage)
            fates |= {blob.key: fate for blob, fate in zip(batch, swept.fates, strict=True)}
            taken = [blob for blob in batch if fates[blob.key] in (Fate.TAKEN, Fate.VANISHED)]
            candidates.done(batch, taken)
            gone += sum(fates[blob.key] is Fate.TAKEN for blob in batch)
            vanished += sum(fates[blob.key] is Fate.VANISHED for blob in batch)
            size += sum(blob.size for blob in taken)
        settled = await looks.last()
        report = await finish(
            application,
            Outcome(
                healed=begun.healed,
                unlinked=unlinked,
                swept=Swept(
                    blobs=gone,
                    blob_bytes=size,
                    vanished=vanished,
                    vanished_digests=(),
                    kept=looks.kept,
                    healed=looks.healed,
                ),
                settled=settled,
                litter=await remove_outer_litter(application),
                emptied=await _empty(application, begun.healed + settled),
                folders=await remove_folders(application),
                seconds=0.0,
            ),
            planned.before,
        )
        await forget_run(application)
        return Done(report, unlinked, fates)
