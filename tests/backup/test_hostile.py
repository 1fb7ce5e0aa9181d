"""Backups whose files lie: well-formed, with the right names, and made by somebody else than `create`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regstore.backup import check, plan_restore
from regstore.backup import format as form
from regstore.backup.format import Pack, PackedManifest, PackedTag
from regstore.digest import Digest
from regstore.errors import InputError, IntegrityError, Refused, Unsupported
from regstore.storage.disk import DiskStorage
from regstore.testing.faulty import FaultyStorage
from tests.backup import reader
from tests.backup.places import collect, give_back, memory, take
from tests.backup.test_interrupted import LATER, small
from tests.model.packs import encode_pack, summary
from tests.model.random_registry import NOW
from tests.model.store import ModelStore

BYTES = b'{"schemaVersion": 2}'
HERE = Digest.of(BYTES)
ABSENT = Digest.of(b"not in the pack")
SOUND = Pack(
    name="a",
    blobs={HERE: len(BYTES)},
    manifests={HERE: PackedManifest(media_type="", linked=True)},
    tags={"latest": PackedTag(HERE, NOW)},
)


async def replaced(pack: Pack, name: str = "a") -> ModelStore:
    """A backup whose only snapshot has this pack."""
    backup = ModelStore()
    result = await take(memory(small()), memory(backup))
    encoded, stored = encode_pack(pack)
    snapshot = replace(result.snapshot, repositories={name: summary(encoded, pack)})
    del backup.objects[result.key]
    text = form.encode_snapshot(snapshot)
    backup.objects[form.snapshot_key(snapshot.run, text)] = (text, NOW)
    backup.objects[form.pack_key(encoded)] = (stored, NOW)
    backup.objects[form.blob_key(HERE)] = (BYTES, NOW)
    return backup


async def test_a_pack_that_does_not_lie() -> None:
    store = ModelStore()
    assert not (await give_back(memory(await replaced(SOUND)), memory(store))).partial
    assert "docker/registry/v2/repositories/a/_manifests/tags/latest/current/link" in store


LIES: dict[str, dict[str, Any]] = {
    "leads out of the store": {"name": "../../../../a"},
    "leads into another repository": {"name": "b/_manifests/tags/x/../../../c"},
    "another repository": {"name": "b"},
    "no name": {"name": ""},
    "a tag that leads out": {"tags": {"../../../b/_manifests/tags/latest": PackedTag(HERE, NOW)}},
    "a tag that is a path": {"tags": {"latest/current/link/x": PackedTag(HERE, NOW)}},
    "a history that leads out": {"history": frozenset({("../x", HERE)})},
    "a tag of nothing": {"tags": {"latest": PackedTag(ABSENT, NOW)}},
    "a manifest without a blob": {"blobs": {}},
    "a manifest that needs what is not there": {
        "manifests": {HERE: PackedManifest(media_type="", linked=True, needs=(ABSENT,))}
    },
    "a layer without a blob": {"layers": {ABSENT: ABSENT}},
    "a signature without a blob": {"signatures": frozenset({(HERE, ABSENT)})},
    "a size that is none": {"blobs": {HERE: -1}},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_pack_that_lies_is_damaged(lie: dict[str, Any]) -> None:
    backup, store = await replaced(replace(SOUND, **lie)), ModelStore()
    assert [one.kind for one in (await check(memory(backup))).damage] == ["pack"]
    result = await give_back(memory(backup), memory(store))
    assert result.partial and not result.tags
    assert not [key for key in store if "_regstore" not in key and not key.startswith("regstore/")]
    pruned = await collect(memory(backup, now=NOW + LATER), last=1)
    assert form.blob_key(HERE) in backup
    assert pruned.plan.blocked or lie == LIES["another repository"]


async def test_a_pack_with_an_impossible_name() -> None:
    backup = await replaced(SOUND)
    key = next(key for key in backup if key.startswith("snapshots/"))
    snapshot = form.decode_snapshot(backup.objects.pop(key)[0], key)
    lying = replace(snapshot.repositories["a"], pack="../../../etc/passwd")
    text = form.encode_snapshot(replace(snapshot, repositories={"a": lying}))
    key = form.snapshot_key(snapshot.run, text)
    backup.objects[key] = (text, NOW)
    with pytest.raises(IntegrityError, match="no snapshot"):
        form.decode_snapshot(text, key)
    assert [one.kind for one in (await check(memory(backup))).damage] == ["snapshot"]
    assert (await collect(memory(backup, now=NOW + LATER), last=1)).plan.blocked


@pytest.mark.parametrize("area", ["snapshots", "packs", "blobs/sha256"])
async def test_a_backup_with_symbolic_links_is_not_pruned(tmp_path: Path, area: str) -> None:
    """Somebody moved a part of it to another disk: what is behind the link is not listed, so it seems not to be."""
    backup = DiskStorage(tmp_path / "backup", create=True)
    await take(memory(small()), backup)
    part = next((tmp_path / "backup" / area).iterdir())
    part.rename(tmp_path / "elsewhere")
    part.symlink_to(tmp_path / "elsewhere")
    before = [path for path in tmp_path.rglob("*") if path.is_file() and "/regstore/" not in str(path)]
    with pytest.raises((Refused, Unsupported), match="symbolic link"):
        await collect(backup, last=1)
    assert [path for path in before if not path.exists()] == []


async def test_a_backup_that_lost_all_snapshots_is_not_emptied() -> None:
    backup = ModelStore()
    await take(memory(small()), memory(backup))
    for key in [key for key in backup if key.startswith("snapshots/")]:
        del backup.objects[key]
    result = await collect(memory(backup, now=NOW + LATER), last=1)
    assert "no snapshot" in result.plan.blocked
    assert not result.blobs and any(key.startswith("blobs/") for key in backup)


async def test_a_pattern_that_no_repository_matches_is_a_mistake() -> None:
    backup = ModelStore()
    with pytest.raises(InputError, match="typo"):
        await take(memory(small()), memory(backup), repositories=("typo",))
    assert not [key for key in backup if key.startswith("snapshots/")]


async def test_a_tag_pattern_that_matches_nothing_is_a_mistake() -> None:
    backup, store = ModelStore(), ModelStore()
    for patterns in (("typo",), ("lat*", "typo")):
        with pytest.raises(InputError, match="no tag typo"):
            await take(memory(small()), memory(backup), tags=patterns)
    with pytest.raises(InputError, match="no repository typo"):
        await take(memory(small()), memory(backup), repositories=("a", "typo"))
    with pytest.raises(InputError, match=r"no tag latest"):
        await take(memory(small()), memory(backup), repositories=("a",), tags=("latest",))
    await take(memory(small()), memory(backup))
    with pytest.raises(InputError, match="no tag typo"):
        await give_back(memory(backup), memory(store), tags=("latest", "typo"))
    with pytest.raises(InputError, match="no repository typo"):
        await give_back(memory(backup), memory(store), repositories=("a", "typo"))
    assert not [key for key in store if key.startswith("docker/")]


async def test_a_backup_does_not_become_a_registry(tmp_path: Path) -> None:
    backup = ModelStore()
    await take(memory(small()), memory(backup))
    before = backup.bodies()
    for target in (backup, ModelStore({form.MARKER: (b"any", NOW)})):
        with pytest.raises(InputError, match="is a backup"):
            await plan_restore(memory(backup), memory(target))
        with pytest.raises(InputError, match="is a backup"):
            await give_back(memory(backup), memory(target))
    assert backup.bodies() == before
    place = DiskStorage(tmp_path / "backup", create=True)
    await take(memory(small()), place)
    (tmp_path / "link").symlink_to(tmp_path / "backup")
    for folder in ("backup/new", "link/new/registry"):
        with pytest.raises(InputError, match="lies within the backup"):
            await plan_restore(place, DiskStorage(tmp_path / folder, create=True))
    assert (await plan_restore(place, DiskStorage(tmp_path / "backup2", create=True))).missing_tags == 2


@pytest.mark.parametrize("left", ["", "backup/", ".regstore-0123", "regstore/locks/x"])
async def test_what_a_killed_create_or_a_console_left_does_not_matter(left: str) -> None:
    backup = ModelStore({left: (b"", NOW)})
    await take(memory(small()), memory(backup))
    assert form.MARKER in backup


async def test_two_first_creates_at_once() -> None:
    backup = ModelStore()
    seen: list[object] = []

    async def other(operation: str, key: str) -> None:
        if operation == "list" and key == "" and not seen:
            seen.append(await take(memory(small()), memory(backup)))

    await take(memory(small()), FaultyStorage(memory(backup), before=other))
    assert len([key for key in backup if key.startswith("snapshots/")]) == 2
    assert not reader.problems(backup.bodies())
