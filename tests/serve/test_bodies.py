"""How a blob's bytes go out: from a disk by threads, from elsewhere read ahead."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from regstore import layout
from regstore.digest import Digest
from regstore.registry import Registry
from regstore.serve import bodies
from regstore.serve.mounts import StoreMount
from regstore.storage.disk import DiskStorage
from tests.backup.places import memory, open_place
from tests.serve.served import Served, served
from tests.servers.s3 import S3Root, S3Server

NAME = "team/app"
BODY = os.urandom(3_000_001)
PATH = f"/v2/{NAME}/blobs/{Digest.of(BODY)}"
PARTS = [
    (None, BODY),
    ("bytes=0-", BODY),
    ("bytes=1-2999999", BODY[1:3_000_000]),
    ("bytes=2000000-2000099", BODY[2_000_000:2_000_100]),
    ("bytes=-2500000", BODY[-2_500_000:]),
]


async def ask_for_all(client: Served) -> None:
    for wanted, body in PARTS:
        answer = await client.ask(PATH, **({"Range": wanted} if wanted else {}))
        assert (answer.status, answer.body == body) == (206 if wanted else 200, True)
        assert answer.headers["Content-Length"] == str(len(body))


class TestFromADisk:
    async def test_every_part_comes_as_it_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bodies, "_TURN", 1_000_000)
        async with DiskStorage(tmp_path, create=True) as storage:
            await Registry(storage).repository(NAME).blobs.put(BODY)
            async with served(StoreMount(Registry(storage))) as client:
                await ask_for_all(client)
                await asyncio.gather(*(ask_for_all(client) for _ in range(10)))

    async def test_a_disk_that_stands_still_holds_up_nobody_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stands, goes_on = threading.Event(), threading.Event()
        sendfile = os.sendfile

        def slowly(*given: int) -> int:
            stands.set()
            assert goes_on.wait(30)
            return sendfile(*given)

        monkeypatch.setattr(os, "sendfile", slowly)
        async with DiskStorage(tmp_path, create=True) as storage:
            await Registry(storage).repository(NAME).blobs.put(BODY)
            async with served(StoreMount(Registry(storage))) as client:
                pull = asyncio.create_task(client.ask(PATH))
                await asyncio.to_thread(stands.wait, 30)
                async with asyncio.timeout(20):
                    assert (await client.ask("/v2/")).status == 200
                goes_on.set()
                assert (await pull).body == BODY

    async def test_clients_that_take_nothing_hold_no_thread(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bodies, "_THREADS", 2)
        large = b"x" * 20_000_000
        async with DiskStorage(tmp_path, create=True) as storage:
            blobs = Registry(storage).repository(NAME).blobs
            await blobs.put(BODY)
            path = f"/v2/{NAME}/blobs/{(await blobs.put(large)).digest}"
            async with served(StoreMount(Registry(storage))) as client, asyncio.timeout(30):
                idle = [await asyncio.open_connection("127.0.0.1", client.port, limit=1000) for _ in range(5)]
                for reader, writer in idle:
                    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                    await reader.readuntil(b"\r\n\r\n")
                assert (await client.ask(PATH)).body == BODY
                for _, writer in idle:
                    writer.close()

    async def test_a_file_that_became_shorter_is_cut_off(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with DiskStorage(tmp_path, create=True) as storage:
            await Registry(storage).repository(NAME).blobs.put(BODY)
            key = layout.encode(layout.BlobKey(Digest.of(BODY)))
            sendfile = os.sendfile

            def shortly(out: int, file: int, offset: int, count: int) -> int:
                return sendfile(out, file, offset, count) if offset < 1_000_000 else 0

            monkeypatch.setattr(os, "sendfile", shortly)
            async with served(StoreMount(Registry(storage))) as client:
                with pytest.raises(aiohttp.ClientPayloadError):
                    await client.ask(PATH)
                assert (await client.ask("/v2/")).status == 200
                assert (await storage.stat(key)).size == len(BODY)


class TestReadAhead:
    @pytest.fixture(autouse=True)
    def small_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bodies, "_PART", 400_000)

    async def test_every_part_comes_as_it_is_with_few_requests(self) -> None:
        storage = memory()
        await Registry(storage).repository(NAME).blobs.put(BODY)
        async with served(StoreMount(Registry(storage))) as client:
            await ask_for_all(client)
            before = storage.counters.requests["get"]
            assert (await client.ask(PATH)).body == BODY
            assert storage.counters.requests["get"] - before == 1 + -(-len(BODY) // 400_000), (
                "a link, and the parts"
            )

    @pytest.mark.servers
    async def test_from_real_servers(self, s3_server: S3Server) -> None:
        """An empty object has no range that they would give."""
        bucket = s3_server.create_bucket()
        async with open_place(S3Root(s3_server, bucket, "/root")) as storage:
            blobs = Registry(storage).repository(NAME).blobs
            await blobs.put(BODY)
            empty = await blobs.put(b"")
            async with served(StoreMount(Registry(storage))) as client:
                await ask_for_all(client)
                for wanted, status in ((None, 200), ("bytes=x", 200), ("bytes=0-", 416)):
                    answer = await client.ask(
                        f"/v2/{NAME}/blobs/{empty.digest}", **({"Range": wanted} if wanted else {})
                    )
                    assert (wanted, answer.status) == (wanted, status)

    async def test_only_some_clients_have_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        storage = memory()
        await Registry(storage).repository(NAME).blobs.put(BODY)
        lengths = []
        open_read = storage.open_read

        def note(key: str, *, start: int = 0, length: int | None = None) -> object:
            lengths.append((start, length))
            return open_read(key, start=start, length=length)

        monkeypatch.setattr(storage, "open_read", note)
        async with served(StoreMount(Registry(storage))) as client:
            answers = await asyncio.gather(*(client.ask(PATH) for _ in range(20)))
            assert all(answer.body == BODY for answer in answers)
            assert lengths.count((0, 400_000)) >= bodies._AHEAD_FOR
            assert lengths.count((0, None)) >= 20 - lengths.count((0, 400_000)) > 0
            lengths.clear()
            await client.ask(PATH)
            assert lengths[0] == (0, 400_000), "who is done gives it back"

    async def test_a_blob_that_changes_meanwhile_is_cut_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        storage = memory()
        await Registry(storage).repository(NAME).blobs.put(BODY)
        key = layout.encode(layout.BlobKey(Digest.of(BODY)))
        send = bodies._send_chunks

        async def change(*given: object) -> None:
            await storage.put(key, BODY[::-1])
            await send(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(bodies, "_send_chunks", change)
        async with served(StoreMount(Registry(storage))) as client:
            with pytest.raises(aiohttp.ClientPayloadError):
                await client.ask(PATH)
            with suppress(aiohttp.ClientError):
                await client.ask(PATH)
            assert (await client.ask("/v2/")).status == 200
