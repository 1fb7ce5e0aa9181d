"""A step of a job as the command line that would do the same."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from regstore.cli.config.look import Look, every_command, looks_of
from regstore.cli.config.model import Configuration, Step
from regstore.cli.config.reference import Reference, without_secret
from regstore.cli.config.sources import Elsewhere, given_elsewhere


def command_line(step: Step, configuration: Configuration) -> str:
    """To be shown: what is secret is not in it. InputError where the step can't be understood."""
    looks = looks_of(every_command()[step.command].load())
    given = given_elsewhere(step.command, looks, Elsewhere(environ={}, configuration=configuration, step=step))
    own = [
        (look, given[look.name].value)
        for look in looks
        if look.name in given and given[look.name].source == step.where
    ]
    words = ["regstore", *step.command.split()]
    words += [word for look, value in own if look.argument for word in _texts(look.word, value)]
    words += [word for look, value in own if not look.argument for word in _option(look, value)]
    return " ".join(words)


def _option(look: Look, value: Any) -> Iterator[str]:
    if look.kind == "flag":
        if value or look.off:
            yield look.shown if value else look.off or ""
        return
    for text in _texts(look.word, value):
        yield from (look.shown, text)


def _texts(word: str, value: Any) -> list[str]:
    if isinstance(value, Reference):
        return [f"({value})"]
    return [
        shlex.quote(without_secret(word, str(each))) for each in (value if isinstance(value, list) else [value])
    ]
