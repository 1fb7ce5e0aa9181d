"""A registry, backed up and restored, is what the naive model says; a backup with nothing new costs next to nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from regstore.backup import CreateOptions, RestoreOptions, create, restore
from regstore.backup.opening import is_sound_pack
from regstore.backup.packing import PackFile
from regstore.errors import NotARegistry
from regstore.events import Event, Progress
from regstore.layout import RevisionLinkKey, SignatureLinkKey, TagIndexKey, decode, link_body
from regstore.state.lock import hold_lock
from regstore.storage.disk import DiskStorage
from tests.backup.oracle import expected, incomplete_tags
from tests.backup.places import (
    SCANNING,
    contents,
    give_back,
    keys_below,
    memory,
    read_all,
    take,
)
from tests.examples import examples
from tests.model.builder import Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import NOW, example_registry, registries
from tests.model.store import ModelStore

generated = settings(
    max_examples=examples(10),
    phases=(Phase.explicit, Phase.generate),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)


def said(key: str, before: Mapping[str, bytes]) -> bytes:
    """Histories and signatures are known by their paths; what else their links hold is not kept. A manifest that had a
    layer link alone gets one of its own."""
    known = decode(key)
    if isinstance(known, TagIndexKey | SignatureLinkKey | RevisionLinkKey):
        return link_body(known.digest)
    return before[key]


async def round_trip(store: ModelStore, *, etags: bool, page: int, twice: bool) -> None:
    source, backup, target = memory(store, etags=etags, page=page), memory(etags=etags, page=page), memory()
    before = store.bodies()
    wanted = expected(before)
    if not any(key.startswith("docker/registry/v2/") for key in before):
        return
    try:
        taken = await take(source, backup)
    except NotARegistry:
        assert not wanted
        return
    assert store.bodies() == before, "the source was changed"
    checked = await read_all(backup)
    assert not checked.damage
    given_back = await give_back(backup, target)
    assert not (given_back.conflicts or given_back.damaged or given_back.left_out)
    assert given_back.absent == [str(one) for one in taken.snapshot.left_out]
    restored = await contents(target)
    assert restored.keys() == wanted
    assert {key: body for key, body in restored.items() if said(key, before) != body} == {}
    assert not incomplete_tags(restored)
    left_out = {f"{one.repository}:{one.tag}" for one in taken.snapshot.left_out if one.tag}
    assert left_out == set(incomplete_tags(before))
    if not twice:
        return
    again = await give_back(backup, target)
    assert (again.blobs, again.links, again.tags) == (0, 0, 0)
    # A second snapshot of the same shares everything.
    objects = set(await keys_below(backup, "blobs/")) | set(await keys_below(backup, "packs/"))
    second = await take(source, backup)
    assert second.snapshot.repositories == taken.snapshot.repositories
    assert (second.packs, second.snapshot.new_blobs) == (0, 0)
    assert objects == set(await keys_below(backup, "blobs/")) | set(await keys_below(backup, "packs/"))
    assert not await keys_below(backup, "docker/")


@generated
@given(registries(disk=False), st.booleans(), st.sampled_from([1000, 7]), st.integers(0, 4))
def test_what_comes_back_is_what_the_model_says(store: ModelStore, etags: bool, page: int, again: int) -> None:
    asyncio.run(round_trip(store, etags=etags, page=page, twice=again == 0))


async def test_the_example_on_disk(tmp_path: Path) -> None:
    store = example_registry().on_disk()
    store.write_folder(tmp_path / "source")
    async with (
        DiskStorage(tmp_path / "source") as source,
        DiskStorage(tmp_path / "backup", create=True) as backup,
        DiskStorage(tmp_path / "target", create=True) as target,
    ):
        taken = await take(source, backup)
        assert taken.snapshot.tags > 5
        assert (await read_all(backup)).read_blobs == taken.snapshot.blobs == taken.snapshot.new_blobs
        await give_back(backup, target)
        restored = await contents(target)
    assert restored.keys() == expected(store.bodies())
    assert not incomplete_tags(restored)


async def test_blobs_are_copied_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is left out where one slice ends, and the bar goes on."""
    monkeypatch.setattr("regstore.backup.carrying._AT_A_TIME", 3)
    monkeypatch.setattr("regstore.backup.copying._ROWS", 2)
    store = example_registry()
    source, backup, target = memory(store), memory(), memory()
    bars: dict[str, list[tuple[int, int | None]]] = {"copying blobs": [], "restoring blobs": []}

    def on_event(event: Event) -> None:
        if isinstance(event, Progress) and event.phase in bars:
            bars[event.phase].append((event.done, event.total))

    taken = await create(source, backup, CreateOptions(concurrency=4), scanning=SCANNING, on_event=on_event)
    async with hold_lock(target, command="restore") as lock:
        await restore(backup, target, RestoreOptions(concurrency=4), lock=lock, on_event=on_event)
    assert taken.snapshot.blobs > 6
    assert (await contents(target)).keys() == expected(store.bodies())
    for steps in bars.values():
        done = [done for done, _ in steps]
        assert done == sorted(done)
        assert steps[-1] == (taken.snapshot.bytes, taken.snapshot.bytes)
        assert {total for _, total in steps} == {taken.snapshot.bytes}


