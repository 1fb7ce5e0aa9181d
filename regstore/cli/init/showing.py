"""What `regstore init` says: the plan with its diff, what became of the store, and what to do next."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from regstore.cli.output import emit, emit_problem, table
from regstore.deployment.planning import Action
from regstore.deployment.policies import FOLDER as POLICIES
from regstore.deployment.readme_txt import README

if TYPE_CHECKING:
    from pathlib import Path

    from regstore.deployment.authority import Shown
    from regstore.deployment.planning import Change, Plan
    from regstore.deployment.wanted import Deployment
    from regstore.seed import SeedResult

_WORDS: Final = {
    Action.MODE: "to be read by nobody else",
    Action.KEPT: "kept as it is",
    Action.CONFLICT: "edited by hand, and not as asked",
    Action.REMOVED: "no longer wanted",
}


def show_plan(folder: Path, plan: Plan) -> None:
    shown = [change for change in plan.changes if change.action not in (Action.SAME, Action.KEPT)]
    shown += [change for change in plan.changes if change.action is Action.KEPT and change.before != change.after]
    if not shown:
        emit(f"{folder}: nothing to change")
        return
    emit(f"{folder}:")
    emit(table(["FILE", "IS", ""], [[change.path, change.action.value, _why(change)] for change in shown]))
    for change in plan.changes:
        # README.txt says in other words what the others say.
        is_told = change.path == README and change.action is Action.CHANGED
        if (change.touches or change.action is Action.CONFLICT) and not is_told and (diff := change.diff()):
            emit(f"\n{diff.rstrip()}")


def _why(change: Change) -> str:
    if change.action is Action.CHANGED and not change.diff():
        return "its content is not shown"
    return _WORDS.get(change.action, "")


def show_seeded(result: SeedResult) -> None:
    from regstore.seed import Outcome

    place = result.checks[0]
    made = f"{place.name} made" if place.outcome is Outcome.DONE else f"the {place.name} was there"
    is_new = any(check.outcome is Outcome.DONE for check in result.checks if check.name.startswith("seed "))
    emit(f"{result.url}: {made}, seeded{'' if is_new else ' already'}; its health check passes in every version")


def show_passwords(made_up: Mapping[str, str]) -> None:
    """Once, and nowhere else: also with -q."""
    for user, password in made_up.items():
        emit_problem(f"The password of {user}, shown this once: {password}")


def show_certificate(shown: Shown | None) -> None:
    if shown is not None:
        emit(f"The certificate is for {', '.join(shown.names)} until {shown.not_after:%Y-%m-%d}")


def show_policies(folder: Path, plan: Plan) -> None:
    """Of a bucket, as they are new or changed."""
    for change in _policies(plan):
        if change.writes and change.after is not None:
            emit(f"\n{folder / change.path}, an IAM policy with what is needed and no more:\n")
            emit(change.after.decode().rstrip())


def _policies(plan: Plan) -> list[Change]:
    return [change for change in plan.changes if change.path.startswith(f"{POLICIES}/")]


def show_next(folder: Path, deployment: Deployment) -> None:
    emit(f"\n{deployment.url} is ready to be started: {folder / 'README.txt'} says how, and how clients trust it.")


def as_json(
    folder: Path,
    plan: Plan,
    *,
    seeded: SeedResult | None,
    certificate: Shown | None,
    made_up: Mapping[str, str],
    warnings: Iterable[str],
) -> dict[str, Any]:
    """passwords: only those that were made up in this run."""
    deployment = plan.record.deployment
    return {
        "folder": str(folder),
        "url": deployment.url,
        "form": deployment.form.value,
        "store": None if seeded is None else seeded.url,
        "checks": []
        if seeded is None
        else [
            {"name": check.name, "outcome": check.outcome.value, "detail": check.detail} for check in seeded.checks
        ],
        "files": {change.path: change.action.value for change in plan.changes},
        "certificate": None
        if certificate is None
        else {
            "names": list(certificate.names),
            "not_after": f"{certificate.not_after:%Y-%m-%dT%H:%M:%SZ}",
            "sha256": certificate.fingerprint,
        },
        "passwords": dict(made_up),
        "policies": {change.path: json.loads(change.after) for change in _policies(plan) if change.after},
        "warnings": list(warnings),
    }
