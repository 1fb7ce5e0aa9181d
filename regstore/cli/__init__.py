"""The command line: the only layer that prints, and the only one that reads the environment."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from regstore.machine import collect_seldom


def main() -> NoReturn:
    """The `regstore` program. Ends the process with one of the exit codes of `regstore.errors`."""
    _open_closed_streams()
    collect_seldom()
    try:
        from regstore.cli.completing import prepare

        prepare()
        from regstore.cli.app import app

        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        app(prog_name="regstore")
    except KeyboardInterrupt:  # before a command began: it handles its own
        sys.exit(130)
    except OSError as error:  # help that can't be printed: a command explains its own errors
        from regstore.cli.run import give_up

        sys.exit(give_up(error))
    sys.exit(0)


def _open_closed_streams() -> None:
    """Where the caller has closed stdin, stdout or stderr, nothing is read or written: neither by us nor, as the
    lowest descriptor is taken first, into a file that would be opened in its place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115
