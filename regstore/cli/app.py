"""The `regstore` program: its commands, and what `--help` says of them all.

To add a command: a module here with a function under `@store_command` (or `@guarded`, without a store), which
imports the library inside itself, and its line in `COMMANDS`.
"""

from __future__ import annotations

from typing import Annotated, Final

import typer

from regstore.cli.demo import demo
from regstore.cli.gc import gc
from regstore.cli.inspect import inspect
from regstore.cli.ls import ls
from regstore.cli.migrate import migrate
from regstore.cli.seed_bucket import seed_bucket
from regstore.cli.tags import tags
from regstore.cli.verify import verify

EPILOG: Final = (
    "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done, with something left out and reported; "
    "4 refused by a safety stop; 5 another run holds the lock; 6 damage found; 130 interrupted (143 by SIGTERM)."
)

COMMANDS: Final = {
    "ls": ls,
    "tags": tags,
    "inspect": inspect,
    "gc": gc,
    "seed-bucket": seed_bucket,
    "migrate": migrate,
    "verify": verify,
    "demo": demo,
}

app: Final = typer.Typer(
    name="regstore",
    help="The storage under a container registry: look, collect garbage, seed, directly in S3 or on disk.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from regstore import __version__

        typer.echo(f"regstore {__version__}")
        raise typer.Exit


@app.callback()
def _regstore(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
