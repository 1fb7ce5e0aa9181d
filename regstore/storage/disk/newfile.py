"""Writing a file of the disk backend: whole or not at all, durable, and never over a symbolic link. Blocking."""

from __future__ import annotations

import errno
import os
import uuid
from contextlib import suppress
from typing import Final

from regstore.errors import StorageError, Unsupported
from regstore.storage.base import TEMPORARY
from regstore.storage.disk.folders import (
    ATTEMPTS,
    Tree,
    refuse_folder,
    refuse_link,
    split_to_write,
    sync_folder,
    translated,
)

CHUNK: Final = 1 << 20

#: What copy_file_range says where it cannot serve this pair of files.
_NO_COPY_RANGE: Final = (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM)
_NO_LINKS: Final = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)


class NewFile:
    """A file being written: a temporary name beside its target, until `publish` or `discard`."""

    def __init__(self, tree: Tree, key: str) -> None:
        self._tree = tree
        self._key = key
        *above, self._name = split_to_write(key)
        self._temporary: str | None = TEMPORARY + uuid.uuid4().hex
        self.size = 0
        with translated(tree.root, key):
            made: set[int] = set()
            for attempt in range(ATTEMPTS):
                self._folder = tree.open_folder(above, create=True, made=made)
                try:
                    refuse_link(self._folder, self._name, tree.root, key)
                    refuse_folder(self._folder, self._name, tree.root, key)
                    self._file = os.open(
                        self._temporary,
                        os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                        tree.file_mode,
                        dir_fd=self._folder,
                    )
                except FileNotFoundError as error:
                    # Removed as an empty folder between its making and this file's.
                    os.close(self._folder)
                    if attempt == ATTEMPTS - 1:
                        raise StorageError(
                            f"{tree.root}/{key}: its folder is removed as fast as it is made"
                        ) from error
                except BaseException:
                    os.close(self._folder)
                    raise
                else:
                    break
            try:
                tree.own(self._file, self._folder)
                tree.sync_made(above, made)
            except BaseException:
                self.discard()
                raise

    @property
    def inode(self) -> int:
        """Its number in the file system, which it keeps when it is published."""
        return os.fstat(self._file).st_ino

    def write(self, data: bytes | memoryview) -> None:
        with translated(self._tree.root, self._key):
            rest = memoryview(data)
            while rest:
                written = os.write(self._file, rest)
                self.size += written
                rest = rest[written:]

    def copy_from(self, source: int, length: int) -> int:
        """Append up to `length` bytes of an open file, from where it stands; returns how many, 0 at its end."""
        with translated(self._tree.root, self._key):
            copied = 0
            if hasattr(os, "copy_file_range"):
                try:
                    copied = os.copy_file_range(source, self._file, length)
                except OSError as error:
                    if error.errno not in _NO_COPY_RANGE:
                        raise
            if copied:
                self.size += copied
                return copied
            data = os.read(source, min(length, CHUNK))
        self.write(data)
        return len(data)

    def publish(self, *, if_absent: bool = False) -> None:
        """Durable and visible under its key, in one step. AlreadyExists (if_absent) leaves things as they were."""
        assert self._temporary is not None
        try:
            with translated(self._tree.root, self._key):
                os.fsync(self._file)
                if if_absent:
                    self._link()
                else:
                    os.rename(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
                    self._temporary = None
                sync_folder(self._folder)
        finally:
            self.discard()

    def _link(self) -> None:
        assert self._temporary is not None
        try:
            os.link(
                self._temporary,
                self._name,
                src_dir_fd=self._folder,
                dst_dir_fd=self._folder,
                follow_symlinks=False,
            )
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise Unsupported(
                    f"{self._tree.root}: this file system has no hard links, so no conditional create"
                ) from error
            raise

    def discard(self) -> None:
        """Remove the temporary name, if there is one, and close. Idempotent; raises nothing."""
        if self._temporary is not None:
            with suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._folder)
            self._temporary = None
        for name in ("_file", "_folder"):
            descriptor = getattr(self, name, -1)
            if descriptor >= 0:
                setattr(self, name, -1)
                with suppress(OSError):
                    os.close(descriptor)
