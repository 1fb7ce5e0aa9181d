"""`--metrics-file`: what came of a run, for the textfile collector of Prometheus' node exporter.

Written at the run's end, whole or not at all. Of every command, with its name and store as labels, and a
job's name (`regstore run`):

    regstore_run_exit_code                     as the README has them
    regstore_run_start_time_seconds            since 1970
    regstore_run_duration_seconds
    regstore_run_last_success_time_seconds     when the last run with exit code 0 ended, also of runs before, whose
                                               file this one replaces; none where there was none

and of some their own numbers, such as regstore_gc_removed_blob_bytes; they are missing where a run failed. A
job's file has all this of each of its steps, too.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from regstore.cli.whole import write_whole
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


def exposition(ran: Ran) -> str:
    """What is told of this run alone."""
    which = f'command="{_escaped(ran.command)}",store="{_escaped(ran.store)}"'
    labels = f'{{{which},job="{_escaped(ran.job)}"}}' if ran.job else f"{{{which}}}"
    values: dict[str, float] = {
        "regstore_run_exit_code": ran.exit_code,
        "regstore_run_start_time_seconds": round(ran.began, 3),
        "regstore_run_duration_seconds": round(ran.ended - ran.began, 3),
    }
    if ran.exit_code == 0:
        values[_SUCCESS] = round(ran.ended, 3)
    own = re.sub(r"[^a-z0-9]+", "_", ran.command.lower()) or "none"
    values |= {f"regstore_{own}_{name}": number for name, number in ran.numbers.items()}
    lines = []
    for name, value in values.items():
        words = name.removeprefix(f"regstore_{own}_").replace("_", " ")
        lines.append(f"# HELP {name} {_HELP.get(name) or f'Of the last run of {ran.command}: {words}.'}")
        lines += [f"# TYPE {name} gauge", f"{name}{labels} {value!r}"]
    return "".join(f"{line}\n" for line in lines)


def merged(texts: Sequence[str], before: str = "") -> str:
    """Several expositions as one, as each metric may stand in a file once: the last counts where two tell the same.
    before: the file that this replaces, for when those last succeeded that are told of here and did not."""
    heads: dict[str, list[str]] = {}
    values: dict[str, dict[str, str]] = {}
    for text in texts:
        _add(text, heads, values)
    told = set(values.get("regstore_run_exit_code", ()))
    succeeded = values.setdefault(_SUCCESS, {})
    for line in before.splitlines():
        name, labels, value = _parts(line)
        if name == _SUCCESS and labels in told - succeeded.keys() and re.fullmatch(r"[0-9.]+", value):
            succeeded[labels] = value
    heads[_SUCCESS] = [f"# HELP {_SUCCESS} {_HELP[_SUCCESS]}", f"# TYPE {_SUCCESS} gauge"]
    lines = []
    for name, samples in values.items():
        if samples:
            lines += [*heads[name], *(f"{name}{labels} {value}" for labels, value in samples.items())]
    return "".join(f"{line}\n" for line in lines)


def _add(text: str, heads: dict[str, list[str]], values: dict[str, dict[str, str]]) -> None:
    head: list[str] = []
    for line in text.splitlines():
        if line.startswith("#"):
            head.append(line)
            continue
        name, labels, value = _parts(line)
        heads.setdefault(name, head)
        samples = values.setdefault(name, {})
        samples.pop(labels, None)
        samples[labels] = value
        head = []


def _parts(line: str) -> tuple[str, str, str]:
    """Name, labels and value of a line as `exposition` writes it."""
    head, _, value = line.rpartition(" ")
    name, brace, labels = head.partition("{")
    return name, brace + labels, value


def write_metrics(path: Path, ran: Ran, steps: Sequence[str] = ()) -> None:
    """OSError where it can't be written. Readable for the exporter, which is another user. steps: of a job, what they
    told."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no plain file")  # root would put one in the place of /dev/null
    try:
        before = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        before = ""
    write_whole(path, merged([*steps, exposition(ran)], before), mode=0o644)  # the exporter reads *.prom, not .tmp


def _escaped(text: str) -> str:
    """As the value of a label."""
    return printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", " ")
