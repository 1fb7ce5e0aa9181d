"""What is bounded: connections, those who wait for a plan, and whose word counts behind a proxy."""

from __future__ import annotations

import asyncio
import http.client
import resource
import signal
import ssl
import subprocess
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from multidict import CIMultiDict

from regstore.errors import InputError
from regstore.events import Event, Notice, OnEvent
from regstore.registry import Registry
from regstore.serve import access, certificate, index, rendering
from regstore.serve.certificate import Certificate
from regstore.serve.connections import most_connections
from regstore.serve.proxies import NO_PROXIES, Proxies
from regstore.storage.disk import DiskStorage
from tests.backup.places import memory
from tests.registry.stores import push
from tests.serve.served import served
from tests.serve.test_access import IMAGE, basic, mount, write_users
from tests.serve.test_pages import fill, look, pages_of
from tests.servers.certificates import make_certificate

Start = Callable[..., "subprocess.Popen[str]"]
HEAD = b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n"


def telling(told: list[str]) -> OnEvent:
    def tell(event: Event) -> None:
        assert isinstance(event, Notice)
        told.append(event.message)

    return tell


async def connect(port: int, stack: AsyncExitStack) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    stack.callback(writer.close)
    return reader, writer


async def ask(port: int, stack: AsyncExitStack) -> bytes:
    reader, writer = await connect(port, stack)
    writer.write(HEAD)
    return await reader.readline()


