"""DIR is read, and made as planned: one run at a time, each file whole or not at all.

The record goes first, with what each file may be until the end (`record`), then the files, keys before certificates,
then the record as it stays. A run that is cut short anywhere leaves what the next one completes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Never

from regstore.deployment.planning import Action, Change, Plan, Standing
from regstore.deployment.record import Record, decode, encode
from regstore.deployment.wanted import CA_KEY, READABLE, RECORD, SECRETS_FOLDER
from regstore.errors import AccessDenied, InputError, LockHeld, RegstoreError, StorageError, StorageFull

_PRIVATE_FOLDERS: Final = (SECRETS_FOLDER, str(PurePosixPath(CA_KEY).parent))
_TEMPORARY: Final = ".regstore-new-"
#: More is no file of ours.
_LARGEST: Final = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose the files are to be, where that is somebody else than who writes them."""

    uid: int
    gid: int


@contextmanager
def locked(folder: Path, *, create: bool) -> Iterator[None]:
    """Until the end no other run changes the folder. create: make it, with what is above it.

    LockHeld where another run does; InputError where it is no folder, or everybody may write there.
    """
    handle = _open_folder(folder, create=create)
    try:
        if os.fstat(handle).st_mode & stat.S_IWOTH:
            raise InputError(f"everybody may write in {folder}, so nothing in it is safe: use a folder of your own")
        held = f"another `regstore init` is at work in {folder}: wait until it has ended"
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LockHeld(held) from error
        # Who made it for nothing takes it away again: then this lock is on a folder that is no more.
        if not _is_at(handle, folder):
            raise LockHeld(held)
        yield
    finally:
        os.close(handle)


def _open_folder(folder: Path, *, create: bool) -> int:
    try:
        if create:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise InputError(
            f"there is no {folder}: `regstore init {folder} --host ... --store ...` makes it"
        ) from error
    except (NotADirectoryError, FileExistsError) as error:
        raise InputError(f"{folder} is no folder") from error
    except OSError as error:
        _refused(error, folder)


def _is_at(handle: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), folder.stat())
    except FileNotFoundError:
        return False


def read_record(folder: Path) -> Record | None:
    """None where there is none yet."""
    found = _read(folder, RECORD)
    return None if found is None else decode(found.content, str(folder / RECORD))


def read_standing(folder: Path, paths: Iterable[str]) -> dict[str, Standing]:
    """Of those files that are there. InputError where one is no plain file, or lies in a folder that is elsewhere."""
    found = {path: _read(folder, path) for path in paths}
    return {path: standing for path, standing in found.items() if standing is not None}


def apply(folder: Path, plan: Plan, owner: Owner | None = None) -> None:
    """Make the folder as planned. Call it within `locked`. StorageError where something can't be written."""
    _forget_temporary(folder, plan.changes)
    if plan.meanwhile != plan.before:
        _write(folder, RECORD, encode(plan.meanwhile), READABLE, owner)
    for change in plan.to_do:
        if change.action is Action.REMOVED:
            _remove(folder, change.path)
        elif change.after is not None:
            _write(folder, change.path, change.after, change.mode, owner)
    if plan.record != plan.meanwhile:
        _write(folder, RECORD, encode(plan.record), READABLE, owner)


def give(folder: Path, owner: Owner) -> None:
    """All of a folder that was made just now. No symbolic link leads elsewhere, whoever puts one there meanwhile."""
    for _, folders, names, handle in os.fwalk(folder, follow_symlinks=False):
        os.fchown(handle, owner.uid, owner.gid)
        for name in (*folders, *names):
            os.chown(name, owner.uid, owner.gid, dir_fd=handle, follow_symlinks=False)


@contextmanager
def _within(folder: Path, name: str, *, make: bool = False, owner: Owner | None = None) -> Iterator[int]:
    """The folder of a file, by its handle: no symbolic link leads elsewhere, whoever puts one there meanwhile."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in PurePosixPath(name).parent.parts:
            is_new = make and _make_folder(part, handle)
            try:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=handle)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise InputError(
                        f"{folder / name} would lie beyond a symbolic link, or in what is no folder: move {part} away"
                    ) from error
                raise
            os.close(handle)
            handle = inner
            if is_new:
                if owner is not None:
                    os.fchown(handle, owner.uid, owner.gid)
                os.fchmod(handle, 0o700 if part in _PRIVATE_FOLDERS else 0o755)
        yield handle
    finally:
        os.close(handle)


def _make_folder(part: str, handle: int) -> bool:
    try:
        os.mkdir(part, 0o700, dir_fd=handle)
    except FileExistsError:
        return False
    return True


def _read(folder: Path, name: str) -> Standing | None:
    """Symbolic links are not followed: what is written goes to the file itself."""
    path = folder / name
    try:
        with _within(folder, name) as place:
            handle = os.open(path.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise InputError(f"{path} is no file of its own: move it away") from error
        _refused(error, path)
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            raise InputError(f"{path} is no file that regstore made: move it away")
        return Standing(content=file.read(), mode=stat.S_IMODE(found.st_mode))


def _write(folder: Path, name: str, content: bytes, mode: int, owner: Owner | None) -> None:
    """Whole or not at all, and never readable by more than in the end."""
    path = folder / name
    temporary = f"{_TEMPORARY}{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with _within(folder, name, make=True, owner=owner) as place:
            try:
                with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=place), "wb") as file:
                    file.write(content)
                    if owner is not None:
                        os.fchown(file.fileno(), owner.uid, owner.gid)
                    os.fchmod(file.fileno(), mode)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path.name, src_dir_fd=place, dst_dir_fd=place)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=place)
                raise
            os.fsync(place)
    except OSError as error:
        _refused(error, path)


def _remove(folder: Path, name: str) -> None:
    path = folder / name
    try:
        with _within(folder, name) as place, suppress(FileNotFoundError):
            os.unlink(path.name, dir_fd=place)
            os.fsync(place)
        with suppress(OSError):  # others' files are in it
            if path.parent != folder:
                path.parent.rmdir()
    except OSError as error:
        _refused(error, path)


def _forget_temporary(folder: Path, changes: Iterable[Change]) -> None:
    """Of a run that was killed."""
    for name in {RECORD, *(change.path for change in changes)}:
        with suppress(OSError), _within(folder, name) as place, os.scandir(place) as entries:
            for left in [entry.name for entry in entries if entry.name.startswith(_TEMPORARY)]:
                os.unlink(left, dir_fd=place)


def _refused(error: OSError, path: Path) -> Never:
    reason = (error.strerror or str(error)).lower()
    kind: type[RegstoreError] = StorageError
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        kind = AccessDenied
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        kind = StorageFull
    cure = "; run it as the user who owns the folder" if kind is AccessDenied else ""
    raise kind(f"{path} can't be read or written: {reason}{cure}") from error
