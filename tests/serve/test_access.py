"""Who may ask: passwords, addresses, TLS, and clients that are slow or hostile."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from regstore.errors import InputError, Refused
from regstore.hosts import is_loopback
from regstore.registry import Registry
from regstore.serve import access, bodies, server
from regstore.serve.access import Passwords, read_htpasswd
from regstore.serve.answers import ApiError
from regstore.serve.mounts import StoreMount
from regstore.serve.server import ServeOptions, parse_listen
from regstore.storage.disk import DiskStorage
from tests.backup.places import memory
from tests.registry.stores import push
from tests.serve.served import Served, served
from tests.servers import images
from tests.servers.certificates import make_certificate

IMAGE = images.image("access", parts=1)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def write_users(path: Path, **users: str) -> Path:
    import bcrypt

    lines = [f"{user}:{bcrypt.hashpw(word.encode(), bcrypt.gensalt(4)).decode()}" for user, word in users.items()]
    path.write_text("# users\n\n" + "\n".join(lines) + "\n")
    return path


async def mount() -> StoreMount:
    storage = memory()
    await push(Registry(storage).repository("team/app"), IMAGE, "1.0")
    return StoreMount(Registry(storage))


@pytest.fixture
def users(tmp_path: Path) -> Path:
    return write_users(tmp_path / "users", alice="right", bob="horse battery")


async def test_a_password_opens_everything_and_none_nothing(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "PENALTY", 0.0)
    async with served(await mount(), htpasswd=users) as client:
        for path in ("/v2/", "/v2/_catalog", "/v2/team/app/manifests/1.0", "/nowhere", "/"):
            answer = await client.ask(path)
            assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
            assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
        for wrong in (
            basic("alice", "wrong"),
            basic("nobody", "right"),
            "Bearer x",
            "Basic !",
            "Basic " + "A" * 5000,
        ):
            assert (await client.ask("/v2/", Authorization=wrong)).status == 401
        assert (await client.ask("/v2/", Authorization=basic("alice", "right"))).status == 200
        assert (await client.ask("/v2/", Authorization=basic("bob", "horse battery"))).status == 200
        assert (await client.ask("/healthz")).status == 200, "a monitor has no password"


async def test_a_right_password_is_compared_once(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    right = access._matches
    monkeypatch.setattr(access, "_matches", lambda *given: compared.append(1) or right(*given))  # type: ignore[func-returns-value]
    async with served(await mount(), htpasswd=users) as client:
        for _ in range(5):
            assert (await client.ask("/v2/", Authorization=basic("alice", "right"))).status == 200
        assert len(compared) == 1
        # Who is taken out of the file is out.
        write_users(users, bob="horse battery")
        monkeypatch.setattr(access, "PENALTY", 0.0)
        assert (await client.ask("/v2/", Authorization=basic("alice", "right"))).status == 401
        users.write_text("nonsense")
        assert (await client.ask("/v2/", Authorization=basic("bob", "horse battery"))).status == 200


async def test_guessing_is_slow_and_takes_little(users: Path) -> None:
    """Ten thousand wrong passwords at once: few are compared, the others are sent away, and who knows one gets in."""
    passwords = Passwords(users)

    class Request:
        def __init__(self, header: str, remote: str) -> None:
            self.headers = {"Authorization": header}
            self.remote = remote

    async def guess(number: int) -> int:
        try:
            await passwords.check(Request(basic("alice", f"guess {number}"), "192.0.2.1"))  # type: ignore[arg-type]
        except ApiError as error:
            return error.status
        return 200

    begun = time.monotonic()
    guesses = [asyncio.create_task(guess(number)) for number in range(10_000)]
    await asyncio.sleep(0)
    await passwords.check(Request(basic("alice", "right"), "192.0.2.2"))  # type: ignore[arg-type]
    statuses = await asyncio.gather(*guesses)
    assert statuses.count(429) >= 10_000 - access.WAITING
    assert statuses.count(401) == access.WAITING
    assert time.monotonic() - begun >= access.PENALTY
    assert not passwords._waiting


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("alice:$apr1$x$y", "line 1: the hash of 'alice' is MD5"),
        ("alice:{SHA}abc", "SHA-1"),
        ("alice:plain", "not bcrypt"),
        ("alice", "not `user:hash`"),
        ("", "names no user"),
    ],
)
def test_a_password_file_that_registries_would_not_take(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "users").write_text(line)
    with pytest.raises(InputError, match=said):
        read_htpasswd(tmp_path / "users")
    with pytest.raises(InputError, match="can't be read"):
        read_htpasswd(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:5000", "127.0.0.1", 5000), ("[::1]:0", "::1", 0), (":5000", "", 5000), ("a.b:1", "a.b", 1)],
)
def test_where_to_listen(text: str, host: str, port: int) -> None:
    assert parse_listen(text) == (host, port)


@pytest.mark.parametrize("text", ["", "5000", "host", "host:", "host:x", "host:70000", "host:-1"])
def test_nowhere_to_listen(text: str) -> None:
    with pytest.raises(InputError, match="HOST:PORT"):
        parse_listen(text)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_others_are_let_in_only_in_words(host: str, users: Path) -> None:
    assert not is_loopback(host)
    with pytest.raises(Refused, match="--without-password"):
        ServeOptions(host=host)
    ServeOptions(host=host, open_to_all=True)
    ServeOptions(host=host, htpasswd=users)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_computer_needs_no_password(host: str) -> None:
    assert ServeOptions(host=host).port == 5000


async def test_a_port_that_is_taken_is_one_sentence() -> None:
    async with served(await mount()) as client:
        with pytest.raises(InputError, match=f"can't listen on 127.0.0.1:{client.port}"):
            async with served(await mount(), port=client.port):
                pass


async def test_every_address_is_that_of_ipv6_too() -> None:
    async with served(await mount(), host="", open_to_all=True) as client:
        for host in ("127.0.0.1", "[::1]"):
            async with client.session.get(f"http://{host}:{client.port}/healthz") as response:
                assert response.status == 200


async def test_over_tls_blobs_come_too(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    async with served(await mount(), tls_cert=cert, tls_key=key) as client:
        assert client.url.startswith("https://")
        context = ssl.create_default_context(cafile=str(cert))
        blob = IMAGE.blobs[0]
        url = f"https://localhost:{client.port}/v2/team/app/blobs/{blob.digest}"
        async with client.session.get(url, ssl=context) as response:
            assert await response.read() == blob.data


async def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    with pytest.raises(InputError, match="give both"):
        ServeOptions(tls_cert=cert)
    key.write_text("nonsense")
    with pytest.raises(InputError, match="no certificate and its key"):
        async with served(await mount(), tls_cert=cert, tls_key=key):
            pass


async def test_who_sends_its_request_a_byte_at_a_time_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE", 0.3)
    async with served(await mount()) as client:
        _, writer = await asyncio.open_connection("127.0.0.1", client.port)
        with pytest.raises(ConnectionError):
            for byte in b"GET /v2/ HTTP/1.1\r\nX-Long: " + b"x" * 10_000:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
        assert await Answering(client).still()


@pytest.mark.parametrize("place", ["memory", "disk"])
@pytest.mark.parametrize("takes", [0, 1], ids=["nothing", "a byte now and then"])
async def test_who_takes_nothing_is_let_go(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str, takes: int
) -> None:
    monkeypatch.setattr(bodies, "STALLED", 0.3)
    let_go, cut = asyncio.Event(), bodies.cut

    def cut_and_tell(request: web.Request) -> None:
        cut(request)
        let_go.set()

    monkeypatch.setattr(bodies, "cut", cut_and_tell)
    storage = memory() if place == "memory" else DiskStorage(tmp_path, create=True)
    info = await Registry(storage).repository("team/app").blobs.put(b"x" * 40_000_000)
    async with storage, served(StoreMount(Registry(storage))) as client:
        with socket.create_connection(("127.0.0.1", client.port)) as connection:
            connection.sendall(f"GET /v2/team/app/blobs/{info.digest} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            connection.setblocking(False)  # the server is of this very loop
            loop, got = asyncio.get_running_loop(), 0
            async with asyncio.timeout(30):
                while not let_go.is_set():
                    await asyncio.sleep(0.02)
                    with suppress(BlockingIOError):
                        got += len(connection.recv(takes)) if takes else 0
                with suppress(ConnectionError):
                    while chunk := await loop.sock_recv(connection, 1_000_000):
                        got += len(chunk)
            assert got < info.size
        assert await Answering(client).still()


class Answering:
    def __init__(self, client: Served) -> None:
        self.client = client

    async def still(self) -> bool:
        return (await self.client.ask("/v2/team/app/manifests/1.0")).status in (200, 404)


async def test_a_head_that_is_too_long_is_refused() -> None:
    async with served(await mount()) as client:
        for path, headers in (("/v2/" + "a" * 20_000, {}), ("/v2/", {"X_Long": "x" * 20_000})):
            try:
                answer = await client.ask(path, **headers)
            except aiohttp.ClientError:
                continue
            assert answer.status in (400, 404, 414, 431)
        assert (await client.ask("/v2/")).status == 200


async def test_an_answer_bears_the_headers_that_keep_a_browser_safe() -> None:
    async with served(await mount()) as client:
        for path in ("/v2/", "/v2/none/tags/list", "/v2/team/app/manifests/1.0", "/healthz"):
            headers: Any = (await client.ask(path)).headers
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Server"] == "regstore"


async def test_a_mistake_inside_says_nothing_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    async def broken(self: object, name: str) -> None:
        raise ZeroDivisionError("secret")

    mounts = await mount()
    monkeypatch.setattr(StoreMount, "find", broken)
    async with served(mounts, on_event=lambda event: told.append(str(event))) as client:
        answer = await client.ask("/v2/team/app/tags/list")
        assert (answer.status, answer.code) == (500, "UNKNOWN")
        assert "secret" not in answer.body.decode()
    assert "ZeroDivisionError: secret" in told[0]
