"""Commands that are imported when they run: lists of commands know their names and one line of help each."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand


@dataclass(frozen=True)
class Later:
    """A command by its place, `module:function`, and the first sentence of its docstring, which lists show."""

    place: str
    line: str

    def load(self) -> Callable[..., None]:
        module, name = self.place.split(":")
        function: Callable[..., None] = getattr(importlib.import_module(module), name)
        return function

    def add_to(self, group: typer.Typer, name: str) -> None:
        look: dict[str, Any] = {"place": self, "__module__": __name__}
        group.command(name, help=self.line, cls=type("_Command", (_Stub,), look))(_nothing)


class _Stub(TyperCommand):
    """Stands for a command in its group. Whoever would run it, ask for its help or complete its options gets the
    context of the real one."""

    place: ClassVar[Later]

    def make_context(self, *args: Any, **options: Any) -> Any:
        from regstore.cli.config.stub import Configured

        alone = typer.Typer(add_completion=False, rich_markup_mode=self.rich_markup_mode)
        alone.command(self.name, cls=Configured)(self.place.load())
        return typer.main.get_command(alone).make_context(*args, **options)


def _nothing() -> None:
    """Of a stub: it never runs."""
