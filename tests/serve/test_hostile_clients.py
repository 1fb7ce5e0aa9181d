"""Clients that guess, stall, go away, or are somebody else's page in a browser."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from regstore.errors import InputError
from regstore.registry import Registry
from regstore.serve import access, api, bodies, referrers
from regstore.serve.access import Passwords, read_htpasswd
from regstore.serve.answers import ApiError
from regstore.serve.mounts import BackupMount, StoreMount
from tests.backup.places import memory, take
from tests.registry.stores import push
from tests.serve.served import served
from tests.serve.test_access import basic, mount, write_users
from tests.serve.test_api import BASE, DOCKER, IMAGE, NAME, fill, walk
from tests.servers import images


class Request:
    def __init__(self, header: str, remote: str = "192.0.2.1") -> None:
        self.headers = {"Authorization": header}
        self.remote = remote


class TestPasswords:
    async def test_who_guesses_and_goes_away_still_waits(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A guess that is cut short counts until it is compared and has taken its time."""
        monkeypatch.setattr(access, "PENALTY", 0.5)
        passwords = Passwords(write_users(tmp_path / "users", alice="right"))
        begun = time.monotonic()
        for number in range(access.WAITING):
            guess = asyncio.create_task(passwords.check(Request(basic("alice", f"{number}"))))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            guess.cancel()
            with suppress(asyncio.CancelledError):
                await guess
        with pytest.raises(ApiError, match="too many"):
            await passwords.check(Request(basic("alice", "one more")))  # type: ignore[arg-type]
        async with asyncio.timeout(30):
            while passwords._waiting:
                await asyncio.sleep(0.02)
        assert time.monotonic() - begun >= access.PENALTY

    async def test_who_is_taken_out_while_it_is_compared_is_out(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(access, "PENALTY", 0.0)
        users = write_users(tmp_path / "users", alice="right", bob="b")
        passwords = Passwords(users)
        matches = access._matches

        begun, go_on = threading.Event(), threading.Event()

        def slowly(*given: Any) -> bool:
            begun.set()
            assert go_on.wait(60)
            return matches(*given)

        monkeypatch.setattr(access, "_matches", slowly)
        first = asyncio.create_task(passwords.check(Request(basic("alice", "right"))))  # type: ignore[arg-type]
        assert await asyncio.to_thread(begun.wait, 60)
        write_users(users, bob="b")
        second = asyncio.create_task(passwords.check(Request(basic("bob", "b"))))  # type: ignore[arg-type]
        await asyncio.sleep(0)  # it has seen the new file
        go_on.set()
        await second
        with pytest.raises(ApiError):
            await first
        with pytest.raises(ApiError):
            await passwords.check(Request(basic("alice", "right")))  # type: ignore[arg-type]

    @pytest.mark.parametrize("cost", ["00", "03", "32", "99"])
    def test_a_hash_that_bcrypt_does_not_know_is_refused(self, tmp_path: Path, cost: str) -> None:
        (tmp_path / "users").write_text(f"alice:$2y${cost}${'a' * 53}\n")
        with pytest.raises(InputError, match="not bcrypt"):
            read_htpasswd(tmp_path / "users")


async def test_a_page_elsewhere_cannot_read_what_listens_on_this_computer(tmp_path: Path) -> None:
    """A name of its own that leads to 127.0.0.1 makes a page of theirs one of ours, for the browser."""
    async with served(await mount(), names=frozenset({"registry.example.org"})) as client:
        for host in (
            "evil.example",
            "evil.example:5000",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "a:b:c",
        ):
            for path in ("/v2/_catalog", "/", "/metrics"):
                answer = await client.ask(path, Host=host)
                assert (host, answer.status, answer.code) == (host, 421, "DENIED")
            assert (await client.ask("/healthz", Host=host)).status == 200
        for host in (
            "localhost:5000",
            "LOCALHOST",
            "a.localhost",
            "127.0.0.1",
            "[::1]:5000",
            "Registry.example.org:1",
        ):
            assert (await client.ask("/v2/", Host=host)).status == 200
    users = write_users(tmp_path / "users", alice="right")
    for options in ({"htpasswd": users}, {"open_to_all": True}):
        async with served(await mount(), **options) as client:
            answer = await client.ask("/v2/", Host="any.example", Authorization=basic("alice", "right"))
            assert answer.status == 200


async def test_who_takes_nothing_of_an_answer_in_memory_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "STALLED", 0.3)
    monkeypatch.setattr(bodies, "PIECE", 10**9)
    let_go, cut = asyncio.Event(), bodies.cut

    def cut_and_tell(request: web.Request) -> None:
        cut(request)
        let_go.set()

    monkeypatch.setattr(bodies, "cut", cut_and_tell)
    storage = memory()
    document = images.image("large", parts=1, annotations={"x": "y" * 30_000_000})
    for key, body in images.registry_keys("large", document, "x").items():
        await storage.put(key, body)
    async with served(StoreMount(Registry(storage))) as client:
        with socket.create_connection(("127.0.0.1", client.port)) as connection:
            connection.sendall(b"GET /v2/large/manifests/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with asyncio.timeout(10):
                await let_go.wait()
        assert (await client.ask("/v2/")).status == 200


async def test_requests_that_are_none_fill_no_log(capfd: pytest.CaptureFixture[str]) -> None:
    async with served(await mount()) as client:
        for data in (
            b"\x16\x03\x01\x02\x00\x01",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /v2/ HTTP/1.1\r\nbad header\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
            writer.write(data + b"\r\n" * 3)
            with suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(5):
                    assert b"Traceback" not in await reader.read()
            writer.close()
    assert "Traceback" not in capfd.readouterr().err


class TestDigests:
    async def test_who_asks_by_digest_gets_no_other(self) -> None:
        """An image in place of a list would be kept by a cache as that digest, for a year."""
        storage = memory()
        await fill(storage)
        async with served(StoreMount(Registry(storage))) as client:
            answer = await client.ask(f"{BASE}/manifests/{DOCKER.digest}", Accept=images.DOCKER_MANIFEST)
            assert (answer.status, answer.body) == (200, DOCKER.data)
            assert answer.headers["Docker-Content-Digest"] == DOCKER.digest
            by_tag = await client.ask(f"{BASE}/manifests/docker", Accept=images.DOCKER_MANIFEST)
            assert by_tag.headers["Vary"] == "Accept"


class TestReferrers:
    async def test_many_who_ask_at_once_read_each_manifest_once(self) -> None:
        storage = memory()
        await fill(storage)
        for number in range(40):
            await push(Registry(storage).repository(NAME), images.referrer(IMAGE, f"s{number}"))
        async with served(StoreMount(Registry(storage))) as client:
            before = dict(storage.counters.requests)
            path = f"{BASE}/referrers/{IMAGE.digest}"
            answers = await asyncio.gather(*(client.ask(path) for _ in range(10)))
            assert {len(answer.json["manifests"]) for answer in answers} == {41}
            reads = storage.counters.requests["get"] - before.get("get", 0)
            assert reads <= 60, "one for each revision"

    async def test_what_was_read_before_a_client_went_away_stays_known(self) -> None:
        storage = memory()
        await fill(storage)
        memory_of = referrers.ReferrersMemory()
        repository = Registry(storage).repository(NAME)
        await memory_of.of(repository, (await repository.manifests.get("1.0")).digest)
        known = len(memory_of._known)
        assert known > 3
        small = referrers.ReferrersMemory(room=2 * referrers._EACH)
        await small.of(repository, (await repository.manifests.get("1.0")).digest)
        assert len(small._known) <= 2

    async def test_a_long_list_comes_page_by_page(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(api, "_ANSWER", 2000)
        storage = memory()
        await fill(storage)
        wanted = set()
        for number in range(30):
            document = images.referrer(IMAGE, f"s{number}")
            wanted.add(document.digest)
            await push(Registry(storage).repository(NAME), document)
        async with served(StoreMount(Registry(storage))) as client:
            path = f"{BASE}/referrers/{IMAGE.digest}?artifactType=application%2Fspdx%2Bjson"
            assert len((await client.ask(path)).json["manifests"]) < 30
            found = [each["digest"] for each in await walk(client, path, "manifests")]  # type: ignore[index]
            assert found == sorted(found)
            assert set(found) >= wanted

    async def test_annotations_beyond_measure_are_left_to_the_manifest(self) -> None:
        storage = memory()
        await fill(storage)
        document = json.loads(images.referrer(IMAGE, "long").data)
        document["annotations"] = {"x": "y" * 100_000}
        long = images.Document(
            json.dumps(document).encode(), images.OCI_MANIFEST, images.referrer(IMAGE, "long").blobs
        )
        await push(Registry(storage).repository(NAME), long)
        async with served(StoreMount(Registry(storage))) as client:
            listed = (await client.ask(f"{BASE}/referrers/{IMAGE.digest}")).json["manifests"]
            (found,) = [each for each in listed if each["digest"] == long.digest]
            assert "annotations" not in found


async def test_a_backup_of_many_snapshots_keeps_few_of_them_in_memory() -> None:
    source, backup = memory(), memory()
    await fill(source)
    for number in range(7):
        await Registry(source).repository(NAME).tags.set(f"n{number}", IMAGE.digest)
        await take(source, backup)
    mounts = BackupMount(backup)
    snapshots = await mounts.refresh()
    assert len(snapshots) == 8
    for prefix in snapshots:
        await (await mounts.find(f"{prefix}/{NAME}")).tags.get("1.0")
    assert sum(bool(one._trees._kept) for one in set(snapshots.values())) <= 4
