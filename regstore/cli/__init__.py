"""The command line: the only layer that prints, and the only one that reads the environment."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """The `regstore` program. Ends the process with one of the exit codes of `regstore.errors`."""
    try:
        from regstore.cli.app import app

        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        app(prog_name="regstore")
    except KeyboardInterrupt:  # before a command began: it handles its own
        sys.exit(130)
    sys.exit(0)
