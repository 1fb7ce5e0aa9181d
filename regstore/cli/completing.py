"""Words that a shell completes by asking the store: repositories, tags, snapshots, runs; and fixed choices.

Quick and silent: what fails, or takes more than two seconds, completes nothing. The store is opened read-only.
"""

from __future__ import annotations

import copy
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Final, TextIO, get_args, get_origin

import typer
from typer.models import ArgumentInfo, OptionInfo

if TYPE_CHECKING:
    import inspect

    from regstore.registry import Registry
    from regstore.storage.base import Storage

_SECONDS: Final = 2.0
#: No more names than a person looks through.
_MOST: Final = 1000
_CHOICES: Final = re.compile(r"[a-z]+(?:\|[a-z]+)+")
_VARIABLE: Final = "_REGSTORE_COMPLETE"


def prepare() -> None:
    """Before the program runs: where a shell asks it to complete, nothing is said but words, and not for long."""
    if _VARIABLE not in os.environ:
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    signal.signal(signal.SIGALRM, lambda number, frame: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, 2 * _SECONDS)
    if os.environ[_VARIABLE] == "complete_bash":
        words, number = rejoined(os.environ.get("COMP_WORDS", "").split(), int(os.environ.get("COMP_CWORD", "0")))
        os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = shlex.join(words), str(number)
        word = words[number] if number < len(words) else ""
        sys.stdout = _Without(word[: word.rfind(":") + 1], sys.stdout)


class _Without:
    """Standard output of whole words. Bash takes a colon for the end of one, and wants what comes after it only."""

    def __init__(self, cut_off: str, to: TextIO) -> None:
        self._cut_off, self._to = cut_off, to

    def write(self, text: str) -> int:
        return self._to.write("\n".join(line.removeprefix(self._cut_off) for line in text.split("\n")))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._to, name)


def rejoined(words: Sequence[str], number: int) -> tuple[list[str], int]:
    """The words of a command line that bash has cut at colons, and the number of the one that is completed."""
    whole: list[str] = []
    glued, now = False, -1
    for place, word in enumerate(words):
        if whole and (word == ":" or glued):
            whole[-1] += word
        else:
            whole.append(word)
        glued = word == ":"
        if place == number:
            now = len(whole) - 1
    if now < 0:
        now = len(whole) - 1 if glued else len(whole)
    return whole, now


# -- what is completed, by the parameter's name


def completed(parameter: inspect.Parameter) -> inspect.Parameter:
    """A command's parameter as Typer is shown it, with its completion where it has none of its own."""
    annotation = parameter.annotation
    if get_origin(annotation) is not Annotated:
        return parameter
    kind, *marks = get_args(annotation)
    return parameter.replace(annotation=Annotated[kind, *(_with(mark, parameter.name) for mark in marks)])


def _with(mark: Any, name: str) -> Any:
    if not isinstance(mark, OptionInfo | ArgumentInfo) or mark.autocompletion or mark.shell_complete:
        return mark
    words = _WORDS.get(name)
    if mark.metavar and _CHOICES.fullmatch(mark.metavar):
        words = _choices(mark.metavar.split("|"))
    if words is None:
        return mark
    new = copy.copy(mark)
    new.autocompletion = words
    return new


def _choices(words: Sequence[str]) -> Callable[[typer.Context, str], list[str]]:
    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


def repositories(ctx: typer.Context, incomplete: str) -> list[str]:
    return _shown(_asked(ctx, lambda storage: _repositories(storage, incomplete)), incomplete)


def references(ctx: typer.Context, incomplete: str) -> list[str]:
    """Repositories, and after a colon the tags of one."""
    name, colon, _ = incomplete.partition(":")
    if not colon:
        return repositories(ctx, incomplete)
    return _shown([f"{name}:{tag}" for tag in _asked(ctx, lambda storage: _tags(storage, name))], incomplete)


def snapshots(ctx: typer.Context, incomplete: str) -> list[str]:
    return _shown(["latest", *_asked(ctx, _snapshots)], incomplete)


def runs(ctx: typer.Context, incomplete: str) -> list[str]:
    return _shown(_asked(ctx, _runs), incomplete)


_WORDS: Final[dict[str, Callable[[typer.Context, str], list[str]]]] = {
    "repository": repositories,
    "prefix": repositories,
    "repo": repositories,
    "reference": references,
    "references": references,
    "names": references,
    "image": references,
    "explain": references,
    "snapshot": snapshots,
    "one": snapshots,
    "other": snapshots,
    "run": runs,
}


def _shown(words: Sequence[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)][:_MOST]


# -- asking


def _asked(ctx: typer.Context, question: Callable[[Storage], Awaitable[list[str]]]) -> list[str]:
    """What the store says; nothing where it says nothing in time."""
    import asyncio

    from regstore.cli.voice import Voice, speaking

    async def ask() -> list[str]:
        async with asyncio.timeout(_SECONDS):
            with _settings(ctx) as settings:
                async with settings.open(read_only=True) as storage:
                    return await question(storage)

    try:
        with speaking(Voice(quiet=True)):
            return asyncio.run(ask())
    except (Exception, SystemExit):  # noqa: BLE001  # whatever it is, a shell is not to be told
        return []


@contextmanager
def _settings(ctx: typer.Context) -> Iterator[Any]:
    """How the store is reached, by what stands on the command line so far and in the configuration."""
    from regstore.cli.config.current import Current, holding, load
    from regstore.cli.settings import StoreSettings

    known = {each.name for each in fields(StoreSettings)}
    given = {name: value for name, value in ctx.params.items() if name in known and value is not None}
    found = load(ctx.find_root().params.get("config"), os.environ)
    with holding(Current(configuration=found)):
        yield StoreSettings(**given)


async def _repositories(storage: Storage, beginning: str) -> list[str]:
    return [name async for name in _names(_registry(storage), beginning)]


async def _names(registry: Registry, beginning: str) -> AsyncIterator[str]:
    number = 0
    async for repository in registry.repositories():
        if repository.name.startswith(beginning):
            yield repository.name
            number += 1
            if number == _MOST:
                return


async def _tags(storage: Storage, name: str) -> list[str]:
    return [tag.name async for tag in _registry(storage).repository(name).tags]


def _registry(storage: Storage) -> Registry:
    from regstore.registry import Registry

    return Registry(storage)


async def _snapshots(storage: Storage) -> list[str]:
    from regstore.backup import format as form

    found = []
    async for page in storage.list(form.SNAPSHOTS):
        found += [run for key in page.keys if (run := form.parse_snapshot_key(key)) is not None]
    return sorted(found, reverse=True)


async def _runs(storage: Storage) -> list[str]:
    from regstore.state.trashed import find_trash

    return [one.run for one in reversed(await find_trash(storage))]
