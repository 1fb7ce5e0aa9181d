"""The registry changes while it is backed up: every tag of the snapshot is whole, and is one that there was."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from regstore.digest import Digest
from regstore.errors import AccessDenied, InputError, NotARegistry, Refused
from regstore.layout import (
    REGISTRY,
    SEEDS,
    BlobKey,
    LayerLinkKey,
    RevisionLinkKey,
    TagCurrentKey,
    decode,
    encode,
    repository_prefix,
)
from regstore.state import new_run
from regstore.state.journal import UNLINK, Entry, Journal, find_runs, write_seen
from regstore.testing.faulty import FaultyStorage
from tests.backup import reader
from tests.backup.oracle import incomplete_tags
from tests.backup.places import contents, give_back, memory, read_all, take
from tests.backup.test_interrupted import small
from tests.model.builder import Builder
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore

SECOND = Digest.of(b"second layer")


def when(count: int, operation: str, beginning: str, action: Callable[[], object]) -> Callable[[str, str], None]:
    """A hook that acts before the given call of its kind."""
    seen = 0

    def hook(what: str, key: str) -> None:
        nonlocal seen
        if what == operation and key.startswith(beginning):
            seen += 1
            if seen == count:
                action()

    return hook


def pushed(store: ModelStore, tag: str, layer: bytes) -> Digest:
    b = Builder(NOW)
    b.store = store
    digest = b.image(b.blob(b"config of " + layer), [b.blob(layer)])
    b.push("b/c", digest, tag)
    return digest


@pytest.mark.parametrize("listing", [1, 2])
async def test_a_push_between_the_listings_is_whole_or_not_there(listing: int) -> None:
    store, backup = small(), ModelStore()
    hook = when(listing, "list", "docker/registry/v2/repositories/", lambda: pushed(store, "new", b"new layer"))
    taken = await take(FaultyStorage(memory(store), before=hook), memory(backup))
    assert not reader.problems(backup.bodies())
    assert reader.tags(backup.bodies(), taken.key).keys() == {"a:1", "b/c:latest", "b/c:new"}
    assert not taken.partial


async def test_a_tag_deleted_and_collected_while_blobs_are_copied() -> None:
    store, backup = small(), ModelStore()

    def delete() -> None:
        for key in [key for key in store if key.startswith(repository_prefix("b/c"))]:
            del store.objects[key]
        for digest in (SECOND,):
            del store.objects[encode(BlobKey(digest))]

    hook = when(1, "get", encode(BlobKey(SECOND)), delete)
    taken = await take(FaultyStorage(memory(store), before=hook), memory(backup))
    assert reader.tags(backup.bodies(), taken.key).keys() == {"a:1"}
    assert not taken.partial, "what was deleted is not missed"
    assert not reader.problems(backup.bodies())


async def test_a_tag_that_moves_while_blobs_are_copied_has_its_new_value() -> None:
    store, backup = small(), ModelStore()
    moved: list[Digest] = []

    def move() -> None:
        old = store.objects[encode(TagCurrentKey("b/c", "latest"))][0].decode()
        moved.append(pushed(store, "latest", b"third layer"))
        del store.objects[encode(RevisionLinkKey("b/c", Digest.parse(old)))]
        del store.objects[encode(LayerLinkKey("b/c", SECOND))]
        del store.objects[encode(BlobKey(SECOND))]

    hook = when(1, "get", encode(BlobKey(SECOND)), move)
    taken = await take(FaultyStorage(memory(store), before=hook), memory(backup))
    assert reader.tags(backup.bodies(), taken.key)["b/c:latest"] == str(moved[0])
    assert taken.reread > 0
    assert not reader.problems(backup.bodies())


async def test_a_repository_that_never_holds_still_is_taken_whole() -> None:
    store, backup = small(), ModelStore()
    number = 0

    def push_again(operation: str, key: str) -> None:
        nonlocal number
        if operation == "list" and key.startswith("docker/registry/v2/repositories/"):
            number += 1
            pushed(store, f"v{number}", b"layer %d" % number)

    taken = await take(FaultyStorage(memory(store), before=push_again), memory(backup))
    assert not reader.problems(backup.bodies())
    tags = reader.tags(backup.bodies(), taken.key)
    assert {"a:1", "b/c:latest", "b/c:v1"} <= tags.keys()
    target = ModelStore()
    assert not (await give_back(memory(backup), memory(target))).partial


LINK = LayerLinkKey("b/c", SECOND)


def without_link(child: bool = False) -> tuple[ModelStore, str, bytes]:
    """A registry in which a manifest stands without a link that it needs; that link's key and body."""
    store = small()
    if child:
        tagged = store.objects[encode(TagCurrentKey("a", "1"))][0].decode()
        key = next(
            key
            for key in store
            if isinstance(link := decode(key), RevisionLinkKey) and link.name == "a" and str(link.digest) != tagged
        )
    else:
        key = encode(LINK)
    return store, key, store.objects.pop(key)[0]


