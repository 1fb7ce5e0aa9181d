"""What every command takes: how it speaks, and whom it tells of its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer


@dataclass(frozen=True, kw_only=True)
class Telling:
    """`command` adds these options to each command, last."""

    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print problems only.")] = False
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error (REGSTORE_DEBUG=1).")] = (
        False
    )
