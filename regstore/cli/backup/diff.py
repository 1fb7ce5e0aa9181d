"""`regstore backup diff`: what came, went or moved between two snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from regstore.cli.backup._common import BackupSettings
from regstore.cli.command import command
from regstore.cli.outcome import Result
from regstore.cli.output import counted, emit, plain, size, warn_some
from regstore.cli.run import run_async
from regstore.errors import EXIT_OK, EXIT_PARTIAL, InputError

if TYPE_CHECKING:
    from regstore.backup import Snapshot
    from regstore.backup.compare import Difference


@command(answers=True)
def backup_diff(
    settings: BackupSettings,
    one: Annotated[str | None, typer.Argument(metavar="SNAPSHOT", show_default=False, help="From this.")] = None,
    other: Annotated[str, typer.Argument(metavar="SNAPSHOT2", help="To this.")] = "latest",
) -> Result:
    """Show the tags that came, went or moved from one snapshot to another.

    Exit codes: 0 done; 3 a newer snapshot than one of these is damaged.
    """
    if one is None:
        raise InputError("no snapshot to compare with: give BACKUP and SNAPSHOT")
    first, second, difference, damaged = run_async(_diff(settings, one, other))
    emit(f"from {first.run} to {second.run}")
    for change in difference.tags:
        name = f"{change.repository}:{change.tag}"
        if not change.before:
            emit(f"+ {name}  {change.after[:19]}")
        elif not change.after:
            emit(f"- {name}  {change.before[:19]}")
        else:
            emit(f"~ {name}  {change.before[:19]} -> {change.after[:19]}")
    emit(
        f"{counted(difference.new_blobs, 'blob')} came ({size(difference.new_bytes)}), "
        f"{difference.gone_blobs:,} went ({size(difference.gone_bytes)})"
    )
    warn_some(damaged)
    return Result(
        exit_code=EXIT_PARTIAL if damaged else EXIT_OK,
        data={"from": first.run, "to": second.run, "damaged": damaged} | plain(difference),
    )


async def _diff(settings: BackupSettings, one: str, other: str) -> tuple[Snapshot, Snapshot, Difference, list[str]]:
    from regstore.backup import choose, list_snapshots
    from regstore.backup.compare import compare
    from regstore.backup.opening import passed_over

    async with settings.open(read_only=True) as backup:
        listed = await list_snapshots(backup)
        first, second = choose(listed, one, backup.url), choose(listed, other, backup.url)
        damaged = sorted({*passed_over(listed, one, first), *passed_over(listed, other, second)})
        difference = await compare(backup, first, second, concurrency=settings.concurrency)
        return first, second, difference, damaged
