"""Memory that copies reuse.

glibc gives memory of a megabyte and more back to the system when it is freed, and gets it anew, page by page, for the
next piece of a blob: an eighth to a sixth of the processor time of a copy of large ones (DECISIONS.md).
"""

from __future__ import annotations

import os
from typing import Final

_MiB: Final = 1024 * 1024
#: mallopt(3), malloc.h: what is given back, what is got apart from the rest, and for how many threads at once.
_SETTINGS: Final = {
    -1: 64 * _MiB,  # M_TRIM_THRESHOLD
    -3: 16 * _MiB,  # M_MMAP_THRESHOLD
    -8: 2,  # M_ARENA_MAX
}


def keep_freed_memory() -> bool:
    """Let the process keep up to 64 MiB that it has freed. False where the environment says how memory is to be
    managed, or the C library knows no such setting."""
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    taken = [mallopt(setting, value) == 1 for setting, value in _SETTINGS.items()]
    return all(taken)
