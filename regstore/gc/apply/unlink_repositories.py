"""A task: links and uploads of a few repositories go, in whatever process.

As in the run's own process (`unlink`): the repositories are listed and planned anew right before, journaled, in parts
of this attempt, deleted, and listed once more right after. What is known of their manifests is given along; a look
reads those that are new. A repository is never cut: all that goes of it is one task's.

A further attempt does all of this again with what still stands. What an earlier one was about to take, and is gone, it
took; what somebody needed of that comes back. Whatever it had asked for may yet be done, so its deletes count as
repeated, and the run as not settled.

The registry's cache is told of nothing here: whoever asks tells it of what was taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from regstore.concurrency import for_each
from regstore.errors import NotFound
from regstore.gc.apply.application import Work
from regstore.gc.apply.fate import Fate
from regstore.gc.apply.going import DeadUpload, Going, Group, Row
from regstore.gc.apply.planning_again import planning_again
from regstore.gc.apply.unlink import Unlinked, Unlinking
from regstore.gc.caches import NoCache
from regstore.gc.failures import Failures
from regstore.gc.plan import GcOptions
from regstore.inventory.inventory import Inventory
from regstore.inventory.manifests import store_manifests
from regstore.inventory.scan import ScanOptions
from regstore.inventory.tag_times import load_record
from regstore.state.journal import AttemptJournal
from regstore.state.lock_view import LockView
from regstore.tasks.manifests import ManifestRows, RememberedManifest
from regstore.tasks.runner import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlinkWork:
    """run, lease: of the lock that stands. shard: no other work of the run has it. plan: what the run was asked for.
    offline: nothing but this run changes the store. scanned_at: when the run's listing began, by the store's clock, in
    microseconds."""

    run: str
    lease: float
    shard: int
    plan: GcOptions
    offline: bool
    scanned_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlinkRepositories:
    """rows: all that the plan removes of some repositories, in the order of `going`. uploads: those that it aborts.
    manifests: what is known of those that the repositories reach; what is missing is read."""

    work: UnlinkWork
    rows: Sequence[Row]
    uploads: Sequence[DeadUpload] = ()
    manifests: Sequence[RememberedManifest] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlinkedRepositories:
    """fates: of each row's key. failures: what the store would not do, by key, uploads' too. repeated_deletes: as
    `Counters` has it, of this task; for whoever is not told of these otherwise."""

    unlinked: Unlinked
    fates: Mapping[str, Fate]
    failures: Mapping[str, str]
    repeated_deletes: int


async def unlink_repositories(context: Context, work: UnlinkRepositories) -> UnlinkedRepositories:
    """LockLost where the lock is; what was done until then, the journal says."""
    with Inventory() as inventory:
        known = ManifestRows()
        for row in work.manifests:
            known.add_remembered(row)
        store_manifests(inventory, known)
        group = _group(work)
        going = Going(inventory, group)
        going.take(work.rows)
        return await unlink_group(context, work.work, inventory, group, going, work.uploads)


async def unlink_group(
    context: Context,
    work: UnlinkWork,
    inventory: Inventory,
    group: Group,
    going: Going,
    uploads: Sequence[DeadUpload],
) -> UnlinkedRepositories:
    """The same with an inventory that holds what goes (gc_now), and what is known of manifests; of blobs and links it
    need hold none."""
    storage = context.store
    before = storage.counters.repeated_deletes
    if context.is_again:
        storage.counters.repeated_deletes += len(going) + len(uploads)
    inventory.scanned_at = work.scanned_at
    failures = _Noted(storage.url)
    journal = AttemptJournal(storage, work.run, shard=work.shard, step="unlink", attempt=context.attempt)
    apply = Work(
        storage=storage,
        inventory=inventory,
        scan=ScanOptions(concurrency=context.concurrency),
        offline=work.offline,
        blobs_listed=False,
        lock=LockView(storage, work.run, work.lease),
        journal=journal,
        cache=NoCache("unknown"),
        failures=failures,
        on_event=context.on_event,
    )
    if work.plan.policy is not None and work.plan.policy.needs_time and not work.offline:
        await load_record(storage, inventory)
    steps = {row.key: row.step for rows in going.slices() for row in rows}
    fates = dict.fromkeys(steps, Fate.KEPT)
    written = await journal.written_before() if context.is_again else []
    unlinking = Unlinking(apply, planning_again(apply, work.plan), fates=fates, before=written)
    await unlinking.unlink(group, going, uploads)
    unlinked = unlinking.unlinked()
    if written:
        taken = await _gone(context, [entry.key for entry in written if fates.get(entry.key) is Fate.KEPT])
        fates |= dict.fromkeys(taken, Fate.TAKEN)
        of_step = Counter(steps[key] for key in taken)
        unlinked = replace(
            unlinked,
            steps={step: number + of_step[step] for step, number in unlinked.steps.items()},
            kept=max(0, unlinked.kept - len(taken)),
            kept_keys=tuple(key for key in unlinked.kept_keys if key not in taken),
        )
    return UnlinkedRepositories(
        unlinked=unlinked,
        fates=fates,
        failures=failures.said,
        repeated_deletes=storage.counters.repeated_deletes - before,
    )


async def _gone(context: Context, keys: Iterable[str]) -> set[str]:
    """Those of the keys that are not there."""
    gone: set[str] = set()

    async def ask(key: str) -> None:
        try:
            await context.store.stat(key)
        except NotFound:
            gone.add(key)

    await for_each(set(keys), ask, concurrency=context.concurrency)
    return gone


class _Noted(Failures):
    """said: by key."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.said: dict[str, str] = {}

    def add(self, key: str, said: object) -> None:
        super().add(key, said)
        self.said[key] = str(said)


def _group(work: UnlinkRepositories) -> Group:
    names = sorted({row.repository for row in work.rows} | {upload.repository for upload in work.uploads})
    return Group(range(1, len(names) + 1), names)
