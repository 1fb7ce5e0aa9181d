"""`regstore backup list`: the snapshots of a backup."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regstore.cli.backup._common import BackupSettings, snapshot_json
from regstore.cli.command import command
from regstore.cli.outcome import Result
from regstore.cli.output import count, emit, emit_note, moment, size, table, warn_some
from regstore.cli.run import run_async
from regstore.errors import EXIT_DAMAGE, EXIT_OK

if TYPE_CHECKING:
    from regstore.backup.opening import Listed


@command(answers=True)
def backup_list(settings: BackupSettings) -> Result:
    """List the snapshots, oldest first."""
    from regstore.backup.opening import place_text

    url, listed = run_async(_list(settings))
    snapshots, damaged, doubtful = listed.snapshots, listed.damaged, listed.doubtful
    if snapshots:
        rows = [
            [
                one.run,
                moment(one.begun),
                count(len(one.repositories)),
                count(one.tags),
                size(one.bytes),
                size(one.new_bytes),
                count(len(one.left_out)),
                place_text(one)
                if len({other.place for other in snapshots if other.source == one.source}) > 1
                else one.source,
            ]
            for one in snapshots
        ]
        headings = ["SNAPSHOT", "TIME", "REPOSITORIES", "TAGS", "SIZE", "NEW", "LEFT OUT", "SOURCE"]
        emit(table(headings, rows, right=(2, 3, 4, 5, 6)))
    else:
        emit_note(f"{url} has no snapshot yet")
    warn_some([f"{key}: {why}" for key, why in sorted(damaged.items())])
    warn_some([f"{run} {why}" for run, why in sorted(doubtful.items())])
    return Result(
        exit_code=EXIT_DAMAGE if damaged else EXIT_OK,
        data={"snapshots": list(map(snapshot_json, snapshots)), "damaged": damaged, "doubtful": doubtful},
        numbers={"snapshots": len(snapshots), "damaged_snapshots": len(damaged)},
    )


async def _list(settings: BackupSettings) -> tuple[str, Listed]:
    from regstore.backup import list_snapshots

    async with settings.open(read_only=True) as backup:
        return backup.url, await list_snapshots(backup)