@pytest.mark.parametrize("child", [False, True])
async def test_a_link_that_gc_has_just_taken_is_in_the_snapshot(child: bool) -> None:
    """gc took it as garbage, at the moment of a push that needs it; it gives it back later. Both listings agree."""
    store, key, body = without_link(child)
    journal = Journal(memory(store), new_run(NOW))
    await journal.begin({"command": "gc"})
    await journal.write([Entry(UNLINK, key, len(body), NOW, body)])
    backup, target = ModelStore(), ModelStore()
    taken = await take(memory(store), memory(backup))
    assert not taken.partial
    await give_back(memory(backup), memory(target))
    assert target.body(key) == body
    assert not incomplete_tags(await contents(memory(target)))


async def test_what_gc_took_and_was_seen_again_is_no_more_its_to_give_back() -> None:
    store, key, body = without_link()
    journal = Journal(memory(store), new_run(NOW))
    await journal.begin({"command": "gc"})
    await journal.write([Entry(UNLINK, key, len(body), NOW, body)])
    await journal.end({"failures": []})
    (record,) = await find_runs(memory(store))
    await write_seen(memory(store), record.run, new_run(NOW), [key])
    assert (await take(memory(store), memory())).partial


@pytest.mark.parametrize("child", [False, True])
async def test_a_link_that_comes_back_meanwhile_is_in_the_snapshot(child: bool) -> None:
    store, key, body = without_link(child)

    def back() -> None:
        store.objects[key] = (body, NOW)

    backup, target = ModelStore(), ModelStore()
    hook = when(1, "list", REGISTRY, back)
    taken = await take(FaultyStorage(memory(store), before=hook), memory(backup))
    assert not taken.partial
    await give_back(memory(backup), memory(target))
    assert target.body(key) == body


@pytest.mark.parametrize("child", [False, True])
async def test_a_link_that_is_missing_is_named_and_never_made(child: bool) -> None:
    store, key, _ = without_link(child)
    backup, target = ModelStore(), ModelStore()
    taken = await take(memory(store), memory(backup))
    assert taken.partial
    (left_out,) = taken.snapshot.left_out
    link = decode(key)
    assert isinstance(link, LayerLinkKey | RevisionLinkKey)
    assert (left_out.repository, left_out.what) == (
        link.name,
        f"{'revision' if child else 'layer'} link {link.digest}",
    )
    await give_back(memory(backup), memory(target))
    assert key not in target
    assert await contents(memory(target)) == await contents(memory(store))


async def test_only_reading_is_needed_at_the_source() -> None:
    source = FaultyStorage(memory(small()), before=_no_writes)
    await take(source, memory())
    assert source.mutations == []


def _no_writes(operation: str, key: str) -> None:
    if operation in ("put", "delete", "copy", "move", "abort", "rmdir"):
        raise AccessDenied(f"{operation} {key}")


async def test_append_only_credentials_suffice_for_the_backup() -> None:
    written: dict[str, bytes] = {}

    def only_append(operation: str, key: str) -> None:
        if operation == "put":
            assert key not in written, "an object was written over"
            written[key] = b""
        elif operation in ("delete", "copy", "move", "abort", "rmdir"):
            raise AccessDenied(f"{operation} {key}")

    backup = ModelStore()
    for _ in range(2):
        await take(memory(small()), FaultyStorage(memory(backup), before=only_append))
    assert not reader.problems(backup.bodies())
    assert len([key for key in backup if key.startswith("intents/")]) == 2


