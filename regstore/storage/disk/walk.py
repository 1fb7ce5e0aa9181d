"""Walks over a folder tree: the keys in S3's order, and the sweep of empty folders. Blocking, a step at a time."""

from __future__ import annotations

import errno
import os
import stat as st
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from regstore.errors import NotFound, StorageError
from regstore.layout import BLOBS, PREFIX, REPOSITORIES
from regstore.storage.base import ObjectInfo, Page
from regstore.storage.disk.folders import Tree, facts, key_text, open_regular, split, translate

PAGE_KEYS: Final = 2_000
#: Folders that stay though empty: a registry makes them once.
KEPT_FOLDERS: Final = frozenset(
    ("", "docker", "docker/registry", PREFIX.rstrip("/"), BLOBS.rstrip("/"), REPOSITORIES.rstrip("/"))
)
_STEP: Final = 500
_BELOW: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
#: What is wrong with one file, whatever its folder says of it: permissions, or a disk that lost its content.
UNREADABLE: Final = frozenset(
    number
    for name in ("EACCES", "EPERM", "EIO", "EUCLEAN", "EBADMSG", "ENODATA", "EREMOTEIO")
    if (number := getattr(errno, name, None)) is not None
)


@dataclass(slots=True)
class _Level:
    folder: int
    prefix: str
    #: (sort text, name) still to come, last first; a folder's sort text ends in `/`.
    entries: list[tuple[str, bytes]]


