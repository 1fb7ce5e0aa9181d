"""`regstore doctor`: is a store in health?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from regstore.cli.command import command
from regstore.cli.options import CacheWords
from regstore.cli.outcome import Result
from regstore.cli.output import counted, emit, emit_problem, printable
from regstore.cli.progress import progress
from regstore.cli.registry_cache import told_cache
from regstore.cli.run import run_async
from regstore.cli.settings import StoreSettings
from regstore.cli.tables import Painted, state
from regstore.cli.whose import say_whose, whose_json
from regstore.errors import EXIT_FAILURE, EXIT_OK
from regstore.events import OnEvent

if TYPE_CHECKING:
    from regstore.verify.doctor import Examination


@command
def doctor(
    settings: StoreSettings,
    write_probe: Annotated[
        bool, typer.Option("--write-probe", help="Also try what needs a write, with a small object, deleted again.")
    ] = False,
) -> Result:
    """Take a quick look at a store's health: access, seeds, locks, runs cut short, trash, odd keys, uploads.

    Each line is ok, warn, fail or skip (not tried), with what to do. Exit code 1 when one fails. `regstore verify`
    looks deeper.
    """
    with progress() as on_event:
        url, found = run_async(_examine(settings, write_probe, on_event))
    lines, database = found.lines, found.database
    failed = sum(line.state == "fail" for line in lines)
    warned = sum(line.state == "warn" for line in lines)
    say_whose(url, database)
    for line in lines:
        say = emit if line.state == "ok" else emit_problem
        say(Painted(f"{state(str(line.state), 5)} {printable(f'{line.name}: {line.detail}')}"))
        if line.advice:
            say(f"      {line.advice}")
    untried = sum(line.state == "skip" for line in lines)
    left = f", {untried:,} not tried" if untried else ""
    emit(f"\n{url}: {counted(failed, 'failure')}, {counted(warned, 'warning')}{left}")
    checks = [
        {"name": line.name, "outcome": str(line.state), "detail": line.detail, "advice": line.advice or None}
        for line in lines
    ]
    return Result(
        exit_code=EXIT_FAILURE if failed else EXIT_OK,
        data=whose_json(database) | {"checks": checks, "failed": failed, "warnings": warned},
        numbers={"checks": len(checks), "failed_checks": failed, "warnings": warned},
    )


async def _examine(settings: StoreSettings, write_probe: bool, on_event: OnEvent) -> tuple[str, Examination]:
    from regstore.inventory.whose import database_told
    from regstore.verify.doctor import examine

    storage, config = settings.open_with_config(read_only=not write_probe)
    cache, _ = told_cache(CacheWords().of(settings), config)
    async with storage:
        told = database_told(config)
        found = await examine(storage, write_probe=write_probe, cache=cache, database=told, on_event=on_event)
        return storage.url, found
