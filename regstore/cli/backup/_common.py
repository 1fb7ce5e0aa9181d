"""What the commands of `regstore backup` share: where a backup is, and how a snapshot is shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regstore.cli.config.complete import store_names
from regstore.cli.output import iso, moment, printable
from regstore.cli.settings import StoreSettings
from regstore.errors import InputError

if TYPE_CHECKING:
    from regstore.backup import Snapshot
    from regstore.storage.base import Storage
    from regstore.storage.registry_config import RegistryConfig


@dataclass(frozen=True, kw_only=True)
class BackupSettings(StoreSettings):
    """A backup's place. The first group of every command on a backup."""

    store: Annotated[
        str | None,
        typer.Argument(
            metavar="BACKUP",
            autocompletion=store_names,
            show_default=False,
            help="Where the backup is: s3://bucket[/prefix], a folder, or a name in regstore.toml.",
        ),
    ] = None
    registry_config: Annotated[Path | None, typer.Option("--registry-config", hidden=True)] = None

    def open_with_config(self, *, read_only: bool = False) -> tuple[Storage, RegistryConfig | None]:
        """All that is written in it is private; no registry's configuration says where it is."""
        from regstore.storage.optional import keep_private

        placed = self.placed()
        if placed.registry_config is not None:
            raise InputError("--registry-config names a registry's store, not a backup")
        if placed.store is None:
            raise InputError("no backup: give s3://bucket[/prefix] or a folder")
        storage, _ = placed._open(read_only=read_only)
        keep_private(storage)
        return storage, None


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
        "time": iso(snapshot.begun),
        "source": snapshot.source,
        "place": snapshot.place,
        "repository_patterns": list(snapshot.repository_patterns),
        "tag_patterns": list(snapshot.tag_patterns),
        "repositories": dict(snapshot.repositories),
        "tags": snapshot.tags,
        "blobs": snapshot.blobs,
        "bytes": snapshot.bytes,
        "new_blobs": snapshot.new_blobs,
        "new_bytes": snapshot.new_bytes,
        "left_out": list(snapshot.left_out),
    }
