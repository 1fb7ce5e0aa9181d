"""`regstore report`: space, garbage and health as one file."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from regstore.cli.command import command
from regstore.cli.outcome import Result
from regstore.cli.output import emit, size
from regstore.cli.progress import progress
from regstore.cli.run import run_async
from regstore.cli.settings import StoreSettings
from regstore.cli.whole import write_whole
from regstore.errors import InputError, RegstoreError
from regstore.events import OnEvent


@command
def report(
    settings: StoreSettings,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", show_default=False, help="Where to write it; replaced if there.")
    ] = None,
    snapshot: Annotated[
        str, typer.Option(metavar="ID|latest|TIME", show_default=False, help="Of a backup: of this snapshot.")
    ] = "",
) -> Result:
    """Write the pages of space, garbage and health as one HTML file, to send to those who own the images.

    It needs no server, runs no script and fetches nothing. Nothing is written into the store.
    """
    if html is None:
        raise InputError("no file: say where to write the report with --html FILE")
    if find_spec("jinja2") is None:
        raise InputError("a report needs a package more: pip install 'regstore[serve]'")
    with progress() as on_event:
        text = run_async(_make(settings, snapshot, on_event))
    _write(html, text)
    written = len(text.encode())
    emit(f"{html}: {size(written)}")
    return Result(data={"file": html, "size": written})


async def _make(settings: StoreSettings, snapshot: str, on_event: OnEvent) -> str:
    from regstore.inventory.scan import ScanOptions
    from regstore.serve.mounts import StoreMount, open_mounts
    from regstore.serve.report import make_report

    async with settings.open(read_only=True) as storage:
        mounts = await open_mounts(storage, snapshot)
        if not isinstance(mounts, StoreMount):
            raise InputError(f"{storage.url} is a backup: say of which snapshot, such as --snapshot latest")
        return await make_report(mounts.registry.storage, ScanOptions.default(), on_event=on_event)


def _write(path: Path, text: str) -> None:
    """Whole or not at all; for this user alone, until he gives it to others."""
    try:
        write_whole(path, text, mode=0o600)
    except OSError as error:
        raise RegstoreError(f"the report can't be written to {path}: {error.strerror or error}") from error
