"""Hashing an open file as fast as a core can. Blocking; the interpreter's lock is let go for nearly all of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Final

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
