"""`check` of a backup that others write to, that does not always answer, and that is large: what is damage, and what
is not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from regstore.backup import CheckResult, check, list_snapshots
from regstore.backup.format import Pack, PackedManifest, PackedTag, blob_key, pack_key
from regstore.backup.touched import tags_by_blob
from regstore.digest import Digest
from regstore.errors import AccessDenied, AuthenticationFailed, Outage, StorageError, Unreachable
from regstore.proving import reader as reading
from regstore.proving.read_data import ReadData
from regstore.storage.disk import DiskStorage
from regstore.testing.faulty import FaultyStorage
from tests.backup.places import collect, memory, read_all, take
from tests.backup.test_damage import BASE, SECOND, backed_up, damage
from tests.backup.test_interrupted import LATER, small
from tests.model.builder import Builder
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore

LAYER = blob_key(SECOND)


def subjects(result: CheckResult) -> list[tuple[str, str]]:
    return [(one.kind, one.subject) for one in result.damage]


# -- the backup does not answer


@pytest.mark.parametrize("error", [Unreachable, AccessDenied, AuthenticationFailed])
@pytest.mark.parametrize("prefix", ["blobs/", "packs/"])
async def test_an_outage_is_no_damage(error: type[StorageError], prefix: str) -> None:
    def before(operation: str, key: str) -> None:
        if operation in ("open_read", "get") and key.startswith(prefix):
            raise error("no")

    with pytest.raises(error if error is AuthenticationFailed else Outage):
        await read_all(FaultyStorage(memory(await backed_up()), before=before))


async def test_the_only_snapshot_that_can_not_be_read_is_damage_of_it() -> None:
    def before(operation: str, key: str) -> None:
        if operation == "get" and key.startswith("snapshots/"):
            raise AccessDenied("no")

    found = await read_all(FaultyStorage(memory(await backed_up()), before=before))
    ((kind, _),) = subjects(found)
    assert kind == "snapshot"
    assert "can't be read" in found.damage[0].reason


async def test_what_can_not_be_read_is_no_damage() -> None:
    backup = await backed_up()

    def before(operation: str, key: str) -> None:
        if (operation, key) == ("open_read", LAYER):
            raise StorageError("input/output error")

    found = await read_all(FaultyStorage(memory(backup), before=before), repair_from=memory(small()))
    assert (found.damage, found.damaged) == ([], False)
    assert [(one.subject, [str(place) for place in one.touches]) for one in found.unread] == [
        (str(SECOND), ["b/c:latest"])
    ]


@pytest.mark.parametrize("kind", ["blobs/", "packs/", "snapshots/"])
async def test_one_bad_read_is_no_damage(kind: str) -> None:
    backup = await backed_up()
    (key, *_) = (key for key in sorted(backup) if key.startswith(kind))
    right = backup.objects[key]
    readings = 0

    def before(operation: str, text: str) -> None:
        nonlocal readings
        if operation in ("open_read", "get") and text == key:
            readings += 1
            if readings == 1:
                damage(backup, key, "flipped")
            else:
                backup.objects[key] = right

    found = await read_all(FaultyStorage(memory(backup), before=before))
    assert readings >= 2
    assert found.damage == []
    assert len(found.unstable) == (kind == "blobs/")


# -- others work on it


@pytest.mark.parametrize("when", [("get", "packs/"), ("list", "blobs/"), ("open_read", "blobs/")])
async def test_a_prune_meanwhile_is_no_damage(when: tuple[str, str]) -> None:
    backup = ModelStore()
    first = await take(memory(small(extra=True)), memory(backup))
    await take(memory(small()), memory(backup, now=NOW + DAY))
    done: list[str] = []

    async def before(operation: str, key: str) -> None:
        if operation == when[0] and key.startswith(when[1]) and not done:
            done.append(key)
            await collect(memory(backup, now=NOW + LATER), last=1)

    faulty = FaultyStorage(memory(backup), before=before)
    found = await check(faulty, read_data=ReadData.parse("all"), concurrency=1)
    assert done
    assert first.key not in backup
    assert found.damage == []
    assert (await read_all(memory(backup))).damage == []


async def test_damage_while_a_prune_runs_is_still_damage() -> None:
    backup = ModelStore()
    await take(memory(small(extra=True)), memory(backup))
    await take(memory(small()), memory(backup, now=NOW + DAY))
    del backup.objects[LAYER]

    async def before(operation: str, key: str) -> None:
        if (operation, key) == ("list", "blobs/"):
            await collect(memory(backup, now=NOW + LATER), last=1)

    found = await check(FaultyStorage(memory(backup), before=before), concurrency=1)
    assert subjects(found) == [("blob", str(SECOND))]


# -- snapshots that are lost


async def test_lost_snapshots_are_missed() -> None:
    backup = await backed_up()
    for key in [key for key in backup if key.startswith("snapshots/")]:
        del backup.objects[key]
    found = await read_all(memory(backup))
    assert found.damaged
    assert subjects(found) == [("snapshot", "snapshots/")]
    assert "no snapshot is listed, but there are 2 packs" in found.damage[0].reason


async def test_nothing_is_missed_in_an_empty_backup_or_while_the_first_is_made() -> None:
    backup = ModelStore()
    seen: list[CheckResult] = []

    async def before(operation: str, key: str) -> None:
        if operation == "put" and key.startswith(("packs/", "snapshots/")):
            seen.append(await check(memory(backup), concurrency=4))

    await take(memory(small()), FaultyStorage(memory(backup), before=before))
    assert seen
    assert not any(found.damage for found in seen)
    assert (
        await check(memory(ModelStore({"regstore-backup.json": backup.objects["regstore-backup.json"]})))
    ).damage == []


# -- what damage touches


async def test_a_damaged_pack_names_the_tags_that_another_snapshot_knows() -> None:
    backup, store = ModelStore(), Builder(NOW - DAY)
    store.push("a", store.image(store.blob(b"c"), [store.blob(b"base layer")]), "1")
    await take(memory(store.store), memory(backup))
    for tag in ("2", "3"):
        store.push("a", store.image(store.blob(b"c" + tag.encode()), [store.blob(b"base layer")]), tag)
    second = await take(memory(store.store), memory(backup, now=NOW + DAY))
    damage(backup, pack_key(second.snapshot.repositories["a"].pack), "flipped")
    found = await check(memory(backup), concurrency=4)
    (one,) = found.damage
    assert [str(place) for place in one.touches] == ["all 3 tags of a (another snapshot has 1)"]
    # What that pack needs is not known.
    assert (found.unneeded_blobs, found.unneeded_bytes) == (0, 0)


async def test_what_no_snapshot_needs_is_counted_only_where_all_are_known() -> None:
    backup = await backed_up()
    stray = Digest.of(b"stray")
    backup.objects[blob_key(stray)] = (b"stray", NOW)
    assert (await check(memory(backup))).unneeded_blobs == 1
    assert (await check(memory(backup), snapshot="latest")).unneeded_blobs == 0


def test_tags_are_found_in_one_pass() -> None:
    """Each of many lost layers, by a manifest, by an index over it, and by a tag on either."""
    many = 3000
    images = [Digest.of(b"%d" % number) for number in range(many)]
    layers = [Digest.of(b"layer %d" % number) for number in range(many)]
    index, lone = Digest.of(b"index"), Digest.of(b"lone")
    pack = Pack(
        name="a",
        blobs=dict.fromkeys([*images, *layers, index, lone], 1),
        manifests={
            image: PackedManifest(media_type="", linked=True, needs=(layer,))
            for image, layer in zip(images, layers, strict=True)
        }
        | {index: PackedManifest(media_type="", linked=True, needs=tuple(images[:2]))},
        tags={f"{number:04}": PackedTag(image, 0) for number, image in enumerate(images)}
        | {"all": PackedTag(index, 0)},
    )
    found = tags_by_blob(pack, {*layers, lone, Digest.of(b"elsewhere")})
    assert found == {layer: [f"{number:04}"] for number, layer in enumerate(layers)} | {
        layers[0]: ["0000", "all"],
        layers[1]: ["0001", "all"],
        lone: [],
    }
    assert tags_by_blob(pack, {images[1]}) == {images[1]: ["0001", "all"]}


# -- what is read, and when


class Clock:
    """A second for each blob that is read."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


