"""`regstore heal`: put back what is referenced again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regstore.cli.command import command
from regstore.cli.healed import print_damaged
from regstore.cli.locks import hold_lock_openly
from regstore.cli.options import CacheWords, DryRun, Scanning
from regstore.cli.outcome import Result
from regstore.cli.output import counted, emit
from regstore.cli.progress import progress
from regstore.cli.registry_cache import CacheOptions, open_cache, remember_cache
from regstore.cli.run import run_async
from regstore.cli.settings import StoreSettings
from regstore.cli.whose import database_of, say_whose, whose_json
from regstore.errors import EXIT_OK, EXIT_PARTIAL
from regstore.events import OnEvent

if TYPE_CHECKING:
    from regstore.gc.heal import Healed, HealOptions


@command
def heal(
    settings: StoreSettings,
    *,
    cache: CacheWords,
    dry_run: DryRun = False,
    scanning: Scanning,
) -> Result:
    """Put back from the trash what is referenced again, with the links that went with it; gc does this, too.

    Nothing that stands is written over, and the trash keeps its copies. A copy that has rotted is reported, and not put
    back.
    """
    from regstore.gc.heal import HealOptions

    options = HealOptions(scan=scanning.of(settings))
    with progress() as on_event:
        url, database, healed = run_async(_heal(settings, options, cache.of(settings), dry_run, on_event))
    say_whose(url, database)
    for one in (*healed.blobs, *healed.links):
        emit(one)
    found = f"{counted(len(healed.blobs), 'blob')}, {counted(len(healed.links), 'link')}"
    if not healed.nothing:
        emit(f"{url}: {'would come back' if dry_run else 'given back'}: {found}")
    elif not healed.damaged:
        emit(f"{url}: nothing that is referenced is missing and in the trash")
    print_damaged(healed)
    done = {"blobs": list(healed.blobs), "links": list(healed.links), "damaged": list(healed.damaged)}
    return Result(
        exit_code=EXIT_PARTIAL if healed.damaged else EXIT_OK,
        data=whose_json(database) | {"plan": done if dry_run else None, "report": None if dry_run else done},
        numbers={"blobs": len(healed.blobs), "links": len(healed.links), "damaged": len(healed.damaged)},
    )


async def _heal(
    settings: StoreSettings,
    options: HealOptions,
    told: CacheOptions,
    dry_run: bool,
    on_event: OnEvent,
) -> tuple[str, str, Healed]:
    from regstore.gc.heal import heal_store, plan_heal

    storage, config = settings.open_with_config(read_only=dry_run)
    async with storage:
        database = await database_of(storage, config)
        if dry_run:
            return storage.url, database, await plan_heal(storage, options, on_event=on_event)
        async with open_cache(storage, told, config) as cache, hold_lock_openly(storage, command="heal") as lock:
            await remember_cache(storage, cache.known)
            healed = await heal_store(storage, options, lock, cache=cache, on_event=on_event)
            return storage.url, database, healed
