"""Two sources that are written the same fill one target: no pass moves or removes what came from the other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from regstore.layout import TagCurrentKey, encode
from regstore.storage import identity
from regstore.storage.disk import DiskStorage
from regstore.storage.identity import keep_id, place_of
from tests.backup.test_whose import bucket
from tests.migrate.stores import move
from tests.model.builder import Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore


@pytest.fixture
def computer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Go to the computer of this machine ID."""

    def be(machine: str) -> None:
        file = tmp_path / "machine-id"
        file.write_text(f"{machine}\n")
        monkeypatch.setattr(identity, "_MACHINE_ID", file)

    be("1" * 32)
    return be


def registry(folder: Path, *, tags: dict[str, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    b = Builder(NOW - DAY)
    for tag, layer in tags.items():
        b.push("a", b.image(b.blob(b'{"config":1}'), [b.blob(layer)]), tag)
    b.store.write_folder(folder)


@pytest.mark.parametrize("read_only", [False, True])
async def test_one_path_on_two_computers(tmp_path: Path, computer: Callable[[str], None], read_only: bool) -> None:
    target, folder = ModelStore(), tmp_path / "registry"

    async def run(clock: int) -> tuple[int, int]:
        async with DiskStorage(folder, read_only=read_only) as source:
            await keep_id(source)
            result = await move(source, ModelStorage(target, now=clock), delete=True, max_delete=1)
            return result.deleted, len(result.conflicts)

    registry(folder, tags={"of-one": b"one", "both": b"one"})
    assert await run(NOW) == (0, 0)
    stood = {key: body for key, (body, _) in target.objects.items() if "/current/link" in key}
    computer("2" * 32)
    registry(folder, tags={"of-two": b"two", "both": b"two"})
    assert await run(NOW + DAY) == (0, 1)
    after = {key: body for key, (body, _) in target.objects.items() if "/current/link" in key}
    assert stood.items() <= after.items() and len(after) == len(stood) + 1 == 3
    # Its own goes as before.
    shutil.rmtree((folder / encode(TagCurrentKey("a", "of-two"))).parent.parent)
    assert await run(NOW + 2 * DAY) == (1, 1)


async def test_a_server_beside_each_of_two_computers(computer: Callable[[str], None]) -> None:
    """localhost is another server on each; a name in the network is not."""
    places: dict[str, set[str]] = {}
    for machine in ("1" * 32, "2" * 32):
        computer(machine)
        for host in ("localhost:9000", "127.0.0.1:9000", "[::1]:9000", "minio.localhost", "s3.example.org"):
            async with bucket(f"http://{host}") as storage:
                places.setdefault(host, set()).add(await place_of(storage))
    assert {host for host, found in places.items() if len(found) == 1} == {"s3.example.org"}