async def test_snapshots_of_one_second_are_in_order() -> None:
    source, backup = memory(example_registry()), memory()
    taken = [(await take(source, backup)).snapshot.run for _ in range(8)]
    assert len({run[:16] for run in taken}) == 1, "the model's clock stands still"
    assert taken == sorted(set(taken))


async def test_a_second_backup_writes_two_small_objects_and_reads_no_blob(tmp_path: Path) -> None:
    store = example_registry()
    source, backup = memory(store), memory()
    scanning = replace(SCANNING, cache_dir=tmp_path)
    await take(source, backup, scanning=scanning)
    first = set(backup.store)
    read, written = dict(source.counters.requests), dict(backup.counters.requests)
    # What the example has broken is looked for by name each time; nothing else is asked for.
    second = await take(source, backup, scanning=scanning)
    new = set(backup.store) - first
    assert {key.partition("/")[0] for key in new} == {"snapshots"}  # the intent is gone again
    assert backup.counters.requests["put"] - written["put"] == 2
    assert backup.counters.requests["get"] - written.get("get", 0) == 1  # the marker
    # What is newer, locks, blobs and packs; blobs and packs again, as the proof; the intent before and after the put.
    assert backup.counters.requests["list"] - written["list"] == 8
    assert second.snapshot.new_blobs == 0
    assert source.counters.requests["list"] - read["list"] <= 4


def noted(what: str, function: Callable[[PackFile], Any], calls: list[str]) -> Callable[[PackFile], Any]:
    def called(pack: PackFile) -> Any:
        calls.append(what)
        return function(pack)

    return called


async def test_packs_that_are_there_are_not_read_from_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those that the backup lacks, and whole only where they are small. Where LIST does not prove one, that of the
    backup is read, and never held."""
    b = Builder(NOW)
    image = b.image(b.blob(b"config"), [b.blob(b"layer")])
    for number in range(7):
        b.push(f"r{number}", image, "1")
    read: list[str] = []
    for how in ("read", "stream"):
        monkeypatch.setattr(PackFile, how, noted(how, getattr(PackFile, how), read))
    source, backup = memory(b.store), memory()
    assert (await take(source, backup)).packs == 7
    assert read == ["read"] * 7
    monkeypatch.setattr(import_module("regstore.backup.create"), "WHOLE", 100)
    b.push("r3", image, "2")
    first = set(await keys_below(backup, "packs/"))
    for etags in (True, False):
        backup.etags = etags
        read.clear()
        again = await take(source, backup)
        assert (read, again.packs, again.unchanged) == ((["stream"], 1, 6) if etags else ([], 0, 7))
    assert not (await read_all(backup)).damage
    [pack] = set(await keys_below(backup, "packs/")) - first
    body, mtime = backup.store.objects[pack]
    for damaged in (body[:-9], body[:30] + b"xx" + body[32:], body + b"x", b""):
        backup.store.objects[pack] = (damaged, mtime)
        assert (await take(source, backup)).packs == 1
        assert backup.store.objects[pack][0] == body


class InPieces(ModelStorage):
    """Gives what it has in pieces of this size."""

    piece = 1

    def open_read(self, key: str, *, start: int = 0, length: int | None = None) -> Any:
        whole = super().open_read(key, start=start, length=length)

        @asynccontextmanager
        async def opened() -> AsyncIterator[AsyncIterator[bytes]]:
            async with whole as handle:
                data = b"".join([chunk async for chunk in handle])
            yield self._pieces(data)

        return opened()

    async def _pieces(self, data: bytes) -> AsyncIterator[bytes]:
        for first in range(0, len(data), self.piece):
            yield data[first : first + self.piece]


async def test_a_pack_that_something_follows_is_not_taken_for_sound() -> None:
    """Also where that comes by itself: who reads the pack finds it damaged."""
    backup = memory()
    await take(memory(example_registry()), backup)
    key = (await keys_below(backup, "packs/"))[0]
    name = key.rpartition("/")[2].partition(".")[0]
    body, mtime = backup.store.objects[key]
    pieces = InPieces(backup.store, now=NOW)
    for pieces.piece in (1, len(body)):
        backup.store.objects[key] = (body, mtime)
        assert await is_sound_pack(pieces, name)
        backup.store.objects[key] = (body + b"x", mtime)
        assert not await is_sound_pack(pieces, name)


async def test_one_new_image_costs_its_blobs_one_pack_and_one_snapshot(tmp_path: Path) -> None:
    store = example_registry()
    source, backup = memory(store), memory()
    scanning = replace(SCANNING, cache_dir=tmp_path)
    await take(source, backup, scanning=scanning)
    b = Builder(NOW)
    b.store = store
    layers = [b.blob(b"base layer"), b.blob(b"new layer")]
    b.push("team/app", b.image(b.blob(b"new config"), layers), "new")
    before, puts = set(backup.store), backup.counters.requests["put"]
    taken = await take(source, backup, scanning=scanning)
    new = sorted(key.partition("/")[0] for key in set(backup.store) - before)
    assert new == ["blobs"] * 4 + ["packs", "snapshots"]
    assert backup.counters.requests["put"] - puts == 7  # these, and the intent
    assert (taken.snapshot.new_blobs, taken.packs, taken.unchanged) == (4, 1, 3)
