"""The program for spark-submit, which takes a file: `spark-submit … "$(regstore-spark)" gc STORE --work s3a://…`.

Started with a command it is `regstore` with `--engine spark`, wherever that is an option: the same words, output and
exit codes. The `regstore-spark` program without words says where this file is.
"""

from __future__ import annotations

import sys
from typing import Final, NoReturn

#: Commands that have --engine.
_COMMANDS: Final = frozenset({"gc"})


def main() -> NoReturn:
    from regstore.cli import main as regstore

    words = sys.argv[1:]
    if not words:
        print(__file__)
        sys.exit(0)
    if words[0] in _COMMANDS and not any(word.split("=")[0] == "--engine" for word in words):
        sys.argv += ["--engine", "spark"]
    regstore()


if __name__ == "__main__":
    main()
