"""Passwords of the users that a run names: from standard input, asked for, or made up and shown once."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from regstore.cli.init.asking import Terminal
from regstore.deployment import users
from regstore.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Passwords:
    """given: by user, from standard input or a terminal. made_up: to be shown once, in the end."""

    given: Mapping[str, str] = field(default_factory=dict, repr=False)
    made_up: Mapping[str, str] = field(default_factory=dict, repr=False)

    def into(self, content: bytes, where: str) -> bytes:
        """The htpasswd file with them. A line whose password is the given one stays."""
        for user, password in {**self.given, **self.made_up}.items():
            if not users.has_password(content, user, password, where):
                content = users.with_user(content, user, password, where)
        return content


def passwords_of(
    names: Sequence[str], known: Sequence[str], terminal: Terminal, *, from_stdin: bool, anew: bool = False
) -> Passwords:
    """Of those named. Who is known keeps theirs, unless it is given on standard input, or `anew` asks for another."""
    for name in names:
        users.check_name(name)
    if len(set(names)) < len(names):
        raise InputError(f"a user is named twice: {', '.join(names)}")
    if from_stdin:
        return Passwords(given=dict(zip(names, _lines(len(names)), strict=True)))
    given, made_up = {}, {}
    for name in names:
        if name in known and not anew:
            continue
        answer = terminal.password(name, users.check_password) if terminal.asks else None
        if answer is None:
            made_up[name] = users.new_password()
        else:
            given[name] = answer
    return Passwords(given=given, made_up=made_up)


def _lines(number: int) -> list[str]:
    try:
        text = read_input().decode()
    except UnicodeDecodeError as error:
        raise InputError("the password on standard input is not UTF-8, as clients send it") from error
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    if len(lines) != number:
        raise InputError(
            f"standard input has {len(lines)} lines, and {number} users are named: give a password each"
        )
    for line in lines:
        users.check_password(line)
    return lines


def read_input() -> bytes:
    """As bytes: what the locale makes of them is no matter."""
    return sys.stdin.buffer.read()
