"""The program as a whole: a command line that can't be understood is told as every other failure is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

import typer

from regstore.cli.conduct import refuse_usage
from regstore.cli.helping import Grouped
from regstore.errors import EXIT_FAILURE

#: Click's, which typer has for itself.
_ClickException: Final[type[Any]] = typer.BadParameter.__mro__[2]


class Program(Grouped):
    """The group of all commands."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Ends the process, or, where it is not to, gives the exit code."""
        words = sys.argv[1:] if args is None else list(args)
        try:
            code = super().main(words, prog_name, complete_var, False, windows_expand_args, **extra)
        except _ClickException as error:
            refuse_usage(error, words)
            code = error.exit_code
        except typer.Abort:
            code = EXIT_FAILURE
        if standalone_mode:
            sys.exit(code if isinstance(code, int) else 0)
        return code
