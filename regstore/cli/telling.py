"""What every command takes: how it speaks, and whom it tells of its end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from regstore.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Telling:
    """`command` adds these options to each command, last."""

    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print problems only.")] = False
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on standard error, and sooner.")] = (
        False
    )
    log_format: Annotated[
        str,
        typer.Option(
            metavar="text|json", help="Of standard error: lines for people, or events, a JSON object a line."
        ),
    ] = "text"
    metrics_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Write metrics of the run here, for the node exporter (*.prom).",
        ),
    ] = None
    ping_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            show_default=False,
            help="Ask for URL/start, then for URL, or URL/EXITCODE where that is not 0, as healthchecks.io has it.",
        ),
    ] = None
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error (REGSTORE_DEBUG=1).")] = (
        False
    )

    def check(self) -> None:
        """InputError where they can't be done."""
        if self.log_format not in ("text", "json"):
            raise InputError(f"--log-format is text or json, not {self.log_format}")
        if self.ping_url is not None:
            from regstore.cli.ping import parse_ping_url

            parse_ping_url(self.ping_url)
