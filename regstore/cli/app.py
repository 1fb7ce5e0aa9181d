"""The `regstore` program: its commands, and what `--help` says of them all.

To add a command: a module here with a function under `@command` (`command.py`), whose first parameter is
`StoreSettings` where it works on a store, and which imports the library inside itself; and its line in `COMMANDS`.
Commands with a common first word are a group.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from regstore.cli.backup import BACKUP_COMMANDS
from regstore.cli.backup.restore import backup_restore
from regstore.cli.demo import demo
from regstore.cli.doctor import doctor
from regstore.cli.du import du
from regstore.cli.gc import gc
from regstore.cli.heal import heal
from regstore.cli.inspect import inspect
from regstore.cli.locks import locks
from regstore.cli.ls import ls
from regstore.cli.migrate import migrate
from regstore.cli.report import report
from regstore.cli.rm import rm, untag
from regstore.cli.seed_bucket import seed_bucket
from regstore.cli.serve import serve
from regstore.cli.tags import tags
from regstore.cli.trash import TRASH_COMMANDS
from regstore.cli.verify import verify

EPILOG: Final = (
    "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done, with something left out and reported; "
    "4 refused by a safety stop; 5 another run holds the lock; 6 damage found; 130 interrupted (143 by SIGTERM, 129 "
    "by SIGHUP)."
)

COMMANDS: Final = {
    "ls": ls,
    "tags": tags,
    "inspect": inspect,
    "gc": gc,
    "rm": rm,
    "untag": untag,
    "heal": heal,
    "locks": locks,
    "seed-bucket": seed_bucket,
    "migrate": migrate,
    "verify": verify,
    "restore": backup_restore,
    "du": du,
    "serve": serve,
    "report": report,
    "doctor": doctor,
    "demo": demo,
}

#: What a group's help says, and its commands.
GROUPS: Final = {
    "backup": ("Snapshots of a registry, taken while it serves, and the way back.", BACKUP_COMMANDS),
    "trash": ("What runs took away: list it, put it back, or delete it for good.", TRASH_COMMANDS),
}

_LOOK: Final[dict[str, Any]] = {
    "no_args_is_help": True,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}

app: Final = typer.Typer(
    name="regstore",
    help="The storage under a container registry: look, collect garbage, move, back up, repair, in S3 or on disk.",
    epilog=EPILOG,
    **_LOOK,
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
for _name, (_help, _group) in GROUPS.items():
    _typer = typer.Typer(help=_help, **_LOOK)
    for _word, _command in _group.items():
        _typer.command(_word)(_command)
    app.add_typer(_typer, name=_name)
