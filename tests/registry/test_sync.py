"""The blocking face."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import regstore
from regstore import sync
from regstore.digest import Digest
from regstore.errors import IntegrityError, TagUnknown
from regstore.layout import LayerLinkKey, encode
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
    _, errors = process.communicate(timeout=20)
    assert b"KeyboardInterrupt" in errors
    assert time.monotonic() - began < 10
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_import_is_quick_and_loads_nothing_heavy() -> None:
    heavy = "{'duckdb', 'boto3', 'obstore', 'aiohttp', 'lxml'}"
    script = f"import sys, regstore; regstore.Registry; print(sorted({heavy} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout == "[]\n"
    assert set(regstore.__all__) <= set(dir(regstore))
    for name in regstore.__all__:
        assert getattr(regstore, name) is not None
