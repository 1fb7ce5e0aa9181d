"""The run itself: choose, plan, show, ask, seed, write."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from regstore.cli.confirm import OR_LOOK, confirm, refuse_unasked
from regstore.cli.init import showing
from regstore.cli.init.asking import Terminal
from regstore.cli.init.choosing import Chosen, choose
from regstore.cli.init.gathering import Gathered, gather, missing_backup_folder, users_only
from regstore.cli.init.options import Asked, Doing, InitStore, Keys
from regstore.cli.init.passwords import Passwords
from regstore.cli.outcome import Result
from regstore.cli.output import emit, emit_error
from regstore.cli.progress import progress
from regstore.cli.run import run_async
from regstore.cli.voice import voice
from regstore.deployment import applying
from regstore.deployment.certificates import PATHS, Certificates, certificates
from regstore.deployment.planning import Action, Plan, plan
from regstore.deployment.wanted import (
    HTPASSWD,
    Deployment,
    Kind,
    Tls,
)
from regstore.errors import EXIT_OK, EXIT_PARTIAL, AccessDenied, InputError, NoSuchBucket, Refused, StorageError

if TYPE_CHECKING:
    from regstore.seed import SeedOptions, SeedResult
    from regstore.storage.base import PutOptions


@dataclass(frozen=True, kw_only=True)
class View:
    """How a run speaks, and whether it asks."""

    dry_run: bool
    yes: bool


def make(
    folder: Path, store: InitStore, asked: Asked, keys: Keys, doing: Doing, put: PutOptions, view: View
) -> Result:
    """All of a deployment, new or changed."""
    terminal = Terminal.here(wanted=not (view.yes or voice().as_json or voice().quiet))
    with _place(folder, view) as is_new:
        before = applying.read_record(folder)
        if before is not None:
            _owner(before.deployment)  # whoever may not write it says so before what is secret is read
        chosen = choose(folder, store, asked, put, before, terminal)
        owner = _owner(chosen.deployment)
        made = gather(folder, chosen, keys, doing, before, terminal)
        _refuse_foreign(folder, made.plan, doing.overwrite or ())
        run_async(_look(chosen, doing, terminal, view))
        showing.show_plan(folder, made.plan)
        if view.dry_run:
            return _finish(folder, made, view, None)
        if any(change.touches for change in made.plan.to_do):
            _consent(view)
        seeded = run_async(_seed_all(chosen, view, owner))
        if doing.create:
            _make_backup_folder(chosen.deployment, owner)
        if is_new and owner is not None:
            os.chown(folder, owner.uid, owner.gid, follow_symlinks=False)
        applying.apply(folder, made.plan, owner)
        return _finish(folder, made, view, seeded)


def change_part(folder: Path, keys: Keys, doing: Doing, view: View) -> Result:
    """Only the users, or only the server's certificate, of a deployment that is there."""
    terminal = Terminal.here(wanted=not (view.yes or voice().as_json or voice().quiet))
    with applying.locked(folder, create=False):
        before = applying.read_record(folder)
        if before is None:
            raise InputError(
                f"{folder} is no deployment yet: `regstore init {folder} --host ... --store ...` makes it"
            )
        deployment, passwords, made = before.deployment, Passwords(), Certificates()
        standing = applying.read_standing(folder, [*PATHS, HTPASSWD])
        if doing.renew:
            if deployment.tls is not Tls.OWN_CA:
                raise InputError(
                    "only a certificate by the deployment's own authority can be renewed: give a new one"
                )
            made = certificates(deployment, standing, datetime.now(UTC), renew=True)
            wanted = list(made.files)
        else:
            passwords, wanted = users_only(folder, standing, keys, doing, terminal)
        planned = plan(deployment, wanted, standing, before, is_part=True)
        showing.show_plan(folder, planned)
        if not view.dry_run:
            applying.apply(folder, planned, _owner(deployment))
        return _finish(
            folder, Gathered(plan=planned, passwords=passwords, certificates=made), view, None, is_part=True
        )


@contextmanager
def _place(folder: Path, view: View) -> Iterator[bool]:
    """Whether it is new. Locked, and made; a dry run makes nothing, and what was made for nothing goes again."""
    is_new = not folder.exists()
    if is_new and view.dry_run:
        yield is_new
        return
    with applying.locked(folder, create=True):
        try:
            yield is_new
        finally:
            if is_new:
                with suppress(OSError):
                    folder.rmdir()


def _make_backup_folder(deployment: Deployment, owner: applying.Owner | None) -> None:
    """Once, and here: where it is missing later, its disk is not mounted."""
    folder = missing_backup_folder(deployment)
    if folder is None:
        return
    try:
        folder.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise StorageError(f"the folder {folder} for backups can't be made: {error.strerror}") from error
    if owner is not None:
        applying.give(folder, owner)


