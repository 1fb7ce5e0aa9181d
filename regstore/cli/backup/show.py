"""`regstore backup show`: the tags of a snapshot, and what is new in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from regstore.cli.backup._common import BackupSettings, heading, snapshot_json
from regstore.cli.command import command
from regstore.cli.outcome import Result
from regstore.cli.output import blobs, counted, emit, moment, size, table, warn_some
from regstore.cli.run import run_async
from regstore.errors import EXIT_OK, EXIT_PARTIAL

if TYPE_CHECKING:
    from regstore.backup import Snapshot
    from regstore.backup.compare import TagShown


@command(answers=True)
def backup_show(
    settings: BackupSettings,
    snapshot: Annotated[
        str, typer.Argument(metavar="SNAPSHOT", help="An ID, the beginning of one, latest, or a time.")
    ] = "latest",
    new: Annotated[bool, typer.Option("--new", help="Only tags that the snapshot before did not have so.")] = False,
) -> Result:
    """Show a snapshot: its tags, their sizes, and what is new in it.

    Exit codes: 0 done; 3 a newer snapshot than the one shown is damaged.
    """
    chosen, tags, damaged, notes = run_async(_show(settings, snapshot))
    tags = [one for one in tags if one.new or not new]
    emit(heading(chosen))
    emit(
        f"{counted(chosen.tags, 'tag')}, {blobs(chosen.blobs, chosen.bytes)}, of these new: "
        f"{blobs(chosen.new_blobs, chosen.new_bytes)}"
    )
    emit()
    rows = [
        [f"{one.repository}:{one.tag}", one.digest[:19], size(one.size), moment(one.time), "new" if one.new else ""]
        for one in tags
    ]
    emit(table(["TAG", "DIGEST", "SIZE", "SET", ""], rows, right=(2,)))
    warn_some([str(one) for one in chosen.left_out])
    warn_some(damaged)
    warn_some(notes)
    return Result(
        exit_code=EXIT_PARTIAL if damaged else EXIT_OK,
        data=snapshot_json(chosen) | {"shown_tags": tags, "damaged": damaged, "notes": notes},
    )


async def _show(settings: BackupSettings, text: str) -> tuple[Snapshot, list[TagShown], list[str], list[str]]:
    from regstore.backup import choose, list_snapshots
    from regstore.backup.compare import show_tags
    from regstore.backup.opening import passed_over, untold

    async with settings.open(read_only=True) as backup:
        listed = await list_snapshots(backup)
        chosen = choose(listed, text, backup.url)
        earlier = [
            one
            for one in listed.snapshots
            if one.scope == chosen.scope and one.run < chosen.run and one.run not in listed.doubtful
        ]
        before = earlier[-1] if earlier else None
        shown = await show_tags(backup, chosen, before, concurrency=settings.concurrency)
        return chosen, shown, passed_over(listed, text, chosen), untold(listed, text, chosen)
