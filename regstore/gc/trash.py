"""The trash: what each run left in it, and its end.

Emptying is the one step without a way back. So, with the lock held: the registry's cache is made to forget (or was, by
a restart), the store is scanned and healed, and only then a run's copies go, and its journal after them. And not
before what went on beside the run is over: a push that found a blob before the run took it, and a delete that the run
sent and was not told the outcome of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from regstore.concurrency import wait
from regstore.errors import InputError, Refused
from regstore.events import OnEvent, Progress, ignore
from regstore.gc.caches import NoCache, RegistryCache
from regstore.gc.failures import Failures
from regstore.gc.forgetting import forget_runs
from regstore.gc.heal import Healed, heal_all
from regstore.gc.unread_needs import held_for_unread
from regstore.gc.vanished import excuse
from regstore.inventory.scan import ScanOptions, scan
from regstore.inventory.whose import Use, database_in_use, refuse_database
from regstore.state import RUNS, TRASH
from regstore.state.known_cache import KnownCache
from regstore.state.lock import Lock
from regstore.state.trashed import TrashedRun, find_trash
from regstore.storage.base import Storage

_BATCH: Final = 1000


@dataclass(frozen=True, kw_only=True)
class EmptyOptions:
    """What to empty: one run, those that ended long enough ago (microseconds), or with neither all.

    restarted_after: every registry process was started after this time (microseconds by the store's clock).
    offline: the registry is stopped or read-only.
    settle: seconds between the cache's forgetting and the last look.
    agreed: only these runs, which somebody was shown; None: all that may go.
    """

    run: str | None = None
    older_than: int | None = None
    restarted_after: int | None = None
    offline: bool = False
    settle: float = 60.0
    agreed: frozenset[str] | None = None
    scan: ScanOptions = field(default_factory=ScanOptions.default)

    def __post_init__(self) -> None:
        if self.run is not None and self.older_than is not None:
            raise InputError("--run and --older-than exclude each other")


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A run that was asked for and stays, and why."""

    run: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Emptied:
    """What went for good, and what stays. failures: the store's words."""

    runs: tuple[str, ...] = ()
    blobs: int = 0
    blob_bytes: int = 0
    kept: tuple[Kept, ...] = ()
    healed: Healed = field(default_factory=Healed)
    failures: tuple[str, ...] = ()


async def choose_runs(
    storage: Storage, options: EmptyOptions, cache: RegistryCache
) -> tuple[list[TrashedRun], list[Kept]]:
    """The runs that may be emptied, and those that were asked for and must stay.

    What gc took from a registry with a metadata database before that was known is the only copy of live blobs.

    InputError for a run that is not there, or a time that has not come. Refused where nothing may go.
    """
    refuse_database(storage.url, await database_in_use(storage), Use.REMOVE)
    now = await storage.now()
    if options.restarted_after is not None and options.restarted_after > now:
        raise InputError("--restarted-after says a time that has not come yet, by the store's clock")
    runs = await find_trash(storage)
    if options.run is not None:
        runs = [run for run in runs if run.run == options.run]
        if not runs:
            raise InputError(f"{storage.url} has no run {options.run} in its trash; see `regstore trash list`")
    elif options.older_than is not None:
        runs = [run for run in runs if run.ended <= now - options.older_than]
    known = cache.known.as_of(now)
    ready: list[TrashedRun] = []
    kept: list[Kept] = []
    young: list[Kept] = []
    for run in runs:
        restarted = known.was_restarted_after(run, options.restarted_after)
        may_go_at = run.may_go_at(quiet=options.offline or restarted)
        if not known.has_forgotten(run, options.restarted_after):
            kept.append(Kept(run=run.run, reason=f"{known.because}; to free it: {known.to_free}"))
        elif may_go_at > now:
            young.append(Kept(run=run.run, reason=_too_young(run, may_go_at)))
        else:
            ready.append(run)
    if young and not ready:
        raise Refused(f"nothing is emptied: run {young[0].run} stays: {young[0].reason}")
    if kept and not ready:
        raise _may_answer(known, len(kept), restarted=options.restarted_after is not None)
    if options.agreed is not None:
        ready = [run for run in ready if run.run in options.agreed]
    return ready, kept + young


def _too_young(run: TrashedRun, may_go_at: int) -> str:
    moment = f"{datetime.fromtimestamp(-(-may_go_at // 1_000_000), UTC):%Y-%m-%dT%H:%M:%SZ}"
    if not run.settled:
        return (
            "it was cut short, or not told the outcome of all that it deleted, which may yet take effect; it can go "
            f"from {moment} on"
        )
    return (
        "it ended less than an hour ago, and a push that began before may rely on what it took; it can go from "
        f"{moment} on, or at once with --offline where the registry is stopped or read-only"
    )


def _may_answer(known: KnownCache, runs: int, *, restarted: bool) -> Refused:
    held = f"the blobs of {runs} {'run' if runs == 1 else 'runs'}"
    if known.doubt:
        return Refused(f"nothing is emptied, {held} among it: {known.doubt}; {known.settle}")
    what = "in the registry's memory" if known.kind == "inmemory" else "not known"
    since = ", which must be later than the run's end" if restarted else ""
    return Refused(
        f"the registry's descriptor cache is {what}, and it may still answer for {held}: a push would then refer to "
        f"what is gone. Restart every registry process and say --restarted-after TIME{since}; or say --registry-cache "
        "none where there is no cache; or give the --registry-debug-url of each, which says when it was started"
    )


async def empty_trash(
    storage: Storage,
    options: EmptyOptions,
    lock: Lock,
    *,
    cache: RegistryCache | None = None,
    on_event: OnEvent = ignore,
) -> Emptied:
    """Heal the store, then delete the chosen runs' copies and journals. Cut short, the next call goes on."""
    cache = cache or NoCache("unknown")
    ready, kept = await choose_runs(storage, options, cache)
    if not ready:
        return Emptied(kept=tuple(kept))
    await lock.guard()
    if await forget_runs(storage, cache, ready):
        await wait(options.settle, "waiting for pushes that the cache misled", on_event)
    async with scan(storage, options.scan, on_event=on_event) as inventory:
        refuse_database(storage.url, inventory.database, Use.REMOVE)
        healed = await heal_all(storage, inventory, options.scan, lock, on_event)
        held = held_for_unread(inventory)
    ready, spoilt = without_damaged(ready, healed)
    ready, unread = without_held(ready, held)
    emptied = await empty_runs(storage, lock, ready, on_event=on_event)
    return replace(emptied, kept=(*kept, *spoilt, *unread), healed=healed)


def without_damaged(runs: Sequence[TrashedRun], healed: Healed) -> tuple[list[TrashedRun], list[Kept]]:
    """The runs that may go, and those that stay for a copy that is wanted and could not be given back: another read of
    it may succeed, and a push of it may be under way."""
    spoilt = {key[len(TRASH) :].partition("/")[0]: key for key in healed.damaged}
    reason = (
        "{} is wanted and was read with other bytes than its digest says; push it again, or repair it by verify"
    )
    kept = [Kept(run=run.run, reason=reason.format(spoilt[run.run])) for run in runs if run.run in spoilt]
    return [run for run in runs if run.run not in spoilt], kept


def without_held(runs: Sequence[TrashedRun], held: Mapping[str, str]) -> tuple[list[TrashedRun], list[Kept]]:
    """The same for what `held_for_unread` says."""
    kept = [Kept(run=run.run, reason=held[run.run]) for run in runs if run.run in held]
    return [run for run in runs if run.run not in held], kept


async def empty_runs(
    storage: Storage, lock: Lock, runs: Sequence[TrashedRun], *, on_event: OnEvent = ignore
) -> Emptied:
    """Delete the runs' copies, then their journals, with no look at the store: heal it first."""
    emptied: list[str] = []
    failures = Failures(storage.url)
    blobs = blob_bytes = 0

    async def delete(keys: Sequence[str]) -> set[str]:
        outcomes = await lock.delete_many(keys)
        failures.note(outcomes)
        return {key for key, error in outcomes.items() if error is None}

    total = sum(run.blobs for run in runs)
    await excuse(storage, [run.record for run in runs if run.record], lock)
    for run in runs:
        before = len(failures)
        async for page in storage.list(f"{TRASH}{run.run}/"):
            sizes = dict(zip(page.keys, page.sizes, strict=True))
            for start in range(0, len(page.keys), _BATCH):
                gone = await delete(page.keys[start : start + _BATCH])
                blobs += len(gone)
                blob_bytes += sum(sizes[key] for key in gone)
                on_event(Progress(phase="emptying the trash", done=blobs, total=total, unit="blobs"))
        if len(failures) == before:
            # What voids the journal's claims (`seen`) goes after the journal.
            parts = list(run.record.parts) if run.record else []
            if len(await delete(parts)) == len(parts):
                rest = [key async for page in storage.list(f"{RUNS}{run.run}/") for key in page.keys]
                await delete(rest)
        if len(failures) == before:
            emptied.append(run.run)
    if (await storage.capabilities()).folders:
        older_than = await storage.now() + 1
        for run in runs:
            for prefix in (f"{TRASH}{run.run}/", f"{RUNS}{run.run}/"):
                async with lock.batch():
                    await storage.remove_empty_folders(prefix, older_than=older_than)
    return Emptied(runs=tuple(emptied), blobs=blobs, blob_bytes=blob_bytes, failures=failures.lines())
