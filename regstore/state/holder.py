"""What a lock in the store says: who holds it, and until when."""

from __future__ import annotations

import json
import math
import os
import platform
from dataclasses import dataclass
from typing import Final

from regstore.errors import NotFound
from regstore.state import LOCKS, is_run
from regstore.state.process import is_certainly_dead, this_process
from regstore.storage.base import ObjectInfo, Storage

LEASE: Final = 600.0
#: No lock, and no intent of a backup, counts as if it had a longer lease, whatever it says. Seconds.
LONGEST_LEASE: Final = 86400.0
#: Bytes of a lock that are worth reading, and characters of what it says.
_LONGEST: Final = 65536
_LONGEST_WORD: Final = 200
_SECOND: Final = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lock. lease in seconds; process names one process of one machine, "" where that can't be told."""

    run: str
    command: str
    user: str
    host: str
    pid: int
    process: str
    lease: float

    @classmethod
    def this(cls, run: str, command: str, lease: float) -> Holder:
        pid = os.getpid()
        user = os.environ.get("USER") or os.environ.get("LOGNAME") or str(os.getuid())
        return cls(
            run=run, command=command, user=user, host=platform.node(), pid=pid, process=this_process(), lease=lease
        )

    @classmethod
    def parse(cls, run: str, body: bytes) -> Holder:
        """Never raises: a lock that can't be read is a lock all the same, with the usual lease."""
        try:
            known = json.loads(body)
        except (ValueError, RecursionError):
            known = None
        if not isinstance(known, dict):
            known = {}

        def word(name: str, otherwise: str = "?") -> str:
            value = known.get(name)
            # What JSON can write and UTF-8 can't would break what shows it.
            return value[:_LONGEST_WORD].encode(errors="replace").decode() if isinstance(value, str) else otherwise

        pid = known.get("pid")
        return cls(
            run=run,
            command=word("command"),
            user=word("user"),
            host=word("host"),
            pid=pid if type(pid) is int and 0 < pid < 1 << 31 else 0,
            process=word("process", ""),
            lease=sane_lease(known.get("lease"), LEASE),
        )

    @property
    def is_dead(self) -> bool:
        """Certainly gone, as far as this machine can tell."""
        return is_certainly_dead(self.process)


@dataclass(frozen=True, kw_only=True)
class FoundLock:
    """A lock in the store. Times in microseconds by the store's clock."""

    holder: Holder
    key: str
    written: int
    expires: int

    def __str__(self) -> str:
        holder = self.holder
        return f"`{holder.command}` of {holder.user} on {holder.host} (pid {holder.pid}, run {holder.run})"


def sane_lease(value: object, otherwise: float) -> float:
    """A lease as a file says it, in seconds: at most `LONGEST_LEASE`; otherwise where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0 or value == math.inf:
        return otherwise
    return float(min(value, LONGEST_LEASE))


async def read_lock(storage: Storage, info: ObjectInfo) -> FoundLock | None:
    """The lock that was listed; None where it is none, or gone."""
    run = info.key[len(LOCKS) :]
    if not is_run(run):
        return None
    try:
        holder = Holder.parse(run, await storage.get(info.key) if info.size <= _LONGEST else b"")
    except NotFound:
        return None
    return found_lock(info, holder)


def found_lock(info: ObjectInfo, holder: Holder) -> FoundLock:
    """What was listed, and says this."""
    return FoundLock(
        holder=holder, key=info.key, written=info.mtime, expires=info.mtime + int(holder.lease * _SECOND)
    )
