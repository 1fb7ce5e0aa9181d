"""Where the configuration is, and whether it may be trusted.

The file that `--config` or REGSTORE_CONFIG names; else the first of ./regstore.toml, regstore/regstore.toml below
$XDG_CONFIG_HOME or ~/.config, and /etc/regstore.toml. One file counts; others are not merged into it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from regstore.errors import InputError

NAME: Final = "regstore.toml"
VARIABLE: Final = "REGSTORE_CONFIG"
SYSTEM: Final = Path("/etc") / NAME
_LARGEST: Final = 4 * 2**20

How = Literal["named", "here", "user", "system"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A file, and how it came to count. Only one that was not just found in the current folder may run commands."""

    path: Path
    how: How

    @property
    def folder(self) -> Path:
        """What relative paths in it are below."""
        return self.path.absolute().parent

    @property
    def may_run_commands(self) -> bool:
        return self.how != "here"


def places(environ: Mapping[str, str]) -> Iterator[Place]:
    """Where it is looked for while nobody names a file, in this order."""
    yield Place(path=Path(NAME), how="here")
    base = Path(environ.get("XDG_CONFIG_HOME", ""))
    if not base.is_absolute():
        with contextlib.suppress(RuntimeError):  # a user without a home, as in a container
            base = Path.home() / ".config"
    if base.is_absolute():  # what lies below the current folder is not the user's own
        yield Place(path=base / "regstore" / NAME, how="user")
    yield Place(path=SYSTEM, how="system")


def find(named: str | os.PathLike[str] | None, environ: Mapping[str, str], *, look: bool = True) -> Place | None:
    """The file that counts. None: there is none. look: also where nobody names it."""
    chosen = named or environ.get(VARIABLE)
    if chosen:
        return Place(path=Path(chosen), how="named")
    if not look:
        return None
    for place in places(environ):
        try:
            place.path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            if place.how == "user":  # another user's home, as with sudo -u
                continue
            raise InputError(f"whether there is a {place.path} can't be seen: permission denied") from None
        return place
    return None


def read(place: Place) -> str:
    """Its text. InputError where it can't be read, or where others than this user and root can say what is in it."""
    try:
        with place.path.open("rb") as file:
            _refuse_strangers(place, os.fstat(file.fileno()))
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise InputError(f"the configuration {place.path} can't be read: {error.strerror}") from error
    if len(data) > _LARGEST:
        raise InputError(f"the configuration {place.path} is larger than 4 MiB")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"the configuration {place.path} is not UTF-8: {error}") from error


def _refuse_strangers(place: Place, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        return  # a pipe, or /dev/null for none; a folder can't be read
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        who = "anybody" if found.st_mode & stat.S_IWOTH else "its group"
        raise InputError(
            f"the configuration {place.path} may be written by {who}, who could change what is removed from where: "
            f"chmod go-w {place.path}"
        )
    if place.how == "named":
        return
    owners = {found.st_uid, place.path.lstat().st_uid} - {os.getuid(), 0}
    if owners:
        raise InputError(
            f"the configuration {place.path} belongs to user {min(owners)}, neither to you nor to root, and nobody "
            f"named it: say `regstore --config {place.path}` where you trust it, or --config /dev/null for none"
        )
