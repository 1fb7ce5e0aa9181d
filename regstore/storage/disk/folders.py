"""The blocking core of the disk backend: files of one folder tree, reached without ever leaving it.

A key's folders are opened refusing symbolic links: all in one call where the system can (`openat2`), else, and to
tell what is wrong, one below the other, each relative to the one above (openat with O_NOFOLLOW). So no link, and no
race with one, leads out of the root. The root itself may be a link.

Functions here raise OSError, which `translated` turns into regstore's errors, and `Unsupported` for what a
disk cannot hold or regstore does not follow.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat as st
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from regstore.errors import (
    AccessDenied,
    AlreadyExists,
    IntegrityError,
    NoSuchBucket,
    NotFound,
    StorageError,
    StorageFull,
    Unsupported,
)
from regstore.layout import PREFIX, STATE
from regstore.storage.base import ObjectInfo
from regstore.storage.disk.openat2 import open_below
from regstore.storage.private import make_private_folders

#: Beside each other in the root of a store: what is ours, and the registry's.
_STATE: Final = STATE.rstrip("/")
_REGISTRY: Final = PREFIX.partition("/")[0]
#: Files of at most this many bytes are read when they are looked at, for their MD5.
SMALL: Final = 256

_WALK: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
ATTEMPTS: Final = 100
_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_DENIED: Final = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def translated(root: Path, key: str = "") -> Iterator[None]:
    """Foreign errors of the block, as regstore's, naming the path."""
    try:
        yield
    except OSError as error:
        raise translate(error, root, key) from error


def translate(error: OSError, root: Path, key: str = "") -> StorageError:
    where = f"{root}/{key}" if key else str(root)
    reason = error.strerror or str(error)
    if error.errno in _ABSENT and key:
        return NotFound(key, str(root))
    if error.errno in _FULL:
        return StorageFull(f"{where}: {reason}; make room and run the command again")
    if error.errno in _DENIED:
        return AccessDenied(f"{where}: {reason}; run regstore as a user that may do this, such as the registry's")
    if error.errno == errno.EEXIST:
        return AlreadyExists(f"{where} exists already")
    if error.errno in (errno.EISDIR, errno.ENOTEMPTY):
        return Unsupported(f"{where} is a folder, so a disk cannot hold a file of that name")
    return StorageError(f"{where}: {reason}")


def split(key: str) -> list[str] | None:
    """A key's path components, or None where no file can have that key."""
    parts = key.split("/")
    if "\0" in key or not all(part and part not in (".", "..") for part in parts):
        return None
    try:
        key.encode()
    except UnicodeEncodeError:
        return None
    return parts


def split_to_read(key: str, root: Path) -> list[str]:
    parts = split(key)
    if parts is None:
        raise NotFound(key, str(root))
    return parts


def split_to_write(key: str) -> list[str]:
    parts = split(key)
    if parts is None:
        raise Unsupported(f"{key!r} cannot be a file's path; only S3 can hold such a key")
    if any(len(part.encode()) > 255 for part in parts):
        raise Unsupported(f"{key[:80]!r}… has a component of more than 255 bytes, which a disk cannot hold")
    return parts


def key_text(name: bytes) -> str:
    """A file's name as part of a key: bytes that are not UTF-8 become `\\xNN`."""
    return name.decode("utf-8", "backslashreplace")


