"""What a run of regstore leaves in the store beside the registry: its lock, its journal, its trash.

<root>/regstore/
  locks/<run>                     who is changing this store, and until when (`lock`)
  runs/<run>/run.json             what was asked for
  runs/<run>/<number>.jsonl.gz    every change before it was made (`journal`)
  runs/<run>/seen-<run>.jsonl.gz  links that came back by themselves: the journal's claim to them is void
  runs/<run>/done.json            what was done, once it was
  trash/<run>/<key as it was>     blobs that were taken away
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import Final

from regstore.layout import STATE

LOCKS: Final = STATE + "locks/"
RUNS: Final = STATE + "runs/"
TRASH: Final = STATE + "trash/"
_RUN: Final = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")


def new_run(now: int) -> str:
    """A name for a run, by the store's time in microseconds: sorts by time, and no two are the same."""
    moment = datetime.fromtimestamp(now / 1_000_000, UTC)
    return f"{moment:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def is_run(text: str) -> bool:
    return _RUN.fullmatch(text) is not None


def started_at(run: str) -> int:
    """When the run was named, in microseconds."""
    moment = datetime.strptime(run[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000
