"""What is found out about a folder by writing to it, below `regstore/`: nothing of it stays. Blocking."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from regstore.errors import AlreadyExists, NoSuchBucket, StorageError, Unsupported
from regstore.layout import PROBE, STATE
from regstore.storage.base import TEMPORARY
from regstore.storage.disk.folders import Tree
from regstore.storage.disk.newfile import NewFile


def has_conditional_put(tree: Tree) -> bool:
    """Whether a second file of one name is refused. False where none can be made."""
    key = f"{PROBE}{uuid.uuid4().hex}"
    with _state_folder_as_before(tree):
        try:
            file = NewFile(tree, key)
            file.publish(if_absent=True)
            try:
                NewFile(tree, key).publish(if_absent=True)
            except AlreadyExists:
                return True
            return False
        except NoSuchBucket:
            raise
        except StorageError:
            return False
        finally:
            with suppress(StorageError):
                tree.delete(key)


def time_of_files(tree: Tree) -> int:
    """The time that a file made now gets, in microseconds; this computer's own where none can be made."""
    name = TEMPORARY + uuid.uuid4().hex
    try:
        with _state_folder_as_before(tree):
            folder = tree.open_folder(STATE.rstrip("/").split("/"), create=True)
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                file = os.open(name, flags, tree.file_mode, dir_fd=folder)
                try:
                    # The server's time, where there is a server; on a full disk that of the empty file.
                    with suppress(OSError):
                        os.write(file, b"0")
                        os.fsync(file)
                    return os.fstat(file).st_mtime_ns // 1000
                finally:
                    os.close(file)
                    os.unlink(name, dir_fd=folder)
            finally:
                os.close(folder)
    except (OSError, Unsupported):
        return time.time_ns() // 1000


@contextmanager
def _state_folder_as_before(tree: Tree) -> Iterator[None]:
    """Where it was not there, it is removed again, unless somebody has put something into it."""
    was_there = os.path.lexists(tree.root / STATE)
    try:
        yield
    finally:
        if not was_there:
            with suppress(OSError, StorageError):
                root = tree.open_root()
                try:
                    os.rmdir(STATE.rstrip("/"), dir_fd=root)
                finally:
                    os.close(root)
