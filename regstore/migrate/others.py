"""Other runs at the target: gc, and whatever else removes things there, while a pass relies on what it listed.

Every such run journals what it removes before it does so. What a journal says only after the listing may be gone
although it was listed. What it said before may go later, as long as that run is at work: it holds an unexpired lock,
or is not done and wrote to its journal within a lease. A run that was cut short longer ago sends nothing more; but
what it sent may take effect late, so the blobs that a pass relies on are listed once more.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Final

from regstore import layout
from regstore.errors import NotFound
from regstore.events import Notice, OnEvent
from regstore.inventory.inventory import Inventory
from regstore.inventory.listing import list_in_parallel
from regstore.state import RUNS, is_run
from regstore.state.holder import LEASE
from regstore.state.lock import find_locks
from regstore.storage.base import Page, Storage

_LEASE: Final = int(LEASE * 1_000_000)
#: Seconds between two looks at a run that is at work, and after which a pass waits no more for it.
LOOK_AGAIN: Final = 5.0
PATIENCE: Final = 3600.0

#: Waits so many seconds.
Pause = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Others:
    """journaled: the keys of all journals. at_work: says which run is, "" where none. cut_short: one ended before it
    was done, or without an answer to all that it asked for."""

    journaled: frozenset[str]
    at_work: str
    cut_short: bool


NOBODY: Final = Others(journaled=frozenset(), at_work="", cut_short=False)


async def find_others(target: Storage, *, own: Collection[str] = ()) -> Others:
    """One LIST of the locks and one of the journals; a GET a lock, and one a run that ended within a lease. own: runs
    that are not others."""
    locks = await find_locks(target)
    runs: dict[str, dict[str, int]] = defaultdict(dict)
    async for page in target.list(RUNS):
        for key, mtime in zip(page.keys, page.mtimes, strict=True):
            run = key[len(RUNS) :].partition("/")[0]
            if run not in own:
                runs[run][key] = mtime
    journaled = frozenset(key for keys in runs.values() for key in keys)
    open_runs = {run: max(keys.values()) for run, keys in runs.items() if is_run(run) and _done(run) not in keys}
    now = await target.now() if locks or runs else 0
    at_work = [
        f"`{lock.holder.command}` of {lock.holder.user} on {lock.holder.host} (run {lock.holder.run})"
        for lock in locks
        if lock.expires >= now
    ] or [f"the run {run}" for run, written in open_runs.items() if written + _LEASE >= now]
    ended = [run for run, keys in runs.items() if keys.get(_done(run), 0) + _LEASE >= now]
    cut_short = bool(open_runs) or any([await _failed(target, run) for run in ended])
    return Others(journaled=journaled, at_work=at_work[0] if at_work else "", cut_short=cut_short)


def _done(run: str) -> str:
    return f"{RUNS}{run}/done.json"


async def _failed(target: Storage, run: str) -> bool:
    try:
        return bool(json.loads(await target.get(_done(run))).get("failures"))
    except (NotFound, ValueError, AttributeError, RecursionError):
        return True


async def is_undisturbed(
    target: Storage, before: Others, inventory: Inventory, *, concurrency: int, own: Collection[str] = ()
) -> bool:
    """Whether all that was listed after `before` was found is still there, and no run is about to take it. Reads
    `live_blob` and `migrate_blocked`."""
    after = await find_others(target, own=own)
    if before.at_work or after.at_work or after.journaled != before.journaled:
        return False
    return not after.cut_short or await _has_all_blobs(target, inventory, concurrency)


async def _has_all_blobs(target: Storage, inventory: Inventory, concurrency: int) -> bool:
    inventory.execute("create or replace temp table listed_again (key varchar)")

    async def sink(page: Page) -> None:
        inventory.insert("listed_again", {"key": ("utf8", page.keys)})

    await list_in_parallel(target, layout.BLOBS, sink, concurrency=concurrency if target.serves_in_parallel else 1)
    missing = inventory.one(
        """
        select count(*) from (select blob_key(digest) as key from live_blob anti join migrate_blocked using (digest))
        anti join listed_again using (key)
        """
    )
    inventory.execute("drop table listed_again")
    return not missing


async def wait_for_others(target: Storage, pause: Pause, on_event: OnEvent) -> str:
    """Until none is at work: "". After `PATIENCE`, which still is."""
    waited = 0.0
    while at_work := (await find_others(target)).at_work:
        if not waited:
            on_event(Notice(message=f"{at_work} is at work in {target.url}: waiting for its end to set tags"))
        if waited >= PATIENCE:
            return at_work
        await pause(LOOK_AGAIN)
        waited += LOOK_AGAIN
    return ""
