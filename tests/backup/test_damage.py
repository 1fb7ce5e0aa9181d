"""Bit rot in the backup and at the source: found, named with the tags it touches, repaired from the other copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from regstore.backup import check, choose, list_snapshots, plan_restore
from regstore.backup.format import blob_key, pack_key
from regstore.backup.options import RestoreOptions
from regstore.digest import Digest
from regstore.errors import AccessDenied, InputError, IntegrityError, Outage, StorageError, Unreachable
from regstore.layout import (
    BLOBS,
    BlobKey,
    RevisionLinkKey,
    SignatureLinkKey,
    TagCurrentKey,
    TagIndexKey,
    encode,
    link_body,
    parse_link,
)
from regstore.proving.read_data import ReadData
from regstore.state.journal import find_runs, read_parts
from regstore.storage.base import Capabilities
from regstore.testing.faulty import FaultyStorage, Hook
from tests.backup import reader
from tests.backup.oracle import incomplete_tags
from tests.backup.places import collect, contents, give_back, memory, read_all, take
from tests.backup.test_interrupted import LATER, small
from tests.model.builder import Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore

SECOND = Digest.of(b"second layer")
BASE = Digest.of(b"base layer")


async def backed_up() -> ModelStore:
    backup = ModelStore()
    await take(memory(small()), memory(backup))
    return backup


def damage(backup: ModelStore, key: str, how: str) -> None:
    body, mtime = backup.objects[key]
    match how:
        case "lost":
            del backup.objects[key]
        case "truncated":
            backup.objects[key] = (body[:-1], mtime)
        case "flipped":
            middle = len(body) // 2
            backup.objects[key] = (body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :], mtime)


@pytest.mark.parametrize("how", ["lost", "truncated", "flipped"])
@pytest.mark.parametrize(
    ("digest", "touched"), [(SECOND, {"b/c:latest"}), (BASE, {"a:1", "b/c:latest"})], ids=["one", "shared"]
)
async def test_a_damaged_blob_is_found_named_and_repaired(how: str, digest: Digest, touched: set[str]) -> None:
    backup = await backed_up()
    damage(backup, blob_key(digest), how)
    found = await read_all(memory(backup))
    (one,) = found.damage
    assert (one.kind, one.subject, found.damaged) == ("blob", str(digest), True)
    assert {str(place) for place in one.touches} == touched

    target = ModelStore()
    restored = await give_back(memory(backup), memory(target))
    assert len(restored.damaged) == 1
    assert {line.replace(": tag ", ":") for line in restored.left_out if "tag" in line.split()} == touched
    assert not incomplete_tags(await contents(memory(target)))

    repaired = await read_all(memory(backup), repair_from=memory(small()))
    assert [(one.subject, one.repaired) for one in repaired.damage] == [(str(digest), True)]
    assert not repaired.damaged
    assert (await read_all(memory(backup))).damage == []
    # What could not be restored before is now; the rest stays.
    again = await give_back(memory(backup), memory(target, now=NOW + LATER))
    assert not again.partial
    assert not reader.problems(backup.bodies())


async def test_a_signature_that_the_backup_lost_is_not_linked() -> None:
    """And its manifest is restored: registries have not read signatures since 2.5."""
    b = Builder(NOW)
    manifest, signature = b.schema1([b.blob(b"layer")]), b.blob(b"signature")
    b.push("a", manifest, "1")
    b.sign("a", manifest, signature)
    backup, target = memory(), memory()
    await take(memory(b.store), backup)
    damage(backup.store, blob_key(signature), "lost")
    restored = await give_back(backup, target)
    assert [str(signature) in line for line in restored.damaged] == [True]
    lost = {encode(BlobKey(signature)), encode(SignatureLinkKey("a", manifest, signature))}
    assert (await contents(target)).keys() == b.store.bodies().keys() - lost


@pytest.mark.parametrize("how", ["lost", "truncated"])
async def test_the_next_create_repairs_a_blob_of_another_size(how: str) -> None:
    backup = await backed_up()
    damage(backup, blob_key(SECOND), how)
    taken = await take(memory(small()), memory(backup))
    assert taken.snapshot.new_blobs == 1
    assert (await read_all(memory(backup))).damage == []


@pytest.mark.parametrize("how", ["lost", "truncated", "flipped"])
async def test_a_damaged_pack_is_found_and_written_anew(how: str) -> None:
    backup = await backed_up()
    (snapshot,) = (await list_snapshots(memory(backup))).snapshots
    key = pack_key(snapshot.repositories["a"].pack)
    damage(backup, key, how)
    found = await read_all(memory(backup))
    assert [(one.kind, one.subject, [str(place) for place in one.touches]) for one in found.damage] == [
        ("pack", key, ["the one tag of a"])
    ]
    # Nothing is collected while it is not known what a pack needs.
    pruned = await collect(memory(backup, now=NOW + LATER), last=1)
    assert pruned.plan.blocked
    assert (pruned.blobs, pruned.packs) == (0, 0)
    restored = await give_back(memory(backup), memory(target := ModelStore()))
    assert restored.left_out == ["a: all of it, for its pack is damaged"]
    assert not incomplete_tags(await contents(memory(target)))
    assert (await take(memory(small()), memory(backup))).packs == 1
    assert (await read_all(memory(backup))).damage == []


async def test_a_pack_under_the_name_of_another_is_damage() -> None:
    """A whole pack of the same repository, as it was a day before: only its digest tells."""
    backup = await backed_up()
    newest = await take(memory(small(extra=True)), memory(backup, now=NOW + DAY))
    first = (await list_snapshots(memory(backup))).snapshots[0]
    right, wrong = (pack_key(one.repositories["b/c"].pack) for one in (newest.snapshot, first))
    backup.objects[right] = backup.objects[wrong]
    found = await read_all(memory(backup))
    assert [(one.kind, one.subject) for one in found.damage] == [("pack", right)]
    restored = await give_back(memory(backup), memory(target := ModelStore()))
    assert restored.left_out == ["b/c: all of it, for its pack is damaged"]
    assert encode(TagCurrentKey("b/c", "latest")) not in target
    pruned = await collect(memory(backup, now=NOW + LATER), last=1)
    assert (bool(pruned.plan.blocked), pruned.snapshots, pruned.blobs) == (True, 0, 0)
    assert (await take(memory(small(extra=True)), memory(backup, now=NOW + DAY))).packs == 1
    assert not (await read_all(memory(backup))).damage
    assert not reader.problems(backup.bodies())


@pytest.mark.parametrize("how", ["truncated", "flipped"])
async def test_a_damaged_snapshot_is_found_and_keeps_everything(how: str) -> None:
    backup = await backed_up()
    (key,) = reader.snapshots(backup.bodies())
    damage(backup, key, how)
    await take(memory(small(extra=True)), memory(backup, now=NOW + 1_000_000))
    found = await read_all(memory(backup))
    assert [(one.kind, one.subject) for one in found.damage] == [("snapshot", key)]
    pruned = await collect(memory(backup, now=NOW + LATER), last=1)
    assert (pruned.snapshots, pruned.blobs, pruned.packs) == (0, 0, 0)
    assert blob_key(SECOND) in backup


@pytest.mark.parametrize("how", ["lost", "truncated", "flipped"])
@pytest.mark.parametrize("kind", ["snapshots/", "packs/", "blobs/", "regstore-backup.json"])
async def test_everything_is_repaired_from_another_backup(kind: str, how: str) -> None:
    backup = await backed_up()
    mirror = ModelStore(dict(backup.objects))
    # One snapshot that is not there is missed by nobody, and the marker's last byte is a newline.
    noticed = (kind, how) not in {("snapshots/", "lost"), ("regstore-backup.json", "truncated")}
    for key in [key for key in backup if key.startswith(kind)] if noticed else ():
        damage(backup, key, how)
    whole = mirror.bodies()
    found = await read_all(memory(backup), repair_from=memory(mirror))
    assert not found.damaged
    assert {one.repaired for one in found.damage} == ({True} if noticed else set())
    assert mirror.bodies() == whole
    bodies = backup.bodies()
    if kind == "regstore-backup.json":  # it tells when it was written
        del bodies[kind], whole[kind]
    assert bodies == whole
    assert (await read_all(memory(backup))).damage == []


async def test_what_was_proved_is_remembered(tmp_path: Path) -> None:
    backup = await backed_up()
    remembered: dict[str, Any] = {"proofs": tmp_path, "max_age": 3_600_000_000}
    first = await read_all(memory(backup), **remembered)
    assert (first.read_blobs, first.known_blobs) == (first.blobs, 0)
    second = await read_all(memory(backup), **remembered)
    assert (second.read_blobs, second.known_blobs, second.known_bytes) == (0, first.blobs, first.bytes)
    # Rot does not change the time of writing: it is found once the proof is too old, and looked at first from then on.
    damage(backup, blob_key(SECOND), "flipped")
    later = memory(backup, now=NOW + LATER)
    assert (await read_all(later, proofs=tmp_path)).damaged
    worst = await check(later, read_data=ReadData(size=1), proofs=tmp_path, concurrency=4)
    assert [one.subject for one in worst.damage] == [str(SECOND)]
    assert worst.read_blobs == 1
    # Another time of writing is another blob.
    backup.objects[blob_key(BASE)] = (backup.objects[blob_key(BASE)][0], NOW + LATER)
    assert (await read_all(later, **remembered)).read_blobs == 2


async def test_shares_read_what_was_never_proved_first(tmp_path: Path) -> None:
    backup = await backed_up()
    total = (await read_all(memory(backup))).blobs
    for _ in range(total):
        await check(memory(backup), read_data=ReadData(size=1), proofs=tmp_path, concurrency=4)
    every = await read_all(memory(backup), proofs=tmp_path, max_age=1)
    assert (every.read_blobs, every.known_blobs) == (0, total)


async def test_the_time_limit_leaves_the_rest() -> None:
    found = await read_all(memory(await backed_up()), time_limit=-1.0)
    assert (found.read_blobs, found.left_blobs, found.left_bytes) == (0, found.blobs, found.bytes)
    assert not found.damaged


async def test_a_copy_that_is_damaged_too_repairs_nothing() -> None:
    backup = await backed_up()
    for key in list(backup):
        if key.startswith(("snapshots/", "packs/", "blobs/")):
            damage(backup, key, "flipped")
    before = backup.bodies()
    found = await read_all(memory(backup), repair_from=memory(ModelStore(dict(backup.objects))))
    assert found.damage and not any(one.repaired for one in found.damage)
    assert backup.bodies() == before


@pytest.mark.parametrize("how", ["lost", "truncated", "flipped"])
async def test_a_damaged_blob_at_the_source_costs_only_what_needs_it(how: str) -> None:
    store, backup = small(), ModelStore()
    damage(store, encode(BlobKey(SECOND)), how)
    taken = await take(memory(store), memory(backup))
    assert [(one.repository, one.tag) for one in taken.snapshot.left_out] == [("b/c", "latest")]
    assert str(SECOND) in str(taken.snapshot.left_out[0])
    assert reader.tags(backup.bodies(), taken.key).keys() == {"a:1"}
    assert not reader.problems(backup.bodies())


async def test_a_blob_truncated_at_the_source_is_there_from_better_days() -> None:
    store, backup = small(), await backed_up()
    damage(store, encode(BlobKey(SECOND)), "truncated")
    taken = await take(memory(store), memory(backup))
    assert not taken.snapshot.left_out
    assert len(taken.damaged) == 1
    assert reader.tags(backup.bodies(), taken.key).keys() == {"a:1", "b/c:latest"}
    assert not reader.problems(backup.bodies())


def failing(operations: tuple[str, ...], beginning: str, error: StorageError, *, but: bytes = b"") -> Hook:
    """Fails these operations on keys that begin so; but: the digests of these bytes, if any, alone."""
    only = Digest.of(but).encoded if but else ""

    def hook(operation: str, key: str) -> None:
        if operation in operations and key.startswith(beginning) and only in key:
            raise error

    return hook


ERRORS = [Unreachable("503"), AccessDenied("no"), StorageError("an error"), IntegrityError("BadDigest")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_what_the_backup_does_not_take_is_not_lost_at_the_source(error: StorageError) -> None:
    backup = ModelStore()
    for but in (b"", b"second layer"):
        target = FaultyStorage(memory(backup), before=failing(("put",), "blobs/", error, but=but))
        with pytest.raises(type(error)):
            await take(memory(small()), target)
        assert not reader.snapshots(backup.bodies())
    assert blob_key(BASE) in backup, "what was copied stays"
    assert not (await take(memory(small()), memory(backup))).partial


READING = ("get", "open_read")


@pytest.mark.parametrize("error", ERRORS[:3], ids=lambda error: type(error).__name__)
async def test_a_source_that_gives_no_blob_gives_no_snapshot(error: StorageError) -> None:
    store, backup = small(), ModelStore()

    def deny(operation: str, key: str) -> None:
        if operation in READING and key.startswith(BLOBS):
            raise error

    with pytest.raises(Outage):
        await take(FaultyStorage(memory(store), before=deny), memory(backup))
    assert not reader.snapshots(backup.bodies())


@pytest.mark.parametrize("error", ERRORS[:3], ids=lambda error: type(error).__name__)
async def test_one_blob_that_a_source_can_not_give_is_left_out_where_it_gives_others(error: StorageError) -> None:
    backup = ModelStore()
    deny_it = failing(READING, encode(BlobKey(SECOND)), error)
    taken = await take(FaultyStorage(memory(small()), before=deny_it), memory(backup))
    assert [(one.repository, one.tag) for one in taken.snapshot.left_out] == [("b/c", "latest")]
    assert reader.tags(backup.bodies(), taken.key).keys() == {"a:1"}


async def test_a_blob_that_fails_once_ends_the_run_as_it_may_be_anything() -> None:
    seen: list[str] = []

    def once(operation: str, key: str) -> None:
        if operation == "get" and key == encode(BlobKey(SECOND)) and not seen:
            seen.append(key)
            raise StorageError("input/output error")

    with pytest.raises(StorageError, match="input/output"):
        await take(FaultyStorage(memory(small()), before=once), memory())


async def test_restore_says_what_the_snapshot_had_left_out() -> None:
    store, backup = small(), ModelStore()
    damage(store, encode(BlobKey(SECOND)), "flipped")
    await take(memory(store), memory(backup))
    restored = await give_back(memory(backup), memory())
    assert restored.partial and not restored.left_out
    assert ["b/c: tag latest" in one for one in restored.absent] == [True]
    assert (await plan_restore(memory(backup), memory())).partial
    # Nothing of what is asked for.
    assert not (await give_back(memory(backup), memory(), repositories=("a",))).partial


async def test_a_damaged_newest_snapshot_is_not_passed_over_in_silence() -> None:
    backup = await backed_up()
    newest = await take(memory(small(extra=True)), memory(backup, now=NOW + DAY))
    damage(backup, newest.key, "flipped")
    first = (await list_snapshots(memory(backup))).snapshots[0].run
    restored = await give_back(memory(backup), memory())
    assert restored.snapshot.run == first
    assert restored.partial
    assert newest.key in restored.damaged[0] and "newer than" in restored.damaged[0]
    assert (await plan_restore(memory(backup), memory())).partial
    for asked in (first, "2023-11-14T22:30:00"):
        assert not (await give_back(memory(backup), memory(), snapshot=asked)).partial
    with pytest.raises(InputError, match="can't be read"):
        await give_back(memory(backup), memory(), snapshot=newest.snapshot.run)


async def test_latest_is_of_the_whole_registry() -> None:
    backup = ModelStore()
    part = await take(memory(small()), memory(backup), repositories=("a",))
    listed = await list_snapshots(memory(backup))
    assert choose(listed, "latest", "here").run == part.snapshot.run, "the only scope"
    await take(memory(small()), memory(backup, now=NOW + DAY), repositories=("b/*",))
    listed = await list_snapshots(memory(backup))
    for asked in ("latest", "2030-01-01"):
        with pytest.raises(InputError, match=r"repositories a of model.*repositories b/\* of model; give an ID"):
            choose(listed, asked, "here")
    assert choose(listed, "2023-11-14T23:00:00", "here").run == part.snapshot.run
    whole = await take(memory(small()), memory(backup, now=NOW + 2 * DAY))
    await take(memory(small()), memory(backup, now=NOW + 3 * DAY), tags=("1",))
    listed = await list_snapshots(memory(backup))
    assert choose(listed, "latest", "here").run == choose(listed, "2030-01-01", "here").run == whole.snapshot.run
    other = memory(small())
    other.url = "another"
    await take(other, memory(backup, now=NOW + 4 * DAY))
    with pytest.raises(InputError, match=r"is of model; .* is of another"):
        choose(await list_snapshots(memory(backup)), "latest", "here")


async def test_a_rotten_blob_in_the_target_is_replaced_where_it_is_asked_for() -> None:
    backup, used = await backed_up(), small()
    key = encode(BlobKey(SECOND))
    damage(used, key, "flipped")
    assert (await give_back(memory(backup), memory(used))).blobs == 0, "believed by its size"
    assert (
        await plan_restore(memory(backup), memory(used), RestoreOptions(verify_existing=True))
    ).missing_blobs == 1
    assert incomplete_tags(used.bodies())
    assert (await give_back(memory(backup), memory(used), verify_existing=True)).blobs == 1
    assert used.bodies() == small().bodies()


async def test_what_a_restore_replaces_is_in_its_journal() -> None:
    backup, used = await backed_up(), small()
    tag = encode(TagCurrentKey("b/c", "latest"))
    revision = parse_link(used.objects[tag][0])
    assert revision is not None
    link = encode(RevisionLinkKey("b/c", revision))
    newer = link_body(Digest.of(b"a newer manifest"))
    used.objects[tag] = (newer, NOW)
    used.objects[link] = (b"x" * 5000, NOW)
    wanted = small().bodies()
    seen: list[str] = []

    def look(operation: str, key: str) -> None:
        if operation == "put" and key in (tag, link):
            seen.append(key)
            assert any(one.startswith("regstore/runs/") and one.endswith("000001.jsonl.gz") for one in used)

    done = await give_back(memory(backup), FaultyStorage(memory(used), before=look), overwrite_tags=True)
    assert not done.conflicts
    assert sorted(seen) == sorted([link, tag])
    (record,) = await find_runs(memory(used))
    assert record.settled and record.begun["command"] == "backup restore"
    entries = [one async for part in read_parts(memory(used), record.parts) for one in part]
    assert {(one.op, one.key, one.body) for one in entries} == {("rewrite", tag, newer), ("rewrite", link, None)}
    assert used.objects[f"regstore/trash/{record.run}/damaged/{link}"][0] == b"x" * 5000
    assert {key: body for key, body in used.bodies().items() if key.startswith("docker/")} == wanted


async def test_a_tag_that_moves_before_it_is_overwritten_is_journaled_as_it_was_then() -> None:
    backup, used = await backed_up(), small()
    tag = encode(TagCurrentKey("b/c", "latest"))
    first, second = (link_body(Digest.of(body)) for body in (b"one", b"two"))
    used.objects[tag] = (first, NOW)

    def move(operation: str, key: str) -> None:
        if operation == "put" and key.startswith("regstore/runs/") and key.endswith("000001.jsonl.gz"):
            used.objects[tag] = (second, NOW)

    await give_back(memory(backup), FaultyStorage(memory(used), before=move), overwrite_tags=True)
    (record,) = await find_runs(memory(used))
    assert [
        one.body async for part in read_parts(memory(used), record.parts) for one in part if one.key == tag
    ] == [first, second]


async def test_a_tag_pushed_in_the_request_that_sets_it_stays() -> None:
    """On a server that writes nothing on a condition."""

    class Unconditional(ModelStorage):
        async def capabilities(self) -> Capabilities:
            return Capabilities()

    backup, target = await backed_up(), ModelStore()
    tag, theirs = TagCurrentKey("b/c", "latest"), Digest.of(b"theirs")

    def push(operation: str, key: str) -> None:
        if operation == "put" and key == encode(tag) and key not in target:
            for link in (TagIndexKey(tag.name, tag.tag, theirs), tag):
                target.objects[encode(link)] = (link_body(theirs), NOW + 1)

    done = await give_back(memory(backup), FaultyStorage(Unconditional(target, now=NOW), before=push))
    assert target.body(encode(tag)) == link_body(theirs)
    assert [(one.tag, one.there) for one in done.conflicts] == [("latest", str(theirs))]


async def test_a_snapshot_is_chosen_by_id_time_and_latest() -> None:
    backup = ModelStore()
    first = await take(memory(small()), memory(backup))
    second = await take(memory(small(extra=True)), memory(backup, now=NOW + 3_600_000_000))
    listed = await list_snapshots(memory(backup))
    assert choose(listed, "latest", "here").run == second.snapshot.run
    assert choose(listed, first.snapshot.run, "here").run == first.snapshot.run
    assert choose(listed, first.snapshot.run[:14], "here").run == first.snapshot.run
    before_second = "2023-11-14T22:30:00"  # NOW is 22:13:20
    assert choose(listed, before_second, "here").run == first.snapshot.run
    for nothing in ("2020-01-01", "nonsense", "2"):
        with pytest.raises(ValueError):
            choose(listed, nothing, "here")


async def test_one_pack_that_the_other_backup_does_not_give_ends_no_repair() -> None:
    backup = await backed_up()
    mirror = ModelStore(dict(backup.objects))
    packs = [key for key in backup if key.startswith("packs/")]
    for key in packs:
        damage(backup, key, "lost")

    def before(operation: str, key: str) -> None:
        if (operation, key) == ("get", packs[0]):
            raise StorageError("input/output error")

    found = await read_all(memory(backup), repair_from=FaultyStorage(memory(mirror), before=before))
    assert {one.subject: one.repaired for one in found.damage} == {key: key != packs[0] for key in packs}
