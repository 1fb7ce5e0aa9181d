"""The blocking face."""

from __future__ import annotations

import asyncio
import io
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

import regstore
from regstore import sync
from regstore.digest import Digest
from regstore.errors import IntegrityError, LockHeld, StorageError, TagUnknown
from regstore.layout import LayerLinkKey, encode
from regstore.migrate import MigrateOptions
from regstore.storage import OpenOptions
from tests.servers import images

ROOT = Path(regstore.__file__).parents[1]


def regstore_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "regstore"]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[sync.Registry]:
    with regstore.sync.open(tmp_path) as registry:
        yield registry
    assert regstore_threads() == []


def test_the_same_objects_without_await(registry: sync.Registry) -> None:
    repository = registry.repository("team/app")
    assert not repository.exists()
    image = images.image("x")
    for blob in image.blobs:
        assert repository.blobs.put(io.BytesIO(blob.data), blob.digest).size == len(blob.data)
    stored = repository.manifests.put(image.data, tag="1")
    assert [(tag.name, tag.digest) for tag in repository.tags] == [("1", stored.digest)]
    assert [of.name for of in registry.repositories()] == ["team/app"]
    assert list(repository.manifests) == [stored.digest]
    assert {str(digest) for digest in repository.blobs} == {blob.digest for blob in image.blobs}
    assert list(repository.uploads) == []
    assert {info.digest for info in registry.blobs} == {Digest.parse(digest) for digest in image.closure()}
    assert repository.describe("1").layers == 2
    assert [tag for tag, _ in repository.describe_tags()] == ["1"]
    assert len(repository.referrers("1")) == 0
    other = registry.repository("other")
    layer = image.blobs[1]
    with repository.blobs.open_read(layer.digest) as reader:
        assert reader.size == len(layer.data)
        info = other.blobs.put(reader, layer.digest)  # read and written through one loop
    assert other.blobs.read(info.digest) == layer.data
    assert registry.blobs.stat(info.digest).size == info.size
    repository.tags.set("2", stored.digest)
    repository.tags.delete("1")
    assert repository.manifests.delete("2") == ["2"]


def test_errors_come_through(registry: sync.Registry, tmp_path: Path) -> None:
    repository = registry.repository("a")
    with pytest.raises(IntegrityError):
        repository.blobs.put([b"a", b"b"], Digest.of(b"c"))

    def broken() -> Iterator[bytes]:
        yield b"a"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        repository.blobs.put(broken())
    repository.blobs.put(b"x")
    with pytest.raises(TagUnknown):
        repository.tags.get("1")
    with pytest.raises(ZeroDivisionError), repository.blobs.open_read(Digest.of(b"x")):
        _ = 1 / 0


def test_what_comes_before_an_error_is_not_lost(registry: sync.Registry, tmp_path: Path) -> None:
    data = b"x" * (5 << 20)
    repository = registry.repository("a")
    digest = repository.blobs.put(data).digest
    (tmp_path / images.blob_key(str(digest))).write_bytes(b"y" + data[1:])
    seen = 0
    with pytest.raises(IntegrityError), repository.blobs.open_read(digest) as reader:
        for chunk in reader:
            seen += len(chunk)
    assert seen == len(data)


def test_an_iterator_may_be_left(registry: sync.Registry, tmp_path: Path) -> None:
    keys = {}
    for number in range(300):
        digest = Digest.of(str(number).encode())
        keys[encode(LayerLinkKey("a", digest))] = str(digest).encode()
    images.write_keys(tmp_path, keys)
    for digest in registry.repository("a").blobs:
        assert digest
        break
    left = iter(registry.repository("a").blobs)
    next(left)
    assert len(list(registry.repository("a").blobs)) == 300


def test_closed(tmp_path: Path) -> None:
    registry = sync.open(tmp_path)
    iterator = iter(registry.blobs)
    registry.close()
    registry.close()
    with pytest.raises(RuntimeError, match="closed"):
        registry.is_registry()
    with pytest.raises(RuntimeError, match="closed"):
        next(iterator)
    assert regstore_threads() == []