async def test_a_time_limit_reads_everything_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(reading, "time", clock)
    store, backup = Builder(NOW - DAY), ModelStore()
    for number in range(10):
        layer = store.blob(b"l" * (1000 + number * 10))
        store.push("a", store.image(store.blob(b"c%d" % number), [layer]), f"t{number}")
    await take(memory(store.store), memory(backup))
    seen: set[str] = set()

    def before(operation: str, key: str) -> None:
        if operation == "open_read":
            clock.now += 1
            seen.add(key)

    total = sum(key.startswith("blobs/") for key in backup)
    for night in range(-(-total // 7)):
        place = FaultyStorage(memory(backup, now=NOW + night * DAY), before=before)
        more: dict[str, Any] = {"time_limit": 7, "proofs": tmp_path, "concurrency": 1}
        found = await check(place, read_data=ReadData.parse("all"), **more)
        assert found.read_blobs <= 7
        assert found.read_blobs + found.left_blobs == total
    assert len(seen) == total


async def test_a_time_limit_ends_within_a_blob(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(reading, "time", clock)
    store, backup = Builder(NOW - DAY), ModelStore()
    large = store.blob(bytes(8 << 20))
    store.push("a", store.image(store.blob(b"config"), [large]), "1")
    await take(memory(store.store), memory(backup))

    class Slow:
        """Its objects come in MiBs, a second each."""

        def __init__(self) -> None:
            self.inner = memory(backup)
            self.chunks = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def open_read(self, key: str, **more: Any) -> Any:
            slow, data = self, backup.objects[key][0]

            class Handle:
                async def __aenter__(self) -> Handle:
                    return self

                async def __aexit__(self, *exc: object) -> None:
                    pass

                async def __aiter__(self) -> Any:
                    for start in range(0, len(data), 1 << 20):
                        slow.chunks += 1
                        clock.now += 1
                        yield data[start : start + (1 << 20)]

            return Handle()

    slow: Any = Slow()
    found = await check(slow, read_data=ReadData.parse("all"), time_limit=5, concurrency=1)
    assert slow.chunks < 8
    assert found.left_blobs >= 1
    assert not found.damaged


async def test_a_copy_in_the_same_place_was_never_proved(tmp_path: Path) -> None:
    backup, original = tmp_path / "backup", tmp_path / "original"
    (await backed_up()).write_folder(backup)
    known: dict[str, Any] = {"proofs": tmp_path / "cache", "max_age": 10**18}
    async with DiskStorage(backup) as storage:
        first = await read_all(storage, **known)
        assert (await read_all(storage, **known)).known_blobs == first.blobs
    backup.rename(original)
    shutil.copytree(original, backup)  # with all times
    rotten = backup / LAYER
    before = rotten.stat()
    rotten.write_bytes(b"?" * before.st_size)
    os.utime(rotten, ns=(before.st_atime_ns, before.st_mtime_ns))
    async with DiskStorage(backup) as storage:
        found = await read_all(storage, **known)
    assert subjects(found) == [("blob", str(SECOND))]
    assert found.known_blobs == 0


async def test_a_blob_of_two_repositories_is_named_in_both() -> None:
    backup = await backed_up()
    damage(backup, blob_key(BASE), "lost")
    (one,) = (await check(memory(backup))).damage
    runs = {snapshot.run for snapshot in (await list_snapshots(memory(backup))).snapshots}
    assert {(str(place), *place.snapshots) for place in one.touches} == {
        (tag, *runs) for tag in ("a:1", "b/c:latest")
    }
