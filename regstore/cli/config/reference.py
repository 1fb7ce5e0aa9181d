"""Values that are not in the file: `{ env = "NAME" }`, `{ file = "path" }`, `{ command = ["program", "argument"] }`.

They are got when a run needs them, never to be shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from regstore.errors import InputError

_SECONDS: Final = 60
_LARGEST: Final = 2**16
#: Up to the last @ before the path: one that is not written as %40 is of the password. Redis takes one as a parameter.
_PASSWORD: Final = re.compile(r"(://[^/@:\s]*:)[^/\s]+(@)|([?&]password=)[^&\s]+")
HIDDEN: Final = "***"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """what: the variable, the path, or the program with its arguments. folder: what a relative path is below.
    may_run: whether the file may run commands."""

    kind: Literal["env", "file", "command"]
    what: str | tuple[str, ...]
    folder: Path
    may_run: bool

    def __str__(self) -> str:
        what = self.what if isinstance(self.what, str) else " ".join(self.what)
        return f"{ {'env': 'the variable', 'file': 'the file', 'command': 'the command'}[self.kind] } {what}"

    def get(self, environ: Mapping[str, str]) -> str:
        """The value, without the end of its line. InputError where there is none."""
        value = self._get(environ).rstrip("\r\n")
        if not value:
            raise InputError(f"{self} holds nothing")
        if "\n" in value or "\0" in value:
            raise InputError(f"{self} holds more than one line")
        return value

    def _get(self, environ: Mapping[str, str]) -> str:
        if isinstance(self.what, tuple):
            return self._run(self.what)
        if self.kind == "env":
            if self.what not in environ:
                raise InputError(f"the environment has no {self.what}")
            return environ[self.what]
        try:
            with (self.folder / self.what).open("rb") as file:
                return file.read(_LARGEST).decode("utf-8")
        except OSError as error:
            raise InputError(f"{self} can't be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{self} is not text") from error

    def _run(self, words: tuple[str, ...]) -> str:
        import subprocess

        if not self.may_run:
            raise InputError(
                f"{self} is not run, for the file was only found in the current folder: name it with --config"
            )
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                cwd=self.folder,
                timeout=_SECONDS,
                check=False,
            )
        except OSError as error:
            raise InputError(f"{self} can't be run: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise InputError(f"{self} gave nothing within {_SECONDS} s") from error
        if done.returncode:
            raise InputError(f"{self} failed, with exit code {done.returncode}")
        return done.stdout[:_LARGEST].decode("utf-8", errors="replace")


def reference_of(value: Any, folder: Path, *, may_run: bool) -> Reference | None:
    """A table as a reference. InputError where it is a table and none."""
    if not isinstance(value, dict):
        return None
    if len(value) == 1:
        ((kind, what),) = value.items()
        if kind in ("env", "file") and isinstance(what, str) and what:
            return Reference(kind=kind, what=what, folder=folder, may_run=may_run)
        if kind == "command" and isinstance(what, list) and what and all(isinstance(each, str) for each in what):
            return Reference(kind=kind, what=tuple(what), folder=folder, may_run=may_run)
    raise InputError(
        'must be a value, { env = "NAME" }, { file = "path" } or { command = ["program", "argument"] }'
    )


def has_password(text: str) -> bool:
    return _PASSWORD.search(text) is not None


def without_password(text: str) -> str:
    """As it may be shown."""
    return _PASSWORD.sub(rf"\1\3{HIDDEN}\2", text)


def as_written(value: Any) -> str:
    """A value that can't be taken, as a message may have it."""
    return without_password(repr(value))


def without_secret(word: str, text: str) -> str:
    """The value of this option, as it may be shown: the path of a monitor's URL is a secret."""
    if word == "ping_url":
        return f"{text.partition('://')[0]}://{_host(text)}/{HIDDEN}"
    return without_password(text)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
