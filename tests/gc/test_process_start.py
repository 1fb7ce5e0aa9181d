"""When the registry's processes were started: their metrics, and clocks that differ."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from regstore.errors import InputError, Unreachable
from regstore.gc import process_start
from regstore.gc.process_start import MARGIN, ask_processes, check_url, parse_metrics, started_after
from regstore.state.known_cache import KnownCache
from tests.gc.scenes import model_storage, small_registry
from tests.model.random_registry import NOW
from tests.servers.process import free_port

SECOND = 1_000_000
DATE = NOW // SECOND
METRICS = """# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.
# TYPE process_start_time_seconds gauge
process_start_time_seconds {start}
"""
ASKED = 'registry_storage_cache_total{{type="Request"}} {number}\n'


@contextmanager
def process(
    *starts: float, date: int | None = DATE, more: str = "", redis: bool | None = False, variables: str = ""
) -> Iterator[str]:
    """A debug address whose answers tell these starts in turn."""
    answers = list(starts)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                body = METRICS.format(start=answers[0]) + more
                answers.append(answers.pop(0))
            else:
                body = '{"registry": {%s}}' % ('"redis": {}' if redis else "") if redis is not None else "no"
                body = variables or body
            self.send_response_only(200)
            if date is not None:
                self.send_header("Date", formatdate(date, usegmt=True))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


async def ask(*urls: str, known: KnownCache | None = None) -> KnownCache:
    return await ask_processes(model_storage(small_registry()), known or KnownCache(kind="inmemory"), urls)


def test_metrics() -> None:
    found = parse_metrics(METRICS.format(start="1.79584916774e+09") + ASKED.format(number=0))
    assert (found.started, found.cache_asked) == (1795849167.74, False)
    assert parse_metrics(METRICS.format(start=1) + ASKED.format(number=47)).cache_asked
    for start in ("NaN", "+Inf", "0", "-1", "x", "1\nprocess_start_time_seconds 2"):
        with pytest.raises(Unreachable, match="process_start_time_seconds"):
            parse_metrics(METRICS.format(start=start))
    with pytest.raises(Unreachable):
        parse_metrics("<html>")


@pytest.mark.parametrize("skew", [0, 3600, -3600])
def test_a_start_is_never_placed_too_late(skew: int) -> None:
    """skew: by how much the registry's clock is ahead of the store's, in seconds. The true start is an hour ago."""
    date = DATE + skew
    after = started_after(date - 3600, date, NOW)
    assert after <= NOW - 3600 * SECOND - MARGIN
    # Behind, it is taken for earlier than it was: another night, and no harm.
    assert after >= NOW - 3600 * SECOND - MARGIN - SECOND - 3600 * SECOND * (skew < 0)


def test_a_proxy_that_writes_its_own_date() -> None:
    """Of a clock that is a day behind: the start itself does not come nearer by that."""
    after = started_after(DATE - 7200, DATE - 7100, NOW)
    assert after <= NOW - 7200 * SECOND - MARGIN
    with pytest.raises(Unreachable, match="after its own Date"):
        started_after(DATE, DATE - 3600, NOW)


async def test_all_processes_count() -> None:
    with process(DATE - 100) as young, process(DATE - 5000) as old:
        assert await ask() == KnownCache(kind="inmemory")
        known = await ask(young)
        assert known.restarted_after is not None and not known.doubt
        assert NOW - 102 * SECOND - MARGIN <= known.restarted_after <= NOW - 100 * SECOND - MARGIN
        both = await ask(young, old)
        assert both.restarted_after is not None
        assert both.restarted_after <= NOW - 5000 * SECOND - MARGIN
        silent = await ask(young, f"http://127.0.0.1:{free_port()}")
        assert silent.restarted_after is None and "could not be asked" in silent.doubt


async def test_a_restart_that_is_remembered_has_to_be_confirmed() -> None:
    """The command said that it was done, and a process went on as before."""
    restart = NOW - 110 * SECOND
    known = KnownCache(kind="inmemory", restarted_after=restart)
    with process(DATE - 100) as restarted, process(DATE - 5000) as left_out:
        assert (await ask(restarted, known=known)).restarted_after == restart
        after = (await ask(restarted, left_out, known=known)).restarted_after
        assert after is not None and after < restart


async def test_answers_that_say_too_little() -> None:
    with process(DATE - 100, date=None) as undated:
        assert "no Date" in (await ask(undated)).doubt
    with process(DATE - 100, DATE - 5000) as balancer:
        assert "behind no balancer" in (await ask(balancer)).doubt
    with process(DATE + 900) as future:
        assert "after its own Date" in (await ask(future)).doubt


@pytest.mark.parametrize("redis", [True, None])
async def test_a_cache_that_is_not_known_may_be_redis(redis: bool | None) -> None:
    with process(DATE - 100, redis=redis) as url:
        known = await ask(url, known=KnownCache())
        assert "Redis, which no restart empties" in known.doubt and known.restarted_after is None
        assert not (await ask(url)).doubt  # said to be in memory
    with process(DATE - 100) as url:
        assert (await ask(url, known=KnownCache())).restarted_after is not None


async def test_a_debug_address_that_answers_nonsense() -> None:
    for body in ("[" * 100_000, '{"registry": 5}'):
        with process(DATE - 100, variables=body) as url:
            assert "does not say whether it has a Redis" in (await ask(url, known=KnownCache())).doubt


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_a_debug_address_that_never_comes_to_an_end(begin: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives a byte now and then, as a log stream does, so no read of it takes long."""
    monkeypatch.setattr(process_start, "_TIMEOUT", 0.3)

    def stream(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.sendall(begin)
            while True:
                connection.sendall(b"x")
                connection.settimeout(0.05)
                with suppress(TimeoutError):
                    if not connection.recv(65536):
                        return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: stream(server.accept()[0]))
        thread.start()
        known = await ask(f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert "did not answer in" in known.doubt and known.restarted_after is None


async def test_a_cache_where_none_was_said() -> None:
    with process(DATE - 100, more=ASKED.format(number=3)) as url:
        assert "uses a descriptor cache" in (await ask(url, known=KnownCache(kind="none"))).doubt
        assert not (await ask(url)).doubt


def test_addresses() -> None:
    assert check_url("http://registry:5001/") == check_url("http://registry:5001/metrics") == "http://registry:5001"
    for url in ("registry:5001", "ftp://registry", "http://", "http://x:y", "http://registry/?a"):
        with pytest.raises(InputError, match="is no --registry-debug-url"):
            check_url(url)
    with pytest.raises(InputError, match="no password") as refused:
        check_url("http://user:secret@registry:5001")
    assert "secret" not in str(refused.value)