class Tree:
    """The folders below one root. Each method opens what it needs and closes it again, unless it says otherwise."""

    def __init__(self, root: Path, *, create: bool = False) -> None:
        self.root = root
        self._create = create
        self._is_private = False
        self._is_superuser = os.geteuid() == 0

    def keep_private(self) -> None:
        """From now on, what is made is the user's alone, whatever the umask."""
        self._is_private = True

    @property
    def is_private(self) -> bool:
        return self._is_private

    @property
    def file_mode(self) -> int:
        """Of a new file, before the umask."""
        return 0o600 if self._is_private else 0o644

    def open_to_all(self) -> str:
        """As `HasModes` says. What lies deeper is reached only through what is looked at: the root, and in it."""
        try:
            root = self.open_root()
        except StorageError:
            return ""
        try:
            above = (parent.stat().st_mode for parent in self.root.resolve().parents)
            if not all(mode & st.S_IXOTH for mode in (os.fstat(root).st_mode, *above)):
                return ""
            for name in sorted(path.name for path in self.root.iterdir()):
                mode = os.stat(name, dir_fd=root, follow_symlinks=False).st_mode
                if mode & (st.S_IXOTH if st.S_ISDIR(mode) else st.S_IROTH) and not st.S_ISLNK(mode):
                    return f"{self.root}/{name}"
        except OSError:
            pass
        finally:
            os.close(root)
        return ""

    def open_root(self) -> int:
        """NoSuchBucket when the root is missing: a disk that is not mounted is no empty store."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            return os.open(self.root, flags)
        except FileNotFoundError as error:
            if not self._create:
                raise NoSuchBucket(f"no such folder: {self.root}") from error
        except NotADirectoryError as error:
            raise NoSuchBucket(f"{self.root} is not a folder") from error
        except OSError as error:
            raise translate(error, self.root) from error
        try:
            if self._is_private:
                make_private_folders(self.root)
            else:
                self.root.mkdir(parents=True, exist_ok=True)
            return os.open(self.root, flags)
        except OSError as error:
            raise translate(error, self.root) from error

    def open_folder(self, parts: list[str], *, create: bool = False, made: set[int] | None = None) -> int:
        """A descriptor (for the caller to close) of the folder at these components.

        Unsupported where one of them is a symbolic link; an OSError where one is missing or a file.
        made: gets the depths (0 is the root) of the folders in which one had to be made, for `sync_made`, once a
        file in the deepest keeps them all from being removed as empty.
        """
        for attempt in range(ATTEMPTS):
            folder = self.open_root()
            if parts and (below := open_below(folder, "/".join(parts), _WALK)) is not None:
                os.close(folder)
                return below
            done: list[str] = []
            try:
                for part in parts:
                    done.append(part)
                    folder = self._step(folder, done, create, made)
            except FileNotFoundError as error:
                os.close(folder)
                if not create:
                    raise
                # One that was open or just made may have been removed, being empty.
                if attempt == ATTEMPTS - 1:
                    where = "/".join([str(self.root), *parts])
                    raise StorageError(
                        f"{where} is removed as fast as it is made: is another sweep under way?"
                    ) from error
            except BaseException:
                os.close(folder)
                raise
            else:
                return folder
        raise AssertionError("unreachable")

    def _step(self, folder: int, done: list[str], create: bool, made: set[int] | None) -> int:
        """The folder `done[-1]` below; closes the one above. On an error the one above stays open."""
        name = done[-1]
        for attempt in range(ATTEMPTS):
            try:
                below = os.open(name, _WALK, dir_fd=folder)
            except FileNotFoundError:
                if not create or attempt == ATTEMPTS - 1:
                    raise
                with suppress(FileExistsError):
                    self._make_folder(folder, name, is_state=done == [_STATE])
                    if made is not None:
                        made.add(len(done) - 1)
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    key = "/".join(done)
                    refuse_link(folder, name, self.root, key)
                    if create:
                        raise Unsupported(f"{self.root}/{key} is a file: nothing can be stored below it") from error
                raise
            else:
                os.close(folder)
                return below
        raise AssertionError("unreachable")

    def _make_folder(self, folder: int, name: str, *, is_state: bool) -> None:
        mode = 0o700 if self._is_private else 0o755
        if is_state and not self._is_private:
            # What lies in the trash and the journals of a registry is for those who may read the registry.
            with suppress(OSError):
                mode &= os.stat(_REGISTRY, dir_fd=folder, follow_symlinks=False).st_mode
        os.mkdir(name, mode, dir_fd=folder)
        if self._is_superuser:
            _own(name, os.fstat(folder), folder)

    def sync_made(self, parts: list[str], made: set[int]) -> None:
        """Make the folders durable that `open_folder` made on the way to `parts`."""
        for depth in sorted(made):
            # One that is gone by now was emptied by somebody else, and has nothing to lose.
            with suppress(FileNotFoundError):
                folder = self.open_folder(parts[:depth])
                try:
                    sync_folder(folder)
                finally:
                    os.close(folder)

    def own(self, file: int, folder: int) -> None:
        """Give a new file the owner of its folder, so that a registry under another user can read and delete it."""
        if self._is_superuser:
            _own(file, os.fstat(folder), None)

    def open_file(self, key: str) -> int:
        """A descriptor of a regular file, to read (for the caller to close). NotFound when absent."""
        parts = split_to_read(key, self.root)
        root = self.open_root()
        try:
            file = open_below(root, key, _READ)
        finally:
            os.close(root)
        if file is not None:
            if st.S_ISREG(os.fstat(file).st_mode):
                return file
            os.close(file)
        with translated(self.root, key):  # and what is wrong
            folder = self.open_folder(parts[:-1])
            try:
                return open_regular(folder, parts[-1], self.root, key)
            finally:
                os.close(folder)

    def stat(self, key: str) -> ObjectInfo:
        file = self.open_file(key)
        try:
            with translated(self.root, key):
                return facts(file, key)
        finally:
            os.close(file)

    def read(self, key: str) -> bytes:
        file = self.open_file(key)
        try:
            with translated(self.root, key):
                return _read_all(file)
        finally:
            os.close(file)

    def read_many(self, keys: Sequence[str]) -> Sequence[bytes | StorageError]:
        """Of each, what it holds, or why it can't be read."""
        found: list[bytes | StorageError] = []
        for key in keys:
            try:
                found.append(self.read(key))
            except NoSuchBucket:
                raise
            except StorageError as error:
                found.append(error)
        return found

    def changed_at(self, key: str) -> int:
        """The file's ctime in microseconds; 0 where it is absent, or can't be looked at."""
        try:
            file = self.open_file(key)
        except NoSuchBucket:
            raise
        except StorageError:
            return 0
        try:
            return os.fstat(file).st_ctime_ns // 1000
        finally:
            os.close(file)

    def delete(self, key: str) -> bool:
        """Whether a file was there. Folders and special files stay; a symbolic link is refused."""
        parts = split(key)
        if parts is None:
            return False
        try:
            folder = self.open_folder(parts[:-1])
            try:
                mode = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False).st_mode
                if st.S_ISLNK(mode):
                    refuse_link(folder, parts[-1], self.root, key)
                if not st.S_ISREG(mode):
                    return False
                os.unlink(parts[-1], dir_fd=folder)
                return True
            finally:
                os.close(folder)
        except OSError as error:
            if error.errno in _ABSENT:
                return False
            raise translate(error, self.root, key) from error

    def sync_folder_of(self, key: str) -> None:
        """Make deletions in the key's folder durable; a folder that is gone has none left to lose."""
        with suppress(NotFound), translated(self.root, key):
            folder = self.open_folder(key.split("/")[:-1])
            try:
                sync_folder(folder)
            finally:
                os.close(folder)

    def move(self, source: str, target: str, size: int) -> bool:
        """Rename, durably. False, with nothing changed, where the two lie on different file systems."""
        from_parts, to_parts = split_to_read(source, self.root), split_to_write(target)
        with translated(self.root, source):
            from_folder = self.open_folder(from_parts[:-1])
        try:
            with translated(self.root, source):
                found = os.stat(from_parts[-1], dir_fd=from_folder, follow_symlinks=False)
                if st.S_ISLNK(found.st_mode):
                    refuse_link(from_folder, from_parts[-1], self.root, source)
                if not st.S_ISREG(found.st_mode):
                    raise NotFound(source, str(self.root))
            if found.st_size != size:
                raise IntegrityError(
                    f"{self.root}/{source} has {found.st_size:,} bytes, not {size:,}: it changed, and is not moved"
                )
            made: set[int] = set()
            for attempt in range(ATTEMPTS):
                with translated(self.root, target):
                    to_folder = self.open_folder(to_parts[:-1], create=True, made=made)
                try:
                    refuse_link(to_folder, to_parts[-1], self.root, target)
                    os.rename(from_parts[-1], to_parts[-1], src_dir_fd=from_folder, dst_dir_fd=to_folder)
                except OSError as error:
                    if error.errno == errno.EXDEV:
                        return False
                    if error.errno != errno.ENOENT:
                        raise translate(error, self.root, target) from error
                    # Either the source went, or the target's folder did, before it had anything in it.
                    if attempt == ATTEMPTS - 1 or not _exists(from_folder, from_parts[-1]):
                        raise NotFound(source, str(self.root)) from error
                else:
                    with translated(self.root, target):
                        self.sync_made(to_parts, made)
                        sync_folder(to_folder)
                        sync_folder(from_folder)
                    return True
                finally:
                    os.close(to_folder)
            raise AssertionError("unreachable")
        finally:
            os.close(from_folder)


