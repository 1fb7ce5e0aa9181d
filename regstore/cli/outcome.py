"""What comes of a command: its result, or what ended it before; and the one object that `--json` prints of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from regstore.errors import EXIT_OK

#: Of the envelope: a new number where something goes or means something else, none where something comes.
SCHEMA: Final = 1


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a command gives back.

    data: for `--json`, as `output.emit_json` takes it: mappings, sequences, and dataclasses of ours as they are.
    numbers: for `--metrics-file`: by words in lower case such as `removed_blobs`, with the unit last.
    """

    data: Mapping[str, Any] | None = None
    exit_code: int = EXIT_OK
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What ended a command before it had a result. kind: the class in `regstore.errors`, or one of
    `Interrupted`, `OutOfMemory`, `OSError` and `Unexpected`."""

    kind: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a command ended. One of error and result is None, or both, where somebody said no."""

    exit_code: int
    error: Failure | None = None
    result: Result | None = None


def envelope(
    command: str | None,
    store: str | None,
    *,
    exit_code: int | None,
    error: Failure | None = None,
    data: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What `--json` prints. exit_code: None while the command still runs, as `serve` does."""
    return {
        "schema": SCHEMA,
        "command": command,
        "store": store,
        "exit_code": exit_code,
        "error": error,
        "result": data,
    }
