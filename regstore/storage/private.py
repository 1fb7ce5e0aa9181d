"""Files of this user alone: what they say decides what is deleted, so nobody else may have had a hand in them."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import suppress
from pathlib import Path

from regstore.errors import InputError

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def make_private_folders(folder: Path) -> None:
    """The folder, and those above it that are missing: 0700, whatever the umask."""
    for path in (*reversed(folder.parents), folder):
        if not path.exists():
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)


def open_private_database(folder: Path, name: str) -> sqlite3.Connection:
    """The SQLite file of this name, made where it is missing, for one thread at a time.

    InputError where the folder, the file, or a file that SQLite keeps beside it is another user's, can be written by
    others, or is a symbolic link, and where others may put another folder in its place; none of them is changed then.
    OSError and sqlite3.Error as usual.
    """
    make_private_folders(folder)
    _refuse_others(folder, folder.lstat())
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        _refuse_others(folder, os.fstat(place))
        _refuse_open_parents(folder)
        path = folder / name
        for beside in (f"{name}-wal", f"{name}-shm", f"{name}-journal"):
            with suppress(FileNotFoundError):
                _refuse_others(folder / beside, os.stat(beside, dir_fd=place, follow_symlinks=False), is_file=True)
        with suppress(FileNotFoundError):
            # Before it is opened: to open a device or a pipe may do something.
            _refuse_others(path, os.stat(name, dir_fd=place, follow_symlinks=False), is_file=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        file = os.open(name, flags, 0o600, dir_fd=place)
        try:
            found = os.fstat(file)
            _refuse_others(path, found, is_file=True)
            if stat.S_IMODE(found.st_mode) != 0o600:
                os.fchmod(file, 0o600)
        finally:
            os.close(file)
    finally:
        os.close(place)
    return sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)


def _refuse_others(path: Path, found: os.stat_result, *, is_file: bool = False) -> None:
    is_right = stat.S_ISREG(found.st_mode) and found.st_nlink == 1 if is_file else stat.S_ISDIR(found.st_mode)
    if stat.S_ISLNK(found.st_mode):
        why = "is a symbolic link, which others may have made"
    elif not is_right:
        why = "is no file of its own" if is_file else "is no folder"
    elif found.st_uid != os.geteuid():
        why = f"belongs to another user (uid {found.st_uid})"
    elif found.st_mode & _OTHERS_WRITE:
        why = "can be written by other users"
    else:
        return
    raise InputError(f"{path} {why}, so what it says may be forged: use a folder of your own with --cache-dir")


def _refuse_open_parents(folder: Path) -> None:
    """Others must not be able to put another folder in its place: a parent is root's or the user's own, and only where
    it has the sticky bit may everybody write there."""
    for parent in Path(os.path.realpath(folder)).parents:
        found = parent.stat()
        is_open = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
        if is_open or found.st_uid not in (0, os.geteuid()):
            raise InputError(
                f"{folder} lies in {parent}, where other users can put another in its place: use a folder of your own "
                "with --cache-dir"
            )
