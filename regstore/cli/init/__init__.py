"""`regstore init`: a whole private registry as files in one folder.

options     what may be asked, in groups
choosing    what is asked for, of the command line, what was recorded, and answers on a terminal (`asking`)
passwords   of users: from standard input, asked for, or made up
checking    --check: a running deployment is proved
gathering   what that needs, of DIR and of secrets from elsewhere; the plan
making      the run itself
showing     what it says
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regstore.cli.command import command
from regstore.cli.init.checking import Checking, check_deployment
from regstore.cli.init.options import Asked, Doing, InitStore, Keys
from regstore.cli.options import DryRun, NewObjects, Yes
from regstore.cli.outcome import Result
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
    checking: Checking,
    put: NewObjects,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> Result:
    """Write a whole private registry into a folder: configuration, certificates, users, units; and seed its store.

    Asks on a terminal for what is missing. Run again, it changes only what is asked otherwise, shows the difference
    first, and keeps what was edited by hand, keys, and users. DIR/README.txt says how to start it and how clients use
    it. Passwords are asked for, read with --password-stdin, or made up and shown once.

    --check proves a running deployment as its clients meet it: name, port, certificate, password, storage, and a tiny
    image pushed, pulled and removed. It exits with 1 where something fails, 3 where something was not tried.

    Exit codes: 0 done; 3 done, but for files that were edited by hand; 4 nothing done without a yes; 5 another init is
    at work in DIR.
    """
    from regstore.cli.init.choosing import whole_path
    from regstore.cli.init.making import View, change_part, make

    if folder is None:
        raise InputError("no folder: give DIR, where all of it is to be")
    place = whole_path(folder)
    view = View(dry_run=dry_run, yes=yes)
    modes = [name for name, on in _modes(doing, checking).items() if on]
    if len(modes) > 1:
        raise InputError(f"one thing at a time: {' or '.join(modes)}")
    if checking != Checking() and not checking.check:
        raise InputError("--url, --address and --without-store are of --check: say --check, or leave them out")
    if modes:
        if asked != Asked() or put != NewObjects() or store.store is not None or (keys.user and not checking.check):
            raise InputError(f"{modes[0]} changes nothing else: give other options in a run without it")
        if checking.check:
            return check_deployment(place, store, keys, checking, yes=yes)
        return change_part(place, keys, doing, view)
    return make(place, store, asked, keys, doing, put.put_options(), view)


def _modes(doing: Doing, checking: Checking) -> dict[str, bool]:
    return {
        "--check": checking.check,
        "--renew": doing.renew,
        "--add-user": doing.add_user is not None,
        "--remove-user": doing.remove_user is not None,
    }