async def test_scope_by_repository_and_tag() -> None:
    store = small()
    subject = Digest.parse(store.objects[encode(TagCurrentKey("b/c", "latest"))][0].decode())
    b = Builder(NOW - DAY)
    b.store = store
    b.push("b/c", b.image(b.blob(b"{}"), [b.blob(b"signature")], subject=subject), f"sha256-{subject.encoded}.sig")
    b.push("b/c", b.image(b.blob(b"other"), [b.blob(b"other layer")]), "other")
    backup = ModelStore()
    one = await take(memory(store), memory(backup), repositories=("b/*",), tags=("lat*",))
    follower = f"b/c:sha256-{subject.encoded}.sig"
    assert reader.tags(backup.bodies(), one.key).keys() == {"b/c:latest", follower}
    assert not any(b"other layer" in body for body in backup.bodies().values())
    everything = ModelStore()
    await take(memory(store), memory(everything))
    target = ModelStore()
    await give_back(memory(everything), memory(target), repositories=("b/c",), tags=("latest",))
    restored = await contents(memory(target))
    assert {key.split("/tags/")[1].split("/")[0] for key in restored if "/current/" in key} == {
        "latest",
        follower.removeprefix("b/c:"),
    }
    assert not any(b"other layer" in body for body in restored.values())
    with pytest.raises(InputError):
        await give_back(memory(everything), memory(), repositories=("nothing",))


async def test_a_digest_tag_that_is_cut_follows_what_it_names() -> None:
    b = Builder(NOW - DAY)
    image = b.by_sha512(b.image(b.blob(b"{}"), [b.blob(b"layer")]))
    b.push("a", image, "v1")
    follower = f"sha512-{image.encoded[:64]}.sig"
    b.push("a", b.image(b.blob(b"{}"), [b.blob(b"signature")]), follower)
    b.push("a", b.image(b.blob(b"{}"), [b.blob(b"other")]), f"sha512-{Digest.of(b'x', 'sha512').encoded[:64]}")
    backup = ModelStore()
    one = await take(memory(b.store), memory(backup), tags=("v*",))
    assert reader.tags(backup.bodies(), one.key).keys() == {"a:v1", f"a:{follower}"}


async def test_restore_into_a_store_in_use() -> None:
    store, backup = small(), ModelStore()
    await take(memory(store), memory(backup))
    used = small()
    newer = pushed(used, "latest", b"newer layer")
    before = used.bodies()
    conflicted = await give_back(memory(backup), memory(used))
    assert [(one.repository, one.tag, one.there) for one in conflicted.conflicts] == [("b/c", "latest", str(newer))]
    assert (conflicted.blobs, conflicted.tags, conflicted.partial) == (0, 0, True)
    assert {key: body for key, body in used.bodies().items() if key in before} == before
    overwritten = await give_back(memory(backup), memory(used), overwrite_tags=True)
    assert overwritten.tags == 1
    key = encode(TagCurrentKey("b/c", "latest"))
    assert used.body(key) == store.body(key)
    assert all(used.body(key) == body for key, body in before.items() if "/tags/" not in key)


async def test_where_a_backup_may_not_be_made() -> None:
    with pytest.raises(Refused, match="is not empty"):
        await take(memory(small()), memory(small()))
    backup = ModelStore()
    with pytest.raises(NotARegistry):
        await take(memory(), memory(backup))
    assert not backup.objects, "a mistyped source leaves nothing"
    within = memory()
    within.url = "s3://bucket/docker/registry/v2/backup"
    with pytest.raises(InputError, match="lies within"):
        await take(memory(small()), within)
    with pytest.raises(NotARegistry, match="no backup"):
        await read_all(memory())


async def test_a_store_that_was_seeded_is_saved_from_the_first_night_on() -> None:
    """And not once it has lost what the backup has: it may be another's, or a disk that is not mounted."""
    store, backup = ModelStore(), ModelStore()
    for seed in SEEDS:
        await memory(store).put(encode(seed), b"kept healthy")
    for _ in range(2):
        assert not (await take(memory(store), memory(backup))).snapshot.repositories
    pushed(store, "1", b"layer")
    assert len((await take(memory(store), memory(backup))).snapshot.repositories) == 1
    lost = ModelStore()
    for seed in SEEDS:
        await memory(lost).put(encode(seed), b"kept healthy")
    with pytest.raises(NotARegistry):
        await take(memory(lost), memory(backup))