class Listing:
    """The keys below a prefix, page by page, in byte order.

    Python compares text by code point, and UTF-8 keeps that order, so comparing keys as text is comparing their
    bytes. Open folders are one a level; the names of a folder are in memory while it is walked.
    """

    def __init__(self, tree: Tree, prefix: str, start_after: str, links: set[str]) -> None:
        self._tree = tree
        self._prefix = prefix
        self._start_after = start_after
        self._links = links
        self._levels: list[_Level] = []
        self._lock = threading.Lock()
        self._closed = False
        self._started = False

    def next_page(self) -> Page:
        """The next page. A thread may be in here when `close` is called: it then closes up itself."""
        with self._lock:
            page = Page([], [], [], [], True) if self._closed else self._fill()
        if self._closed:
            self.close()
        return page

    def close(self) -> None:
        self._closed = True
        if self._lock.acquire(blocking=False):
            try:
                while self._levels:
                    os.close(self._levels.pop().folder)
            finally:
                self._lock.release()

    def _fill(self) -> Page:
        if not self._started:
            self._started = True
            self._open_first()
        keys: list[str] = []
        sizes: list[int] = []
        etags: list[str] = []
        mtimes: list[int] = []
        while self._levels and len(keys) < PAGE_KEYS and not self._closed:
            level = self._levels[-1]
            if not level.entries:
                os.close(self._levels.pop().folder)
                continue
            text, name = level.entries.pop()
            key = level.prefix + text
            if text.endswith("/"):
                self._descend(level, key, name)
                continue
            try:
                file = open_regular(level.folder, name, self._tree.root, key)
                try:
                    info = facts(file, key)
                finally:
                    os.close(file)
            except NotFound:
                continue  # became something else
            except OSError as error:
                if error.errno in _GONE:
                    continue
                found = self._look_at(level.folder, name, key, error)
                if found is None:
                    continue
                info = found
            keys.append(key)
            sizes.append(info.size)
            etags.append(info.etag)
            mtimes.append(info.mtime)
        return Page(keys, sizes, etags, mtimes, not self._levels)

    def _look_at(self, folder: int, name: bytes, key: str, error: OSError) -> ObjectInfo | None:
        """A file that can't be read is listed all the same, with no ETag: whoever reads it is told why. None where it
        is gone, or no file."""
        if error.errno not in UNREADABLE:
            raise translate(error, self._tree.root, key) from error
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as again:
            raise translate(again, self._tree.root, key) from again
        if not st.S_ISREG(found.st_mode):
            return None
        return ObjectInfo(key, found.st_size, "", found.st_mtime_ns // 1000)

    def _open_first(self) -> None:
        above = self._prefix.rpartition("/")[0]
        parts = split(above) if above else []
        os.close(self._tree.open_root())  # NoSuchBucket, whatever the prefix
        if parts is None:
            return
        try:
            folder = self._tree.open_folder(parts)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                return
            raise translate(error, self._tree.root, above) from error
        try:
            readable = os.open(".", _BELOW, dir_fd=folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise translate(error, self._tree.root, above) from error
        finally:
            os.close(folder)
        self._enter(readable, f"{above}/" if above else "")

    def _descend(self, level: _Level, key: str, name: bytes) -> None:
        try:
            folder = os.open(name, _BELOW, dir_fd=level.folder)
        except OSError as error:
            if error.errno in _GONE:
                return
            raise translate(error, self._tree.root, key) from error
        self._enter(folder, key)

    def _enter(self, folder: int, prefix: str) -> None:
        entries: list[tuple[str, bytes]] = []
        try:
            with os.scandir(folder) as found:
                for entry in found:
                    name = os.fsencode(entry.name)
                    text = key_text(name)
                    if entry.is_symlink():
                        if self._wanted(prefix + text) or self._wanted(f"{prefix}{text}/"):
                            self._links.add(prefix + text)
                    elif entry.is_dir(follow_symlinks=False):
                        if self._wanted(f"{prefix}{text}/"):
                            entries.append((text + "/", name))
                    elif entry.is_file(follow_symlinks=False) and self._wanted(prefix + text):
                        entries.append((text, name))
        except OSError as error:
            os.close(folder)
            if error.errno == errno.ENOENT:
                return
            raise translate(error, self._tree.root, prefix) from error
        entries.sort(reverse=True)
        if any(one[0] == other[0] for one, other in pairwise(entries)):
            entries = self._once(folder, prefix, entries)
        self._levels.append(_Level(folder, prefix, entries))

    def _once(self, folder: int, prefix: str, entries: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """Some file systems give a name twice while the folder changes (readdir(3) says nothing of it); that is one
        file. Two names that are one key can't be told apart (base.Storage.list: odd bytes come as `\\xNN`)."""
        once = sorted(set(entries), reverse=True)
        for one, other in pairwise(once):
            if one[0] == other[0]:
                os.close(folder)
                raise StorageError(
                    f"{self._tree.root}: {one[1]!r} and {other[1]!r} are both the key {prefix + one[0]!r}; rename one"
                )
        return once

    def _wanted(self, key: str) -> bool:
        """Whether a file's key, or any key below a folder's (which ends in `/`), is part of this listing."""
        if key.endswith("/"):
            below = key.startswith(self._prefix) or self._prefix.startswith(key)
            return below and (key > self._start_after or self._start_after.startswith(key))
        return key.startswith(self._prefix) and key > self._start_after


@dataclass(slots=True)
class _Visit:
    folder: int
    path: str
    name: str
    old: bool
    below: list[str]
    #: Nothing but folders was seen in it, and those that were left have been removed.
    empty: bool


def sweep_empty_folders(
    tree: Tree, prefix: str, older_than: int, keep: frozenset[str] = frozenset()
) -> Generator[int, None, None]:
    """Remove old empty folders at or below the prefix, deepest first; yields how many so far, now and then.

    A folder's time is read before anything below it goes, since that changes it. rmdir does the rest: the kernel
    refuses a folder that something has been put into.
    """
    removed = visited = 0
    top = prefix.rstrip("/")
    parts = split(top) if top else []
    if parts is None:
        return
    try:
        above = tree.open_folder(parts[:-1])
    except OSError as error:
        if error.errno in _GONE:
            return
        raise translate(error, tree.root, top) from error
    stack: list[_Visit] = []
    try:
        _visit(tree.root, stack, above, top, parts[-1] if parts else ".", older_than)
        while stack:
            visit = stack[-1]
            if visit.below:
                name = visit.below.pop()
                path = f"{visit.path}/{name}" if visit.path else name
                if not _visit(tree.root, stack, visit.folder, path, name, older_than):
                    visit.empty = False
                visited += 1
                if visited % _STEP == 0:
                    yield removed
                continue
            stack.pop()
            os.close(visit.folder)
            gone = False
            kept = visit.path in KEPT_FOLDERS or visit.path.rpartition("/")[2] in keep
            if visit.empty and visit.old and not kept:
                parent = stack[-1].folder if stack else above
                gone = _remove(tree.root, parent, visit)
                removed += gone
            if stack and not gone:
                stack[-1].empty = False
        yield removed
    finally:
        os.close(above)
        for visit in stack:
            os.close(visit.folder)


def _visit(root: Path, stack: list[_Visit], above: int, path: str, name: str, older_than: int) -> bool:
    """Open a folder and put it on the stack; False when it is gone (or a link now)."""
    try:
        folder = os.open(name, _BELOW, dir_fd=above)
    except OSError as error:
        if error.errno in _GONE:
            return False
        raise translate(error, root, path) from error
    try:
        old = os.fstat(folder).st_mtime_ns // 1000 < older_than
        below, empty = [], True
        with os.scandir(folder) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
                else:
                    empty = False
    except OSError as error:
        os.close(folder)
        if error.errno == errno.ENOENT:
            return False
        raise translate(error, root, path) from error
    stack.append(_Visit(folder, path, name, old, below, empty))
    return True


def _remove(root: Path, parent: int, visit: _Visit) -> bool:
    try:
        os.rmdir(visit.name, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EBUSY):
            return False
        raise translate(error, root, visit.path) from error
    return True


def remove_folders(tree: Tree, folders: Sequence[str]) -> int:
    """Remove these in their order, up to the first that is not empty (or no folder); how many there were."""
    removed = 0
    for folder in folders:
        parts = split(folder)
        if parts is None or folder in KEPT_FOLDERS:
            break
        try:
            above = tree.open_folder(parts[:-1])
            try:
                os.rmdir(parts[-1], dir_fd=above)
            finally:
                os.close(above)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EBUSY):
                break
            raise translate(error, tree.root, folder) from error
        removed += 1
    return removed
