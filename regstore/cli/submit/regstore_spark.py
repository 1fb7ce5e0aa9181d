"""The program for spark-submit, which takes a file: `spark-submit … "$(regstore-spark)" gc STORE --work s3a://…`.

Started with a command it is `regstore` with `--engine spark`, wherever that is an option: the same words, output and
exit codes. The `regstore-spark` program without words says where this file is.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final, NoReturn

#: How spark-submit tells where its JVM listens.
_STARTED_BY: Final = "PYSPARK_GATEWAY_PORT"
#: Commands that have --engine.
_COMMANDS: Final = frozenset({"gc", "migrate", "verify"})


def main() -> NoReturn:
    from regstore.cli import main as regstore

    words = sys.argv[1:]
    if not words:
        print(Path(__file__).absolute())
        sys.exit(0)
    if _STARTED_BY in os.environ:
        _part_stderr()
    if words[0] in _COMMANDS and not any(word.split("=")[0] == "--engine" for word in words):
        sys.argv += ["--engine", "spark"]
    regstore()


def _part_stderr() -> None:
    """spark-submit puts both streams of what it starts into its own standard output: what is no answer goes to its
    standard error, where that can be reached."""
    try:
        stream = os.open(f"/proc/{os.getppid()}/fd/{sys.stderr.fileno()}", os.O_WRONLY | os.O_APPEND)
    except OSError:
        return
    os.dup2(stream, sys.stderr.fileno())
    os.close(stream)


if __name__ == "__main__":
    main()
