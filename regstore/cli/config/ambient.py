"""Which options the environment, and the sections of a file that are about any run, may say.

Such a word is ambient: it was said some time, for whatever runs there, and nobody who starts a run sees it. So it may
say how a run works and what it shows, and may make it more careful; what a run is about, what goes, and what it goes on
in spite of, is said where the run is named: on the command line, or in a step of a job. An option that is not on
these lists is not ambient, so a new one is not before somebody thought about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import typer

from regstore.cli.config.look import Look
from regstore.errors import InputError

#: Of all commands that have them, also without the command's name: `REGSTORE_REGION`, `[options] region`.
SHARED: Final = frozenset(
    {
        "cache_dir",
        "ca_bundle",
        "concurrency",
        "debug",
        "endpoint_url",
        "json",
        "log_format",
        "metrics_file",
        "path_style",
        "ping_url",
        "profile",
        "quiet",
        "region",
        "verbose",
        "workers",
    }
)
#: How the run works, and what it shows. Not how what it writes is kept (an ACL may show it to all, a storage class put
#: it out of reach), and not what makes a verification read less.
OPEN: Final = SHARED | {
    "dry_run",
    "dst_ca_bundle",
    "dst_endpoint_url",
    "dst_path_style",
    "dst_profile",
    "dst_region",
    "htpasswd",
    "inventory",
    "limit",
    "listen",
    "long",
    "new",
    "older_than",
    "read_data",
    "redirect",
    "refresh",
    "registry_url",
    "server_side",
    "sort",
    "tls_cert",
    "tls_key",
    "verify",
    "verify_existing",
}
#: Never less than where nobody says anything.
AT_LEAST: Final = frozenset({"grace", "settle", "trash_days", "uploads_older_than"})
#: Never more.
AT_MOST: Final = frozenset({"max_delete", "max_lost"})
#: Only these words.
CHOICES: Final[Mapping[str, frozenset[str]]] = {"server_checksums": frozenset({"ignore", "report"})}
#: Not in a job either: true at one moment, which whoever says it has looked at.
ONCE: Final = frozenset({"allow_empty", "break_lock", "restarted_after"})
#: What tells of a run's end, and so of one run: a monitor of the night must not hear of every `ls`. The environment may
#: say it, which is of who starts the run; of a file only a job. The steps of a job don't take it from anywhere.
OF_THE_END: Final = frozenset({"metrics_file", "ping_url"})
NOT_OF_ALL: Final = (
    "is of one run, and would be of all that anybody starts: say it in a job, or where the run is started"
)
#: Read where it is needed, with a meaning of its own: anything but nothing is yes.
ELSEWHERE: Final = frozenset({"debug"})

_ELSE: Final = ": say it on the command line, or in a step of a job"


def is_ambient(word: str) -> bool:
    return word in OPEN or word in AT_LEAST or word in AT_MOST or word in CHOICES


def refuse_unless_careful(look: Look, value: Any, where: str) -> None:
    """InputError where this option, or this value of it, is only for command lines and jobs. where: who said it."""
    if look.word in OPEN:
        return
    if look.word in CHOICES:
        if value in CHOICES[look.word]:
            return
        raise InputError(
            f"{where}: only {' or '.join(sorted(CHOICES[look.word]))} may be said here, not {value}{_ELSE}"
        )
    if look.word not in AT_LEAST | AT_MOST:
        raise InputError(
            f"{where}: {look.shown} says what a run is about, what goes, or what it goes on in spite of{_ELSE}"
        )
    said, usual = _measure(look, value), _measure(look, look.default)
    if said is None:
        raise InputError(f"{where}: {value} is no value of {look.shown}")
    if usual is None:
        return
    if (said < usual) if look.word in AT_LEAST else (said > usual):
        raise InputError(f"{where}: {value} is less careful than {look.default}, which holds otherwise{_ELSE}")


def _measure(look: Look, value: Any) -> float | None:
    try:
        return float(look.parse(value) if look.parse is not None and isinstance(value, str) else value)
    except (TypeError, ValueError, typer.BadParameter):
        return None
