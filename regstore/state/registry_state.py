"""What is remembered of the registry itself: its descriptor cache, and when it was last restarted.

    regstore/registry.json    {"cache": {"kind", "source", "said"}, "restart": {…}, "failed_restart": {…}}

Whatever of it can't be read counts as never said, which is the careful way. Written only by who holds the lock.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from regstore.errors import NotFound
from regstore.layout import REGISTRY_STATE
from regstore.storage.base import Storage

CacheKind = Literal["none", "inmemory", "redis", "unknown"]


@dataclass(frozen=True, kw_only=True)
class CacheWord:
    """What somebody said of the registry's cache: source is the option's name or the configuration's path, said the
    time in microseconds. kind "unknown": a cache was named that regstore does not know."""

    kind: CacheKind
    source: str
    said: int

    @property
    def day(self) -> str:
        return _day(self.said)

    def __str__(self) -> str:
        return f"{self.kind}, as {self.source} said on {self.day}"


@dataclass(frozen=True, kw_only=True)
class Restart:
    """One run of the restart command. began: by the store's clock, in microseconds, before the command was started.
    status: its exit status, negative for a signal; None where it took too long. output: the end of what it said."""

    run: str
    began: int
    seconds: float
    status: int | None
    output: str

    @property
    def done(self) -> bool:
        return self.status == 0

    @property
    def outcome(self) -> str:
        """In words: "ended with 1 on 2026-11-28"."""
        how = "took too long" if self.status is None else f"ended with {self.status}"
        return f"{how} on {_day(self.began)}"


@dataclass(frozen=True, kw_only=True)
class RegistryState:
    """restart: the last that succeeded; failed_restart: the last, where that failed."""

    cache: CacheWord | None = None
    restart: Restart | None = None
    failed_restart: Restart | None = None


def _day(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1_000_000, UTC):%Y-%m-%d}"


async def read_state(storage: Storage) -> RegistryState:
    """One GET."""
    try:
        known = json.loads(await storage.get(REGISTRY_STATE))
    except (NotFound, ValueError, RecursionError):
        return RegistryState()
    if not isinstance(known, dict):
        return RegistryState()
    return RegistryState(
        cache=_cache(known.get("cache")),
        restart=_restart(known.get("restart")),
        failed_restart=_restart(known.get("failed_restart")),
    )


async def write_state(storage: Storage, state: RegistryState) -> None:
    known = {name: value for name, value in asdict(state).items() if value is not None}
    await storage.put(REGISTRY_STATE, json.dumps(known, indent=1).encode())


def _cache(known: Any) -> CacheWord | None:
    try:
        word = CacheWord(kind=known["kind"], source=str(known["source"]), said=int(known["said"]))
        return word if word.kind in get_args(CacheKind) and word.day else None
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return None


def _restart(known: Any) -> Restart | None:
    try:
        status = known["status"]
        restart = Restart(
            run=str(known["run"]),
            began=int(known["began"]),
            seconds=float(known["seconds"]),
            status=None if status is None else int(status),
            output=str(known["output"]),
        )
        return restart if restart.outcome else None
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return None
