"""What the commands of `regstore backup` share: where a backup is, and how a snapshot is shown."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regstore.cli.output import emit_error, moment, printable, some
from regstore.cli.settings import StoreSettings, store_command
from regstore.errors import InputError

if TYPE_CHECKING:
    from regstore.backup import Snapshot
    from regstore.storage.base import Storage


def backup_command(command: Callable[..., int | None]) -> Callable[..., None]:
    """A store_command whose first argument is BACKUP."""
    run = store_command(command)
    signature: inspect.Signature = run.__signature__  # type: ignore[attr-defined]
    parameters = []
    for parameter in signature.parameters.values():
        if parameter.name == "store":
            argument = typer.Argument(
                metavar="BACKUP", show_default=False, help="Where the backup is: s3://bucket[/prefix] or a folder."
            )
            parameter = parameter.replace(annotation=Annotated[str | None, argument])
        elif parameter.name == "registry_config":
            option = typer.Option("--registry-config", hidden=True)
            parameter = parameter.replace(annotation=Annotated[Path | None, option])
        parameters.append(parameter)
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def open_backup(settings: StoreSettings, *, read_only: bool = False) -> Storage:
    """The backup's storage, in which all that is written is private. Use it as an async context manager."""
    from regstore.storage.base import keep_private

    if settings.registry_config is not None:
        raise InputError("--registry-config names a registry's store, not a backup")
    if settings.store is None:
        raise InputError("no backup: give s3://bucket[/prefix] or a folder")
    storage = settings.open(read_only=read_only)
    keep_private(storage)
    return storage


def print_some(lines: list[str]) -> None:
    """As warnings: the first, and how many more."""
    for line in some(lines, "… and {} more (--json names them all)"):
        emit_error(printable(line))


def named(snapshot: Snapshot) -> str:
    """Which snapshot, by its run and by what it holds."""
    from regstore.backup.opening import scope_text

    return f"snapshot {snapshot.run} of {printable(scope_text(snapshot))}"


def heading(snapshot: Snapshot) -> str:
    """Which snapshot, and of when."""
    return f"{named(snapshot)}, begun {moment(snapshot.begun)}"


def snapshot_json(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "id": snapshot.run,
        "time": moment(snapshot.begun),
        "source": snapshot.source,
        "place": snapshot.place,
        "repository_patterns": list(snapshot.repository_patterns),
        "tag_patterns": list(snapshot.tag_patterns),
        "repositories": {name: asdict(known) for name, known in snapshot.repositories.items()},
        "tags": snapshot.tags,
        "blobs": snapshot.blobs,
        "bytes": snapshot.bytes,
        "new_blobs": snapshot.new_blobs,
        "new_bytes": snapshot.new_bytes,
        "left_out": [asdict(one) for one in snapshot.left_out],
    }
