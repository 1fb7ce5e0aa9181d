"""`regstore config show`: what is configured, and who said it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from regstore.cli.command import command
from regstore.cli.config.ambient import SHARED
from regstore.cli.config.current import configuration, of_the_file
from regstore.cli.config.look import Look, every_command, looks_of, names_of, variable
from regstore.cli.config.model import suggestion
from regstore.cli.config.place import VARIABLE
from regstore.cli.config.reference import HIDDEN, Reference, reference_of, without_secret
from regstore.cli.config.sources import Elsewhere, Given, given_elsewhere
from regstore.cli.outcome import Result
from regstore.cli.output import emit, table
from regstore.cli.settings import WAYS
from regstore.errors import InputError

if TYPE_CHECKING:
    from regstore.cli.config.model import Configuration, NamedStore, Step

_DEFAULT: Final = "default"


@command(answers=True)
def config_show(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMMAND...", show_default=False, help="Every option of this command, such as `backup create`."
        ),
    ] = None,
    store: Annotated[
        str | None, typer.Option(metavar="NAME", show_default=False, help="As it would run on this store.")
    ] = None,
) -> Result:
    """Show what is configured: stores, jobs and options, each with the place that says it.

    Secrets are not shown, nor got from where they are.
    """
    found = configuration()
    document = _all(found) if not words else _of_command(" ".join(words), found, _store(found, store))
    _print(document)
    return Result(data=document)


def _store(found: Configuration | None, name: str | None) -> NamedStore | None:
    if name is None:
        return None
    stores: Mapping[str, NamedStore] = {} if found is None else found.stores
    if name.removeprefix("@") not in stores:
        raise InputError(f"no store {name!r} in {of_the_file()}{suggestion(name, stores)}")
    return stores[name.removeprefix("@")]


def _all(found: Configuration | None) -> dict[str, Any]:
    environ = {name: value for name, value in os.environ.items() if name.startswith("REGSTORE_") and value}
    if found is None:
        return {
            "file": None,
            "stores": {},
            "options": [],
            "policies": [],
            "jobs": {},
            "environment": _hidden(environ),
        }
    options = [
        {
            "option": f"{command}: {key}" if command else key,
            "value": _shown(key, value),
            "source": f"[options{'.' + command.replace(' ', '.') if command else ''}]",
        }
        for command, values in found.options.items()
        for key, value in values.items()
    ]
    return {
        "file": str(found.place.path),
        "stores": {
            name: {"url": _shown("url", each.url)} | {key: _shown(key, value) for key, value in each.said.items()}
            for name, each in found.stores.items()
        },
        "options": options,
        "policies": sorted(found.policies),
        "jobs": {
            name: _step(job.own) | {"steps": [_step(each) for each in job.steps]}
            for name, job in found.jobs.items()
        },
        "environment": _hidden(environ),
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "command": step.command,
        "on_failure": step.on_failure,
        "options": {key: _shown(key, value) for key, value in step.options.items()},
    }


def _hidden(environ: Mapping[str, str]) -> dict[str, str]:
    known = {variable(command, look.word): look.word for command, look in _every_look()}
    known |= {variable("", word): word for word in SHARED} | {VARIABLE: ""}
    return {
        name: str(_shown(known[name], value)) if name in known else HIDDEN
        for name, value in sorted(environ.items())
    }


def _every_look() -> Iterator[tuple[str, Look]]:
    for name, each in every_command().items():
        for look in looks_of(each.load()):
            yield from ((one, look) for one in names_of(name))


def _of_command(command: str, found: Configuration | None, store: NamedStore | None) -> dict[str, Any]:
    commands = every_command()
    if command not in commands:
        raise InputError(f"no command {command!r}{suggestion(command, commands)}")
    looks = [each for each in looks_of(commands[command].load()) if not each.argument]
    given = given_elsewhere(command, looks, Elsewhere(environ=os.environ, configuration=found))
    options = []
    for look in looks:
        one = _of_store(store, look, given) or given.get(look.name)
        options.append(
            {
                "option": look.word,
                "value": _shown(look.word, look.default if one is None else one.value),
                "source": _DEFAULT if one is None else one.source,
            }
        )
    options.sort(key=lambda each: each["source"] == _DEFAULT)  # what somebody says comes first
    return {
        "file": None if found is None else str(found.place.path),
        "command": command,
        "store": None if store is None else store.url or str(store.registry_config),
        "options": options,
    }


def _of_store(store: NamedStore | None, look: Look, given: Mapping[str, Given]) -> Given | None:
    own = (*WAYS, "registry_config", "registry_cache", "redis_url", "registry_debug_url")
    if store is None or look.name not in own or look.name not in store.said:
        return None
    return Given(value=store.said[look.name], source=store.where)


def _shown(word: str, value: Any) -> Any:
    """Without what is secret in it."""
    if isinstance(value, dict):
        try:
            value = reference_of(value, Path(), may_run=False)
        except InputError:
            return value
    if isinstance(value, Reference):
        return f"(from {value})"
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list):
        return [_shown(word, each) for each in value]
    return without_secret(word, value) if isinstance(value, str) else value


def _print(document: Mapping[str, Any]) -> None:
    emit(f"file: {document['file'] or 'none'}")
    if "command" in document:
        if document["store"]:
            emit(f"store: {document['store']}")
        emit()
        rows = [[each["option"], _text(each["value"]), each["source"]] for each in document["options"]]
        emit(table(["OPTION", "VALUE", "FROM"], rows))
        return
    for name, store in document["stores"].items():
        others = ", ".join(f"{key} = {_text(value)}" for key, value in store.items() if key != "url")
        emit(f"store {name}: {store['url'] or 'as its registry_config says'}{f' ({others})' if others else ''}")
    for name in document["policies"]:
        emit(f"policy {name}")
    for name, job in document["jobs"].items():
        emit(f"job {name}: {_listed(job)}")
        for number, step in enumerate(job["steps"], 1):
            emit(f"  {number} {step['command']}: {_listed(step)}")
    rows = [[each["option"], _text(each["value"]), each["source"]] for each in document["options"]]
    rows += [[name, value, "environment"] for name, value in document["environment"].items()]
    if rows:
        emit()
        emit(table(["OPTION", "VALUE", "FROM"], rows))


def _listed(step: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} = {_text(value)}" for key, value in (step["options"] | {"on_failure": step["on_failure"]}).items()
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)
