"""Hashing files as fast as a core can. Blocking; the interpreter's lock is let go for nearly all of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Final

from regstore.errors import NoSuchBucket, StorageError
from regstore.storage.disk.folders import Tree, translated

#: Small enough for a core's own cache, so that what was read is hashed from there; large enough for a system call.
#: Read, not mapped: mapping is no quicker (measured), and a bad sector under a mapped page kills the process.
_BUFFER: Final = 256 << 10


def hash_file(
    file: int, algorithm: str, on_bytes: Callable[[int], None], stopped: Callable[[], bool]
) -> tuple[int, str] | None:
    """Bytes and hash (hex) of a file, from its beginning; None when stopped before the end. OSError where it can't be
    read. on_bytes is called with each number of bytes that were hashed."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    running = hashlib.new(algorithm)
    buffer = memoryview(bytearray(_BUFFER))
    size = 0
    while not stopped():
        read = os.preadv(file, [buffer], size)
        if not read:
            return size, running.hexdigest()
        running.update(buffer[:read])
        size += read
        on_bytes(read)
    return None


def hash_objects(
    tree: Tree, wanted: Sequence[tuple[str, str]], on_bytes: Callable[[int], None], stopped: Callable[[], bool]
) -> dict[str, tuple[int, str] | StorageError]:
    """As `HashesObjects` says."""
    found: dict[str, tuple[int, str] | StorageError] = {}
    for key, algorithm in wanted:
        try:
            file = tree.open_file(key)
            try:
                with translated(tree.root, key):
                    hashed = hash_file(file, algorithm, on_bytes, stopped)
            finally:
                os.close(file)
        except NoSuchBucket:
            raise
        except StorageError as error:
            found[key] = error
            continue
        if hashed is None:
            break
        found[key] = hashed
    return found