def _refuse_foreign(folder: Path, planned: Plan, overwrite: Collection[str]) -> None:
    """On a first run nothing in DIR is regstore's, and a key or a certificate may be the only copy: --yes is no word
    about these."""
    if planned.before is not None:
        return
    certificates = [change for change in planned.to_do if change.kind is Kind.CERTIFICATE and change.touches]
    foreign = [change.path for change in (*planned.conflicts, *certificates) if change.path not in overwrite]
    if foreign:
        raise Refused(
            f"{folder} has files that regstore did not make: {', '.join(foreign)}. Move them away, use another folder, "
            f"or say --overwrite {foreign[0]}"
        )


def _consent(view: View) -> None:
    refuse_unasked(yes=view.yes, else_say=OR_LOOK)
    if not confirm("Change these files?", yes=view.yes):
        raise Refused("nothing was changed")


def _owner(deployment: Deployment) -> applying.Owner | None:
    """None where the files are to be whose they are when they are written."""
    name = deployment.user
    try:
        found = pwd.getpwuid(int(name)) if re.fullmatch(r"\d+", name) else pwd.getpwnam(name)
    except KeyError as error:
        if name.isdigit() and os.geteuid() == 0:
            return applying.Owner(uid=int(name), gid=int(name))
        raise InputError(
            f"there is no user {name} on this computer: make it, or say another with --run-as"
        ) from error
    if found.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise AccessDenied(f"{name} owns the files of this deployment: run this as {name} or root, or say --run-as")
    return applying.Owner(uid=found.pw_uid, gid=found.pw_gid)


async def _look(chosen: Chosen, doing: Doing, terminal: Terminal, view: View) -> None:
    """NoSuchBucket where the store is missing and nobody wants it made."""
    from regstore.seed import Outcome, SeedOptions

    looked = await _seed(chosen, SeedOptions(check=True, put=chosen.put), view)
    place = looked.checks[0]
    if place.outcome is Outcome.MISSING and not doing.create:
        if terminal.asks and confirm(f"{place.detail}. Make it?", yes=False):
            return
        raise NoSuchBucket(f"{place.detail}: --create makes it")


async def _seed_all(chosen: Chosen, view: View, owner: applying.Owner | None) -> SeedResult:
    """StorageError where no registry could use the store."""
    from regstore.seed import Outcome, SeedOptions

    seeded = await _seed(chosen, SeedOptions(put=chosen.put), view)
    if seeded.broken:
        problem = seeded.broken[0]
        raise StorageError(f"{seeded.url} is not ready for a registry: {problem.name}: {problem.detail}")
    if owner is not None and chosen.deployment.on_disk and seeded.checks[0].outcome is Outcome.DONE:
        applying.give(Path(chosen.deployment.storage[chosen.deployment.driver]["rootdirectory"]), owner)
    return seeded


async def _seed(chosen: Chosen, options: SeedOptions, view: View) -> SeedResult:
    from regstore.seed import seed

    with progress() as on_event:
        async with chosen.open() as storage:
            return await seed(storage, options, on_event=on_event)


def _finish(
    folder: Path, made: Gathered, view: View, seeded: SeedResult | None, *, is_part: bool = False
) -> Result:
    made_up = {} if view.dry_run else made.passwords.made_up
    shown = made.certificates.shown
    warnings = list(made.warnings)
    if seeded is not None:
        warnings += [f"{each.name}: {each.detail}" for each in seeded.warnings]
    conflicts = made.plan.conflicts
    warnings += [
        f"{change.path} was edited by hand and is not as asked: say --overwrite {change.path}, or leave it so"
        for change in conflicts
    ]
    if not view.dry_run:
        if seeded is not None:
            showing.show_seeded(seeded)
        showing.show_passwords(made_up)
        if is_part:
            if shown is not None:
                showing.show_certificate(shown)
                emit("Restart the registry: it reads its certificate when it starts.")
        else:
            showing.show_certificate(shown)
            showing.show_policies(folder, made.plan)
            is_changed = any(change.action is Action.CHANGED for change in made.plan.changes)
            if is_changed and made.plan.before is not None:
                emit("Restart what runs, so that it goes by what changed.")
            showing.show_next(folder, made.plan.record.deployment)
    for warning in warnings:
        emit_error(f"warning: {warning}")
    return Result(
        exit_code=EXIT_PARTIAL if conflicts else EXIT_OK,
        data=showing.as_json(
            folder, made.plan, seeded=seeded, certificate=shown, made_up=made_up, warnings=warnings
        ),
    )
