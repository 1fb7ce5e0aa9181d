"""When the registry's processes were started, and whether they use a cache: asked on their debug addresses.

With `http.debug.prometheus.enabled`, `<debug address>/metrics` says `process_start_time_seconds` (seen with 2.8.2), and
`registry_storage_cache_total{type="Request"}` once a descriptor cache was asked anything, in memory or Redis (seen: not
there without one). `<debug address>/debug/vars` has `registry.redis` where a Redis is configured (seen with 2.8.2).

A process tells its start by its own computer's clock, and the store has another. So the start is placed on the
store's: its age, by the Date of the same answer, before the store's time; and it must be late enough by what it says
itself, too, for a proxy on the way may have written that Date. Whole seconds and small corrections of a clock are
what `MARGIN` is for.
"""

from __future__ import annotations

import http.client
import json
import math
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from regstore.concurrency import for_each, in_thread
from regstore.errors import InputError, Unreachable
from regstore.state.known_cache import SAY_ONCE, KnownCache
from regstore.storage.base import Storage

_SECOND: Final = 1_000_000
#: How much earlier than it seems a process may have been started, in microseconds.
MARGIN: Final = 60 * _SECOND
#: Two answers of one process differ by less, in seconds: Linux derives the start from the clock of the moment.
_SAME: Final = 5.0
#: How much too early a start is placed for the whole seconds on its way alone, in microseconds.
_ROUNDED: Final = 5 * _SECOND
_TIMEOUT: Final = 10.0
_LARGEST: Final = 16 << 20
_METRIC: Final = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{[^}]*\})?\s+(\S+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """started: by the process's own clock, in seconds since 1970. cache_asked: its cache was asked something."""

    started: float
    cache_asked: bool


def parse_metrics(text: str) -> Metrics:
    """Of Prometheus' text format. Unreachable without exactly one start of a process."""
    starts = set()
    asked = False
    for name, value in _METRIC.findall(text):
        if name not in ("process_start_time_seconds", "registry_storage_cache_total"):
            continue
        try:
            number = float(value)
        except ValueError:
            continue
        if name == "process_start_time_seconds":
            starts.add(number)
        else:
            asked = asked or number > 0
    if len(starts) != 1 or not all(math.isfinite(start) and start > 0 for start in starts):
        raise Unreachable("it does not say one process_start_time_seconds")
    return Metrics(started=starts.pop(), cache_asked=asked)


def started_after(started: float, date: int, now: int) -> int:
    """A time by the store's clock after which the process was certainly started, in microseconds.

    date: that of the answer, in whole seconds since 1970, rounded down; now: by the store's clock, before asking.
    Unreachable where the process says that it was started after it answered.
    """
    age = date + 1 - started
    if age < -1:
        raise Unreachable("it says a start that lies after its own Date")
    return min(now - math.ceil(age * _SECOND), math.floor(started * _SECOND)) - MARGIN


def check_url(url: str) -> str:
    """InputError where it is no http:// or https:// address, or holds a password. Without a final slash."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
        secret = parts.username is not None or parts.password is not None
        _ = parts.port
    except ValueError:
        fine, secret = False, False
    if "@" in url or secret:
        raise InputError("a --registry-debug-url takes no user and no password")
    if not fine:
        raise InputError(f"{url!r} is no --registry-debug-url, such as http://registry:5001")
    return url.rstrip("/").removesuffix("/metrics")


async def ask_processes(storage: Storage, known: KnownCache, urls: Sequence[str]) -> KnownCache:
    """What is known of the cache, with what the processes at these debug addresses say: one for every process.

    The restart that is remembered counts only where they confirm it, which spares `MARGIN`. Where one does not
    answer, or tells of a cache that was said not to be there, nothing may be emptied.
    """
    if not urls:
        return known
    addresses = [check_url(url) for url in urls]
    now = await storage.now()
    found: dict[str, tuple[int, Metrics, bool | None]] = {}
    silent: dict[str, str] = {}

    async def ask(url: str) -> None:
        try:
            found[url] = await in_thread(_ask, url, now, known.kind == "unknown")
        except Unreachable as error:
            silent[url] = str(error)
        except (OSError, http.client.HTTPException, ssl.SSLError, UnicodeError) as error:
            silent[url] = str(error) or type(error).__name__

    await for_each(addresses, ask, concurrency=16)
    restart = known.restarted_after
    known = replace(known, restarted_after=None)
    for url in addresses:
        if url in silent:
            return known.with_doubt(
                f"the registry's process at {url} could not be asked when it was started: {silent[url]}",
                f"see that {url}/metrics answers (http.debug.prometheus.enabled in the registry's configuration)",
            )
        _, metrics, redis = found[url]
        if metrics.cache_asked and known.kind == "none":
            return known.with_doubt(
                f"the registry's process at {url} uses a descriptor cache, and none was said ({known})",
                "say once to gc --registry-cache inmemory or redis",
            )
        if known.kind == "unknown" and redis is not False:
            said = "has a Redis" if redis else "does not say whether it has a Redis"
            return known.with_doubt(
                f"the registry's cache is not known, and its process at {url} {said}, which no restart empties",
                SAY_ONCE,
            )
    after = min(after for after, _, _ in found.values())
    if restart is not None and restart <= after + MARGIN + _ROUNDED:
        after = max(after, restart)
    return replace(known, restarted_after=after)


def _ask(url: str, now: int, with_vars: bool) -> tuple[int, Metrics, bool | None]:
    """When it was started, its metrics, and whether it has a Redis (None: not asked, or it does not say)."""
    metrics, date = _metrics(url)
    again, _ = _metrics(url)
    if abs(again.started - metrics.started) > _SAME:
        raise Unreachable("two answers come from two processes; give the address of each, behind no balancer")
    metrics = Metrics(
        started=min(metrics.started, again.started), cache_asked=metrics.cache_asked or again.cache_asked
    )
    return started_after(metrics.started, date, now), metrics, _has_redis(url) if with_vars else None


def _metrics(url: str) -> tuple[Metrics, int]:
    status, date, body = _get(f"{url}/metrics")
    if status != 200:
        raise Unreachable(f"/metrics answers {status}")
    try:
        moment = int(parsedate_to_datetime(date).timestamp())
    except (ValueError, TypeError) as error:
        raise Unreachable("its answer has no Date, so its clock can't be compared with the store's") from error
    return parse_metrics(body.decode("utf-8", "replace")), moment


def _has_redis(url: str) -> bool | None:
    try:
        status, _, body = _get(f"{url}/debug/vars")
        registry = json.loads(body)["registry"] if status == 200 else None
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, RecursionError):
        return None
    return "redis" in registry if isinstance(registry, dict) else None


def _get(url: str) -> tuple[int, str, bytes]:
    """Status, Date, body; on a connection of its own, straight, following nothing, in `_TIMEOUT` once it stands."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT)
    hung_up = threading.Event()
    try:
        connection.connect()
        with _hanging_up(connection.sock, hung_up):
            connection.request("GET", parts.path, headers={"Accept": "text/plain", "Connection": "close"})
            with connection.getresponse() as answer:
                body = answer.read(_LARGEST + 1)
    except (OSError, http.client.HTTPException):
        if not hung_up.is_set():
            raise
    finally:
        connection.close()
    if hung_up.is_set():
        raise Unreachable(f"it did not answer in {_TIMEOUT:.0f} s")
    if len(body) > _LARGEST:
        raise Unreachable("its answer is too long")
    return answer.status, answer.getheader("Date", ""), body


@contextmanager
def _hanging_up(connection: socket.socket, hung_up: threading.Event) -> Iterator[None]:
    """End the connection after `_TIMEOUT`: the socket's own limit begins anew with each byte that it is given."""

    def hang_up() -> None:
        hung_up.set()
        with suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

    timer = threading.Timer(_TIMEOUT, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