def refuse_link(folder: int, name: str, root: Path, key: str) -> None:
    """Raise Unsupported where the name is a symbolic link: what it points at is neither absent nor ours."""
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except OSError as error:
        if error.errno in _ABSENT:
            return
        raise
    if st.S_ISLNK(mode):
        raise Unsupported(f"{root}/{key} is a symbolic link, which regstore does not follow; use a bind mount")


def refuse_folder(folder: int, name: str, root: Path, key: str) -> None:
    with suppress(FileNotFoundError):
        if st.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise Unsupported(f"{root}/{key} is a folder, so a disk cannot hold a file of that name")


def open_regular(folder: int, name: str | bytes, root: Path, key: str) -> int:
    """A descriptor of a regular file, to read; NotFound for what is a folder or a special file."""
    try:
        file = os.open(name, _READ, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Unsupported(
                f"{root}/{key} is a symbolic link, which regstore does not follow; use a bind mount"
            ) from error
        if error.errno == errno.ENXIO:  # a socket, or a pipe nobody reads
            raise NotFound(key, str(root)) from error
        raise
    if not st.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise NotFound(key, str(root))
    return file


def facts(file: int, key: str) -> ObjectInfo:
    """Size, MD5 (of a small file) and time of an open file, all of one moment."""
    for _ in range(ATTEMPTS):
        found = os.fstat(file)
        mtime = found.st_mtime_ns // 1000
        if found.st_size > SMALL:
            return ObjectInfo(key, found.st_size, "", mtime)
        data = os.pread(file, SMALL + 1, 0)
        if len(data) == found.st_size:
            etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
            return ObjectInfo(key, found.st_size, etag, mtime)
    return ObjectInfo(key, found.st_size, "", mtime)


def sync_folder(folder: int) -> None:
    """fsync a folder, by any descriptor of it. File systems that have no such thing say EINVAL.

    One that was removed meanwhile, being empty, has nothing to lose.
    """
    try:
        readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return
    try:
        os.fsync(readable)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(readable)


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _read_all(file: int) -> bytes:
    """The content, read again while another process changes its length."""
    for _ in range(ATTEMPTS):
        size = os.fstat(file).st_size
        pieces, offset = [], 0
        while True:
            wanted = max(size - offset, 0) + 1
            piece = os.pread(file, wanted, offset)
            pieces.append(piece)
            offset += len(piece)
            if not piece or (len(piece) < wanted and offset >= size):
                break
        if offset == size == os.fstat(file).st_size:
            break
    return b"".join(pieces)


def _own(what: str | int, above: os.stat_result, folder: int | None) -> None:
    if (above.st_uid, above.st_gid) == (os.geteuid(), os.getegid()):
        return
    # A server that maps root to nobody refuses; the file is then as good as any other that it makes.
    with suppress(PermissionError):
        if folder is None:
            os.chown(what, above.st_uid, above.st_gid)
        else:
            os.chown(what, above.st_uid, above.st_gid, dir_fd=folder, follow_symlinks=False)
