"""`regstore config check`: is all right that the configuration and the environment say?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from regstore.cli.command import command
from regstore.cli.config.current import configuration
from regstore.cli.config.look import Look, every_command, looks_of
from regstore.cli.config.place import places
from regstore.cli.config.reference import Reference
from regstore.cli.config.sources import strange_variables
from regstore.cli.config.stub import Told, context_of
from regstore.cli.outcome import Result
from regstore.cli.output import counted, emit, emit_error
from regstore.errors import EXIT_OK, EXIT_USAGE, InputError

if TYPE_CHECKING:
    from regstore.cli.config.model import Configuration, Job, Step

#: What always asks before it begins.
ASK: Final = frozenset({"gc", "rm", "untag", "backup prune", "trash empty", "trash restore"})
#: What asks where one of these options is given.
ASK_FOR: Final = {
    "verify": ("drop_broken_tags",),
    "restore": ("overwrite_tags",),
    "backup restore": ("overwrite_tags",),
    "migrate": ("overwrite_tags", "delete"),
}


@command
def config_check() -> Result:
    """Check the configuration file and the environment: keys, values, stores, policies and jobs.

    No store is asked. References to the environment and to files are looked at; commands are not run.

    Exit codes: 0 all is right; 2 something is wrong, and all of it is named.
    """
    found = configuration()
    looks = {name: {look.word: look for look in looks_of(each.load())} for name, each in every_command().items()}
    problems = [*_problems(found, looks), *strange_variables(looks, os.environ)]
    file = None if found is None else str(found.place.path)
    for problem in problems:
        emit_error(problem)
    for note in _notes(found):
        emit(note)
    if not problems:
        emit(f"{file or 'no configuration file'}: {_counts(found)}nothing wrong")
    return Result(
        exit_code=EXIT_USAGE if problems else EXIT_OK,
        data={"file": file, "problems": problems, "notes": list(_notes(found))},
        numbers={"problems": len(problems)},
    )


def _counts(found: Configuration | None) -> str:
    if found is None:
        return ""
    return (
        f"{counted(len(found.stores), 'store')}, {counted(len(found.policies), 'policy', 'policies')}, "
        f"{counted(len(found.jobs), 'job')}; "
    )


def _problems(found: Configuration | None, looks: dict[str, dict[str, Look]]) -> Iterator[str]:
    if found is not None:
        yield from found.problems
        yield from _of_policies(found)
        for store in found.stores.values():
            yield from _of_references(store.said.items(), store.where)
            for key in ("registry_config", "ca_bundle"):
                if key in store.said and not Path(store.said[key]).is_file():
                    yield f"{store.where}: {key}: there is no file {store.said[key]}"
    told = set()
    for name in looks:
        problem = _problem(name, found, None)
        if problem and problem not in told:
            yield problem
        told.add(problem)
    if found is not None:
        for job in found.jobs.values():
            yield from problems_of(job, found)


def _of_policies(found: Configuration) -> Iterator[str]:
    from regstore.gc.policy import Policy

    for name, document in found.policies.items():
        try:
            Policy.of(document, source=f"{found.place.path}: [policies.{name}]")
        except InputError as error:
            yield str(error)


def _of_references(values: Any, where: str) -> Iterator[str]:
    for key, value in values:
        if isinstance(value, Reference) and value.kind != "command":
            try:
                value.get(os.environ)
            except InputError as error:
                yield f"{where}: {key}: {error}"


def problems_of(job: Job, found: Configuration) -> Iterator[str]:
    """What keeps its steps from being run: a sentence each."""
    for step in (job.own, *job.steps):
        problem = _problem(step.command, found, step) if step.command in every_command() else ""
        if problem:
            yield problem


def _problem(command: str, found: Configuration | None, step: Step | None) -> str:
    try:
        context_of(command, Told(configuration=found, step=step, get=False))
    except InputError as error:
        return str(error)
    return ""


def _notes(found: Configuration | None) -> Iterator[str]:
    """What is not wrong, and may surprise."""
    if found is None:
        return
    for job in found.jobs.values():
        for step in job.steps:
            asks = step.command in ASK or any(map(step.options.get, ASK_FOR.get(step.command, ())))
            if asks and not step.options.get("yes") and not step.options.get("dry_run"):
                yield f"{step.where}: without yes = true {step.command} removes nothing, for nobody is asked at night"
    for other in places(os.environ):
        if other.path.exists() and other.path.absolute() != found.place.path.absolute():
            yield f"{other.path} is there, too, and does not count: only {found.place.path} does"
