"""`regstore init`: a whole private registry as files in one folder.

options     what may be asked, in groups
choosing    what is asked for, of the command line, what was recorded, and answers on a terminal (`asking`)
passwords   of users: from standard input, asked for, or made up
making      the run itself
showing     what it says
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regstore.cli.command import command
from regstore.cli.init.options import Asked, Doing, InitStore, Keys
from regstore.cli.options import DryRun, Json, NewObjects, Yes
from regstore.errors import InputError


@command
def init(
    store: InitStore,
    *,
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", show_default=False, help="The deployment's folder.")
    ] = None,
    asked: Asked,
    keys: Keys,
    doing: Doing,
    put: NewObjects,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> int:
    """Write a whole private registry into a folder: configuration, certificates, users, units; and seed its store.

    Asks on a terminal for what is missing. Run again, it changes only what is asked otherwise, shows the difference
    first, and keeps what was edited by hand, keys, and users. DIR/README.txt says how to start it and how clients use
    it. Passwords are asked for, read with --password-stdin, or made up and shown once.

    Exit codes: 0 done; 3 done, but for files that were edited by hand; 4 nothing done without a yes; 5 another init is
    at work in DIR.
    """
    from regstore.cli.init.making import View, change_part, make

    if folder is None:
        raise InputError("no folder: give DIR, where all of it is to be")
    place = folder.absolute()
    view = View(dry_run=dry_run, yes=yes, as_json=as_json, quiet=store.quiet)
    modes = [name for name, on in _modes(doing).items() if on]
    if len(modes) > 1:
        raise InputError(f"one thing at a time: {' or '.join(modes)}")
    if modes:
        if asked != Asked() or put != NewObjects() or store.store is not None or keys.user:
            raise InputError(f"{modes[0]} changes nothing else: give other options in a run without it")
        return change_part(place, keys, doing, view)
    return make(place, store, asked, keys, doing, put.put_options(), view)


def _modes(doing: Doing) -> dict[str, bool]:
    return {
        "--renew": doing.renew,
        "--add-user": doing.add_user is not None,
        "--remove-user": doing.remove_user is not None,
    }
