"""What the commands of `regstore trash` share: which run, and how it is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from regstore.cli.output import iso

if TYPE_CHECKING:
    from regstore.state.trashed import TrashedRun

Run = Annotated[
    str | None, typer.Option("--run", metavar="RUN", show_default=False, help="A run, as `trash list` names it.")
]


def run_json(run: TrashedRun) -> dict[str, Any]:
    return {
        "run": run.run,
        "command": run.command,
        "started": iso(run.started),
        "ended": iso(run.ended) if run.complete else None,
        "complete": run.complete,
        "blobs": run.blobs,
        "bytes": run.blob_bytes,
    }
