"""What is missing is asked for, where there is a terminal to ask on; else it has its default, or the run ends."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from regstore.cli.output import emit_error, printable
from regstore.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """asks: whether there is one, and questions are wanted."""

    asks: bool

    @classmethod
    def here(cls, *, wanted: bool) -> Terminal:
        return cls(asks=wanted and sys.stdin.isatty() and sys.stderr.isatty())

    def ask(self, question: str, parse: Callable[[str], T], *, default: str = "") -> T:
        """Again until the answer is one. An empty answer is the default. InputError where the input ends."""
        while True:
            shown = f" [{default}]" if default else ""
            print(f"{printable(question)}{printable(shown)}: ", end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
            if not line:
                raise InputError(f"no answer to: {question}")
            try:
                return parse(line.strip() or default)
            except InputError as error:
                emit_error(str(error))

    def password(self, user: str, check: Callable[[str], None]) -> str | None:
        """Typed twice, and not shown; None for one that is to be made up."""
        while True:
            first = self._secret(f"Password of {user} (empty: one is made up): ")
            if not first:
                return None
            try:
                check(first)
            except InputError as error:
                emit_error(str(error))
                continue
            if self._secret("Once more: ") == first:
                return first
            emit_error("the two differ")

    def known_password(self, user: str) -> str:
        """One that is known already: typed once."""
        return self._secret(f"Password of {user}: ")

    def _secret(self, prompt: str) -> str:
        try:
            return getpass.getpass(printable(prompt), stream=sys.stderr)
        except EOFError as error:
            raise InputError("no password was given") from error
