"""`--metrics-file`: what came of a run, for the textfile collector of Prometheus' node exporter.

Written at the run's end, whole or not at all. Of every command, with its name and store as labels, and a
job's name (`regstore run`):

    regstore_run_exit_code                     as the README has them
    regstore_run_start_time_seconds            since 1970
    regstore_run_duration_seconds
    regstore_run_last_success_time_seconds     when the last run with exit code 0 ended, also of runs before, whose
                                               file this one replaces; none where there was none

and of some their own numbers, such as regstore_gc_removed_blob_bytes; they are missing where a run failed.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from regstore.words import printable

_SUCCESS: Final = "regstore_run_last_success_time_seconds"
_HELP: Final = {
    "regstore_run_exit_code": "Exit code of the last run.",
    "regstore_run_start_time_seconds": "When the last run began, in seconds since 1970.",
    "regstore_run_duration_seconds": "How long the last run took.",
    _SUCCESS: "When the last run with exit code 0 ended, in seconds since 1970.",
}


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A run that has ended. began, ended: seconds since 1970. numbers: of `outcome.Result`."""

    command: str
    store: str
    job: str = ""
    exit_code: int
    began: float
    ended: float
    numbers: Mapping[str, float] = field(default_factory=dict)


def exposition(ran: Ran, before: str = "") -> str:
    """The file's text. before: what stood in it."""
    which = f'command="{_escaped(ran.command)}",store="{_escaped(ran.store)}"'
    labels = f'{{{which},job="{_escaped(ran.job)}"}}' if ran.job else f"{{{which}}}"
    values: dict[str, float | None] = {
        "regstore_run_exit_code": ran.exit_code,
        "regstore_run_start_time_seconds": round(ran.began, 3),
        "regstore_run_duration_seconds": round(ran.ended - ran.began, 3),
        _SUCCESS: round(ran.ended, 3) if ran.exit_code == 0 else _last_success(before, labels),
    }
    own = re.sub(r"[^a-z0-9]+", "_", ran.command.lower()) or "none"
    values |= {f"regstore_{own}_{name}": number for name, number in ran.numbers.items()}
    lines = []
    for name, value in values.items():
        if value is not None:
            words = name.removeprefix(f"regstore_{own}_").replace("_", " ")
            lines.append(f"# HELP {name} {_HELP.get(name) or f'Of the last run of {ran.command}: {words}.'}")
            lines += [f"# TYPE {name} gauge", f"{name}{labels} {value!r}"]
    return "".join(f"{line}\n" for line in lines)


def write_metrics(path: Path, ran: Ran) -> None:
    """OSError where it can't be written. Readable for the exporter, which is another user."""
    try:
        before = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        before = ""
    # Only *.prom is read, so never this one.
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    beside = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(exposition(ran, before))
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _last_success(before: str, labels: str) -> float | None:
    for line in before.splitlines():
        if line.startswith(f"{_SUCCESS}{labels} "):
            try:
                return float(line.rpartition(" ")[2])
            except ValueError:
                return None
    return None


def _escaped(text: str) -> str:
    """As the value of a label."""
    return printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", " ")
