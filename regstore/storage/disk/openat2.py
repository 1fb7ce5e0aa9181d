"""Linux's openat2: a path below an open folder in one call of the system, and no symbolic link on the way.

Python has no name for it. Opening folder by folder comes to the same, at two calls a folder; with many threads each of
them is a fight for the interpreter's lock, and costs more than reading a small file does.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Any, Final

#: The system call's number, the same on every architecture but Alpha (linux/include/uapi/asm-generic/unistd.h).
_NUMBER: Final = 437
#: RESOLVE_NO_SYMLINKS and RESOLVE_BENEATH (linux/openat2.h).
_RESOLVE: Final = 0x04 | 0x08
#: What kernels before 5.6, and sandboxes that do not know it, say.
_UNKNOWN: Final = (errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG)

_call: Callable[[int, bytes, int], int] | None = None
_is_known = sys.platform == "linux" and os.uname().machine != "alpha"


def open_below(folder: int, path: str, flags: int) -> int | None:
    """A descriptor of what is at `path` below the folder; None where it can't be had so, for whatever reason."""
    global _call, _is_known
    if not _is_known:
        return None
    if _call is None:
        _call = _prepare()
    try:
        return _call(folder, os.fsencode(path), flags)
    except OSError as error:
        if error.errno in _UNKNOWN:
            _is_known = False
        return None


def _prepare() -> Callable[[int, bytes, int], int]:
    import ctypes

    class How(ctypes.Structure):
        _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]

    library = ctypes.CDLL(None, use_errno=True)
    syscall: Any = library.syscall
    syscall.restype = ctypes.c_long
    syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t]
    size = ctypes.sizeof(How)
    known: dict[int, How] = {}

    def call(folder: int, path: bytes, flags: int) -> int:
        how = known.get(flags)
        if how is None:
            how = known[flags] = How(flags, 0, _RESOLVE)
        while True:
            found = int(syscall(_NUMBER, folder, path, ctypes.byref(how), size))
            if found >= 0:
                return found
            number = ctypes.get_errno()
            if number != errno.EINTR:
                raise OSError(number, os.strerror(number))

    return call