class TestConnections:
    async def test_no_more_than_there_is_room_for(self) -> None:
        told: list[str] = []
        async with (
            served(await mount(), connections=50, on_event=telling(told)) as client,
            asyncio.timeout(30),
        ):
            async with AsyncExitStack() as stack:
                first, writer = await connect(client.port, stack)
                for _ in range(49):  # who connects and says nothing takes room too
                    await connect(client.port, stack)
                await asyncio.sleep(0.1)
                for _ in range(20):
                    reader, other = await connect(client.port, stack)
                    other.write(HEAD)
                    answer = await reader.read()
                    assert answer.startswith(b"HTTP/1.1 503 ")
                    assert b"\r\nRetry-After: 5\r\n" in answer
                    assert b'"code":"TOOMANYREQUESTS"' in answer
                for _ in range(300):
                    await connect(client.port, stack)
                writer.write(HEAD)
                assert b" 200 " in await first.readline(), "who is in is served on"
            assert len(told) == 1
            assert told[0].startswith("50 connections are open")
            while b" 200 " not in await ask(client.port, stack):
                await asyncio.sleep(0.05)
            await stack.aclose()

    async def test_no_room_in_the_system_is_a_sentence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        told: list[str] = []
        async with served(await mount(), on_event=telling(told)) as client:
            loop = asyncio.get_running_loop()
            for _ in range(3):
                error = OSError(24, "Too many open files")
                loop.call_exception_handler(
                    {"message": "socket.accept() out of system resource", "exception": error}
                )
            assert told == ["a connection could not be taken: [Errno 24] Too many open files"]
            assert (await client.ask("/v2/")).status == 200

    def test_the_limit_of_files_says_how_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for files, most in ((1024, 274), (20_000, 6600), (resource.RLIM_INFINITY, 20_000), (10, 1)):
            monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, files))
            assert most_connections() == most

    @pytest.mark.slow
    @pytest.mark.long
    async def test_ten_thousand_at_a_time(self, start: Start, tmp_path: Path) -> None:
        """Or as many as the limit of files allows; some say nothing, some a byte now and then, and others are
        served."""
        async with DiskStorage(tmp_path, create=True) as storage:
            await push(Registry(storage).repository("team/app"), IMAGE, "1.0")
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        process = start("serve", tmp_path, "--listen", "127.0.0.1:0", cwd=tmp_path)
        assert process.stderr is not None
        port = int(process.stderr.readline().rpartition(";")[0].rpartition(":")[2])
        async with AsyncExitStack() as stack, asyncio.timeout(120):
            pulling = await connect(port, stack)
            writers = []
            for _ in range(min(limit - 200, 10_000) // 100):
                found = await asyncio.gather(*(connect(port, stack) for _ in range(100)), return_exceptions=True)
                writers += [one[1] for one in found if not isinstance(one, BaseException)]
            for byte in HEAD[:5]:
                for writer in writers[::7]:
                    writer.write(bytes([byte]))
            pulling[1].write(b"GET /v2/team/app/manifests/1.0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b" 200 " in await pulling[0].readline()
            await stack.aclose()
            while b" 200 " not in await ask(port, stack):
                await asyncio.sleep(0.1)
            await stack.aclose()
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
        assert "Traceback" not in said
        assert said.count("connections are open") <= 1


class TestQueue:
    async def test_few_wait_for_a_plan(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(index, "_QUEUE", 2)
        goes_on = threading.Event()
        plan, begun = index.View._plan, []

        async def slowly(view: index.View, name: str, work: Callable[[Any], object]) -> None:
            begun.append(name)
            await asyncio.to_thread(goes_on.wait, 30)
            await plan(view, name, work)

        storage = memory()
        await fill(storage)
        async with pages_of(storage) as client:
            await look(client, "/garbage")
            monkeypatch.setattr(index.View, "_plan", slowly)

            async def trying(number: int) -> Any:
                form = {"policy": f'[[rule]]\nrepositories = ["*"]\nkeep_newest = {number}\n'}
                async with client.session.post(client.url + "/garbage", data=form) as response:
                    return response.status, response.headers.get("Retry-After")

            waiting = [asyncio.create_task(trying(number + 1)) for number in range(2)]
            async with asyncio.timeout(30):
                while len(begun) < 2:
                    await asyncio.sleep(0.01)
                assert await trying(9) == (503, "5")
                assert (await client.ask("/garbage")).status == 200, "what is planned is shown"
                goes_on.set()
                assert await asyncio.gather(*waiting) == [(200, None)] * 2

    async def test_a_page_is_made_beside_the_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        threads = []
        render = rendering.render

        def note(*given: Any) -> str:
            threads.append(threading.current_thread() is threading.main_thread())
            return render(*given)

        monkeypatch.setattr(rendering, "render", note)
        storage = memory()
        await fill(storage)
        async with pages_of(storage) as client:
            await look(client, "/")
        assert True not in threads
        assert threads


def asking(remote: str, **headers: str) -> Any:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return SimpleNamespace(remote=remote, headers=CIMultiDict(names))


class TestProxies:
    PROXIES = Proxies.parse(["127.0.0.1", "10.0.0.0/8", "fd00::/8"])

    @pytest.mark.parametrize(
        ("remote", "forwarded", "client"),
        [
            ("192.0.2.1", "203.0.113.9", "192.0.2.1"),  # no proxy of ours: its word is worth nothing
            ("127.0.0.1", "203.0.113.9", "203.0.113.9"),
            ("127.0.0.1", "198.51.100.1, 203.0.113.9", "203.0.113.9"),  # the first is the client's own word
            ("127.0.0.1", "203.0.113.9, 10.1.1.1", "203.0.113.9"),
            ("127.0.0.1", "10.1.1.1", "10.1.1.1"),
            ("127.0.0.1", "", "127.0.0.1"),
            ("127.0.0.1", "203.0.113.9, nonsense", "127.0.0.1"),
            ("::ffff:127.0.0.1", "203.0.113.9:4711", "203.0.113.9"),
            ("fd00::1", "[2001:db8:1:2:3::4]:80", "2001:db8:1:2::/64"),
            ("2001:db8:1:2:9::9", "203.0.113.9", "2001:db8:1:2::/64"),
            ("", "203.0.113.9", ""),
        ],
    )
    def test_who_asks(self, remote: str, forwarded: str, client: str) -> None:
        assert self.PROXIES.client(asking(remote, X_Forwarded_For=forwarded)) == client
        assert NO_PROXIES.client(asking("192.0.2.1", X_Forwarded_For=forwarded)) == "192.0.2.1"

    @pytest.mark.parametrize(
        ("remote", "headers", "host"),
        [
            ("192.0.2.1", {"Host": "a:5000", "X_Forwarded_Host": "b"}, "a:5000"),
            (
                "127.0.0.1",
                {"Host": "a:5000", "X_Forwarded_Host": "evil, registry.example.org"},
                "registry.example.org",
            ),
            ("127.0.0.1", {"Host": "[::1]:5000"}, "[::1]:5000"),
            ("127.0.0.1", {"Host": "a;reboot"}, ""),
            ("127.0.0.1", {"Host": "a", "X_Forwarded_Host": "$(reboot)"}, ""),
        ],
    )
    def test_how_they_call_this_server(self, remote: str, headers: dict[str, str], host: str) -> None:
        assert self.PROXIES.host(asking(remote, **headers)) == host

    @pytest.mark.parametrize("text", ["proxy.example.org", "10.0.0.1/8", "", "10.0.0"])
    def test_what_is_no_proxy(self, text: str) -> None:
        with pytest.raises(InputError, match="--trusted-proxy"):
            Proxies.parse([text])

    async def test_one_who_guesses_does_not_lock_out_the_others(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(access, "PENALTY", 0.5)
        monkeypatch.setattr(access, "WAITING", 3)
        users = write_users(tmp_path / "users", alice="right")
        wrong, right = basic("alice", "wrong"), basic("alice", "right")
        for proxies, status in ((self.PROXIES, 200), (NO_PROXIES, 429)):
            async with served(await mount(), htpasswd=users, proxies=proxies) as client:
                guesses = [
                    asyncio.create_task(client.ask("/v2/", Authorization=wrong, X_Forwarded_For="203.0.113.9"))
                    for _ in range(6)
                ]
                while not any(guess.done() for guess in guesses):
                    await asyncio.sleep(0.01)
                answer = await client.ask("/v2/", Authorization=right, X_Forwarded_For="203.0.113.10")
                assert answer.status == status
                assert sorted(each.status for each in await asyncio.gather(*guesses)) == [401] * 3 + [429] * 3


class TestRenewal:
    async def test_a_certificate(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(certificate, "LOOK", 0.05)
        cert, key = make_certificate(tmp_path)
        first = cert.read_bytes()
        told: list[str] = []

        def shown(port: int) -> bytes:
            return ssl.get_server_certificate(("127.0.0.1", port)).encode()

        async def until(words: str) -> None:
            async with asyncio.timeout(20):
                while not told or words not in told[-1]:
                    await asyncio.sleep(0.02)

        options: dict[str, Any] = {"tls_cert": cert, "tls_key": key, "on_event": telling(told)}
        async with served(await mount(), **options) as client:
            assert await asyncio.to_thread(shown, client.port) == first
            cert.write_text("nonsense")
            await until("are no certificate and its key")
            assert told[-1].endswith("the one that was there is served on")
            assert await asyncio.to_thread(shown, client.port) == first
            (tmp_path / "new").mkdir()
            new_cert, new_key = make_certificate(tmp_path / "new")
            new_cert.replace(cert)  # of another key yet
            await asyncio.sleep(0.2)
            assert await asyncio.to_thread(shown, client.port) == first
            new_key.replace(key)
            await until("was renewed")
            assert await asyncio.to_thread(shown, client.port) == cert.read_bytes() != first
            assert len(told) <= 3, "each state is told once"

    def test_a_certificate_that_is_none_at_first(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no certificate and its key"):
            Certificate(tmp_path / "none", tmp_path / "none", on_event=print)

    async def test_a_broken_password_file_is_told_once(self, tmp_path: Path) -> None:
        told: list[str] = []
        users = write_users(tmp_path / "users", alice="right")
        header = basic("alice", "right")
        async with served(await mount(), htpasswd=users, on_event=telling(told)) as client:
            for broken in ("nonsense", "alice:$apr1$x$y"):
                users.write_text(broken)
                for _ in range(3):
                    assert (await client.ask("/v2/", Authorization=header)).status == 200
            users.unlink()
            assert (await client.ask("/v2/", Authorization=header)).status == 200
        assert len(told) == 3
        assert all(line.endswith("the passwords that were there are taken on") for line in told)

    @pytest.mark.long
    def test_a_hangup_takes_new_files_and_ends_nothing(self, start: Start, tmp_path: Path) -> None:
        (tmp_path / "store/docker/registry/v2/blobs").mkdir(parents=True)
        (tmp_path / "store/docker/registry/v2/x").write_text("")
        cert, key = make_certificate(tmp_path)
        process = start(
            "serve", tmp_path / "store", "--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key
        )
        assert process.stderr is not None
        port = int(process.stderr.readline().rpartition(";")[0].rpartition(":")[2])
        make_certificate(tmp_path)
        process.send_signal(signal.SIGHUP)
        assert "was renewed" in process.stderr.readline()
        context = ssl.create_default_context(cafile=str(cert))
        with closing(http.client.HTTPSConnection("localhost", port, context=context)) as connection:
            connection.request("GET", "/v2/")
            assert connection.getresponse().status == 200
