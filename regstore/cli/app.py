"""The `regstore` program: its commands, and what `--help` says of them all.

To add a command: a module here with a function under `@command` (`command.py`), whose first parameter is
`StoreSettings` where it works on a store, and which imports the library inside itself; and its entry in `COMMANDS`,
which says where it is and has the first sentence of its docstring: it is imported when it runs (`later.py`). Commands
with a common first word are a group.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from regstore.cli.backup import BACKUP_COMMANDS
from regstore.cli.config import CONFIG_COMMANDS
from regstore.cli.later import Later
from regstore.cli.program import Program
from regstore.cli.trash import TRASH_COMMANDS

EPILOG: Final = (
    "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done, with something left out and reported; "
    "4 refused by a safety stop; 5 another run holds the lock; 6 damage found; 130 interrupted (143 by SIGTERM, 129 "
    "by SIGHUP)."
)

#: Name, place, and what `regstore --help` says of each.
COMMANDS: Final = {
    "ls": Later("regstore.cli.ls:ls", "List the repositories of a store."),
    "tags": Later(
        "regstore.cli.tags:tags",
        "List the tags of a repository: digest, kind, size, platforms, referrers.",
    ),
    "inspect": Later(
        "regstore.cli.inspect:inspect",
        "Show a repository, or a manifest of it with its layers, platforms and referrers.",
    ),
    "gc": Later(
        "regstore.cli.gc:gc",
        "Remove what nothing refers to any more: blobs, links, untagged manifests, abandoned uploads.",
    ),
    "rm": Later(
        "regstore.cli.rm:rm",
        "Remove tags, images or repositories by name, and nothing else; `regstore trash restore` undoes it.",
    ),
    "tag": Later("regstore.cli.tag:tag", "Set a tag on an image that the repository has, as a push would."),
    "untag": Later("regstore.cli.rm:untag", "Remove tags and nothing else; the images stay, untagged."),
    "heal": Later(
        "regstore.cli.heal:heal",
        "Put back from the trash what is referenced again, with the links that went with it; gc does this, too.",
    ),
    "locks": Later(
        "regstore.cli.locks:locks",
        "List the locks of a store: run, command, holder, and when each expires unless it is renewed.",
    ),
    "init": Later(
        "regstore.cli.init:init",
        "Write a whole private registry into a folder: configuration, certificates, users, units; and seed its store.",
    ),
    "seed-bucket": Later(
        "regstore.cli.seed_bucket:seed_bucket",
        "Make a bucket or a folder a healthy, empty registry store, and check it.",
    ),
    "migrate": Later(
        "regstore.cli.migrate:migrate",
        "Copy a registry's store: disk to S3, bucket to bucket, S3 to disk.",
    ),
    "verify": Later(
        "regstore.cli.verify:verify",
        "Verify a store: links, tags down to their last layer, sizes, manifests and, where asked, every byte.",
    ),
    "restore": Later(
        "regstore.cli.backup.restore:backup_restore",
        "Restore a snapshot into STORE, which may be empty, in use or, with --create, missing.",
    ),
    "export": Later(
        "regstore.cli.export_layout:export_layout",
        "Write images as an OCI image layout, which skopeo, umoci, podman and `regstore import` read.",
    ),
    "import": Later(
        "regstore.cli.import_layout:import_layout",
        "Bring images of an OCI image layout into a store, under the names that the layout has, or that are given.",
    ),
    "du": Later(
        "regstore.cli.du:du",
        "Show the bytes of blobs by repository: its own, shared with others, and those that nothing refers to.",
    ),
    "serve": Later(
        "regstore.cli.serve:serve",
        "Serve a store or a backup as a read-only registry with pages to look at, until interrupted.",
    ),
    "report": Later(
        "regstore.cli.report:report",
        "Write the pages of space, garbage and health as one HTML file, to send to those who own the images.",
    ),
    "run": Later(
        "regstore.cli.job:run_job",
        "Run a job of the configuration: its commands in order, with one summary and one exit code.",
    ),
    "schema": Later(
        "regstore.cli.schema:schema",
        "Print the JSON Schema of what commands print with --json, of all or of one.",
    ),
    "doctor": Later(
        "regstore.cli.doctor:doctor",
        "Take a quick look at a store's health: access, seeds, locks, runs cut short, trash, odd keys, uploads.",
    ),
    "demo": Later(
        "regstore.cli.demo:demo",
        "Build a small registry in a temporary folder, and walk through it: look, clean up, undo, back up, repair.",
    ),
}

#: What a group's help says, and its commands.
GROUPS: Final = {
    "backup": ("Snapshots of a registry, taken while it serves, and the way back.", BACKUP_COMMANDS),
    "config": ("The configuration: what says what, and whether it is right.", CONFIG_COMMANDS),
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
    cls=Program,
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
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            show_default=False,
            help="Stores, options and jobs (REGSTORE_CONFIG); otherwise the first of ./regstore.toml, "
            "~/.config/regstore/regstore.toml and /etc/regstore.toml.",
        ),
    ] = None,
) -> None:
    pass


@app.command("help", help="Show the help of a command: `regstore help gc`.")
def _help_of(
    context: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[COMMAND]...", show_default=False, help="Its words.")
    ] = None,
) -> None:
    context.exit(app([*(words or ()), "--help"], prog_name="regstore", standalone_mode=False) or 0)


for _name, _command in COMMANDS.items():
    _command.add_to(app, _name)
for _name, (_help, _group) in GROUPS.items():
    _typer = typer.Typer(help=_help, **_LOOK)
    for _word, _command in _group.items():
        _command.add_to(_typer, _word)
    app.add_typer(_typer, name=_name)