def test_ctrl_c_leaves_nothing_half_done(tmp_path: Path) -> None:
    script = f"""
import time, regstore.sync
def slow():
    yield b"begin"
    print("writing", flush=True)
    for _ in range(600):
        time.sleep(0.05)
        yield b"."
with regstore.sync.open({str(tmp_path)!r}) as registry:
    registry.repository("a").blobs.put(slow())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in errors
    assert time.monotonic() - began < 20  # of 30
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_import_is_quick_and_loads_nothing_heavy() -> None:
    heavy = "{'duckdb', 'boto3', 'obstore', 'aiohttp', 'lxml'}"
    script = f"import sys, regstore; regstore.Registry; print(sorted({heavy} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout == "[]\n"
    assert set(regstore.__all__) <= set(dir(regstore))
    for name in regstore.__all__:
        assert getattr(regstore, name) is not None


def test_what_is_open_shares_one_loop(tmp_path: Path) -> None:
    with (
        sync.open(tmp_path) as registry,
        sync.storage.open_storage("memory://shared", OpenOptions(create=True)) as other,
    ):
        assert len(regstore_threads()) == 1
        registry.repository("a").blobs.put(b"x")
        with sync.gc.hold_lock(registry.storage, command="test") as lock:
            assert lock.run
            assert [path.name for path in (tmp_path / "regstore/locks").iterdir()] == [lock.run]
            result = sync.migrate.migrate(registry.storage, other, MigrateOptions(all=True))
        assert result.blobs == 1
        assert list((tmp_path / "regstore/locks").iterdir()) == []
    assert regstore_threads() == []


def test_an_error_within_a_context_goes_through_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), sync.storage.open_storage(tmp_path) as storage:
        with sync.gc.hold_lock(storage, command="test"):
            with pytest.raises(LockHeld), sync.gc.hold_lock(storage, command="second"):
                raise AssertionError
            _ = 1 / 0
    assert list((tmp_path / "regstore/locks").iterdir()) == []
    assert regstore_threads() == []


def test_what_another_thread_calls_while_it_closes_ends(tmp_path: Path) -> None:
    ended: list[str] = []

    def ask(registry: sync.Registry) -> None:
        try:
            while True:
                registry.is_registry()
        except (RuntimeError, CancelledError, StorageError) as error:  # all say that it is closed
            ended.append(type(error).__name__)

    for number in range(40):
        registry = sync.open(tmp_path)
        thread = threading.Thread(target=ask, args=[registry], daemon=True)
        thread.start()
        time.sleep(number % 5 / 1000)
        registry.close()
        thread.join(20)
    assert len(ended) == 40
    assert regstore_threads() == []


async def test_in_an_event_loop_it_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="would block the event loop that runs in this thread: await"):
        sync.open(tmp_path)
    with pytest.raises(RuntimeError, match="would block the event loop"), sync.storage.open_storage(tmp_path):
        raise AssertionError
    registry = await asyncio.to_thread(sync.open, tmp_path)
    with pytest.raises(RuntimeError, match="would block the event loop"):
        registry.is_registry()
    assert await asyncio.to_thread(registry.is_registry) is False
    await asyncio.to_thread(registry.close)
    assert regstore_threads() == []


def test_an_event_that_calls_back_is_refused(tmp_path: Path) -> None:
    """It comes in the loop's own thread, where to wait would be to wait for ever."""
    with sync.open(tmp_path) as registry:
        registry.repository("a").blobs.put(b"x")

        def call_back(event: object) -> None:
            registry.is_registry()

        with pytest.raises(RuntimeError, match="would block the event loop"):
            sync.verify.verify(registry.storage, on_event=call_back)


@pytest.mark.parametrize("within", ["time.sleep(60)", "slow()"])
def test_ctrl_c_gives_the_lock_back(tmp_path: Path, within: str) -> None:
    script = f"""
import asyncio, signal, time
from regstore import sync
from regstore.sync.blocking import function
signal.signal(signal.SIGINT, signal.default_int_handler)
@function
async def slow():
    try:
        print("slow", flush=True)
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.2)
        print("cleared up", flush=True)
with sync.storage.open_storage({str(tmp_path)!r}) as storage, sync.gc.hold_lock(storage, command="gc"):
    print("locked", flush=True)
    {within}
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"locked\n"
    if within == "slow()":
        assert process.stdout.readline() == b"slow\n"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert errors.rstrip().endswith(b"KeyboardInterrupt")
    assert (b"cleared up" in output) == (within == "slow()")
    assert list((tmp_path / "regstore/locks").iterdir()) == []


def test_a_forked_process_opens_its_own(tmp_path: Path) -> None:
    script = f"""
import os, warnings
from regstore import sync
with sync.open({str(tmp_path)!r}) as registry:
    registry.repository("a").blobs.put(b"x")
    child = os.fork()
    if child == 0:
        try:
            registry.is_registry()
        except RuntimeError as error:
            print(error, flush=True)
        with sync.open({str(tmp_path)!r}) as own:
            print(len(list(own.blobs)), flush=True)
        registry.close()
        os._exit(0)
    os.waitpid(child, 0)
    print(len(list(registry.blobs)), flush=True)
"""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.splitlines() == ["this regstore.sync.Registry is closed", "1", "1"]
