"""One rule at a time, over small stores."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from regstore.digest import Digest
from regstore.errors import (
    AccessDenied,
    AuthenticationFailed,
    InputError,
    NoSuchBucket,
    NotARegistry,
    Refused,
    StorageError,
    StorageFull,
)
from regstore.events import Event, Progress
from regstore.inventory.inventory import Inventory
from regstore.inventory.tag_times import MANY, load_record, merge_record
from regstore.layout import (
    TAG_RECORDS,
    BlobKey,
    LayerLinkKey,
    RevisionLinkKey,
    SignatureLinkKey,
    TagCurrentKey,
    encode,
    link_body,
)
from regstore.migrate import MigrateOptions, Verify, migrate, plan_only
from regstore.storage.base import Storage
from regstore.storage.disk import DiskStorage
from regstore.testing.faulty import FaultyStorage
from tests.examples import crossed
from tests.migrate.naive import incomplete_tags
from tests.migrate.stores import OURS, SCANNING, dangling, move
from tests.model.builder import Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore


class Pair:
    """A source that a builder filled, and a target."""

    def __init__(self) -> None:
        self.builder = Builder(NOW - 30 * DAY)
        self.target = ModelStore()
        self.layers = [self.builder.blob(b"layer %d" % number) for number in range(6)]
        self.config = self.builder.blob(b"{}")

    @property
    def source(self) -> ModelStore:
        return self.builder.store

    def here(self) -> ModelStorage:
        storage = ModelStorage(self.source, now=NOW)
        storage.url = "here"
        return storage

    def there(self) -> ModelStorage:
        storage = ModelStorage(self.target, now=NOW)
        storage.url = "there"
        return storage

    async def move(self, **options: Any) -> Any:
        return await move(self.here(), self.there(), **options)

    def image(self, *numbers: int, **more: Any) -> Digest:
        digest: Digest = self.builder.image(self.config, [self.layers[number] for number in numbers], **more)
        return digest

    def has(self, *keys: Any) -> list[bool]:
        return [encode(key) in self.target for key in keys]

    def tag(self, name: str, tag: str) -> str | None:
        body = self.target.body(encode(TagCurrentKey(name, tag)))
        return body.decode() if body is not None else None

    def set_tag(self, name: str, tag: str, digest: Digest) -> None:
        """Somebody sets it at the target."""
        self.target.objects[encode(TagCurrentKey(name, tag))] = (link_body(digest), NOW)


@pytest.fixture
def pair() -> Pair:
    return Pair()


# -- what is broken


async def test_a_flipped_byte_is_named_and_blocks_what_needs_it(pair: Pair) -> None:
    good, bad = pair.image(0, 1), pair.image(1, 2)
    index = pair.builder.index([good, bad])
    pair.builder.push("a", good, "good")
    pair.builder.push("a", bad, "bad")
    pair.builder.push("b", index, "multi")
    pair.builder.push("b", pair.image(3), "other")
    pair.source.objects[encode(BlobKey(pair.layers[2]))] = (b"layer 3", NOW - 30 * DAY)
    result = await pair.move()
    assert result.partial
    (failed,) = result.failed
    assert str(pair.layers[2]) in failed.subject and f"here/{encode(BlobKey(pair.layers[2]))}" in failed.reason
    assert "there" not in failed.reason, "nothing is wrong at the target"
    assert not any(pair.has(BlobKey(pair.layers[2]), LayerLinkKey("a", pair.layers[2])))
    assert (pair.tag("a", "good"), pair.tag("a", "bad"), pair.tag("b", "multi")) == (str(good), None, None)
    assert pair.tag("b", "other") is not None
    assert any(pair.has(RevisionLinkKey("a", bad), RevisionLinkKey("b", index))) is False
    assert {problem.subject for problem in result.skipped} >= {f"revision {bad}", f"tag bad ({bad})"}
    assert not any(key.startswith(f"{_tags('a')}bad/") for key in pair.target), "no folder that lists as a tag"
    assert not dangling(pair.target.bodies())
    # Once the source is well again, only the rest is copied.
    pair.source.objects[encode(BlobKey(pair.layers[2]))] = (b"layer 2", NOW)
    result = await pair.move()
    assert (result.partial, result.blobs, result.tags) == (False, 1, 2)
    assert pair.tag("b", "multi") == str(index)


def _tags(name: str) -> str:
    return encode(TagCurrentKey(name, "x")).removesuffix("x/current/link")


async def test_a_manifest_with_other_bytes(pair: Pair) -> None:
    image = pair.image(0)
    pair.builder.push("a", image, "1")
    pair.builder.push("b", pair.image(1), "1")
    body, mtime = pair.source.objects[encode(BlobKey(image))]
    pair.source.objects[encode(BlobKey(image))] = (body.replace(b"2", b"3", 1), mtime)
    result = await pair.move()
    assert result.partial and not result.failed
    assert any(str(image) in problem.subject for problem in result.damaged)
    assert (pair.tag("a", "1"), pair.tag("b", "1") is not None) == (None, True)
    # Its layers are kept all the same: nobody can tell what it needs.
    assert all(pair.has(LayerLinkKey("a", pair.layers[0]), BlobKey(pair.layers[0])))
    again = await pair.move()
    assert (again.objects, again.requests.get("put", 0)) == (0, 0)


async def test_a_tag_of_v2_1_0(pair: Pair) -> None:
    """Its manifest is linked as a layer, its signature below a revision that is not linked: registries of 2.x serve it.
    At the target those of 3.x do too, and it stays a manifest when its signature or its tag are gone."""
    b = pair.builder
    old = b.schema1([pair.layers[0]])
    b.push("a", old, "1")
    signature = b.blob(b"signature")
    b.sign("a", old, signature)
    b.link_layer("a", old)
    del pair.source.objects[encode(RevisionLinkKey("a", old))]
    b.push("a", pair.image(1), "2")
    there = pair.there()
    written: list[str] = []
    faulty = FaultyStorage(there, after=lambda operation, key: written.append(key))
    result = await move(pair.here(), faulty)
    assert not result.partial and not result.protected
    assert pair.tag("a", "1") == str(old)
    assert all(pair.has(LayerLinkKey("a", old), SignatureLinkKey("a", old, signature), BlobKey(signature)))
    links = [encode(key) for key in (LayerLinkKey("a", old), RevisionLinkKey("a", old), TagCurrentKey("a", "1"))]
    assert sorted(links, key=written.index) == links
    assert (await pair.move()).objects == 0
    # Untagged, and with a signature that is damaged.
    pair.target.objects.clear()
    without_tag = {key: held for key, held in pair.source.objects.items() if "/tags/1/" not in key}
    kept = dict(pair.source.objects)
    pair.source.objects.clear()
    pair.source.objects.update(without_tag)
    pair.source.objects[encode(BlobKey(signature))] = (b"", NOW - 30 * DAY)
    await pair.move()
    assert pair.has(SignatureLinkKey("a", old, signature), RevisionLinkKey("a", old)) == [False, True]
    pair.source.objects.update(kept)
    # By its tag alone, and not without its layer.
    pair.target.objects.clear()
    await pair.move(tags=("1",))
    assert pair.tag("a", "1") == str(old)
    pair.target.objects.clear()
    pair.source.objects[encode(BlobKey(pair.layers[0]))] = (b"layer 3", NOW - 30 * DAY)
    assert (await pair.move()).partial and pair.tag("a", "1") is None


@pytest.mark.parametrize("body", [b"", b"sha256:" + b"0" * 64 + b"\n", b"x" * 2000])
async def test_broken_links_are_reported_never_written(pair: Pair, body: bytes) -> None:
    first, second = pair.image(0), pair.image(1)
    pair.builder.push("a", first, "1")
    pair.builder.push("a", second, "2")
    pair.source.objects[encode(TagCurrentKey("a", "1"))] = (body, NOW - 30 * DAY)
    pair.source.objects[encode(RevisionLinkKey("a", second))] = (body, NOW - 30 * DAY)
    pair.source.objects[encode(LayerLinkKey("a", pair.layers[4]))] = (body, NOW - 30 * DAY)
    result = await pair.move()
    subjects = {problem.subject for problem in result.damaged}
    assert subjects == {"tag 1", "tag 2", f"revision {second}", f"layer link {pair.layers[4]}"}
    assert not any(pair.has(TagCurrentKey("a", "1"), TagCurrentKey("a", "2"), RevisionLinkKey("a", second)))
    assert pair.has(RevisionLinkKey("a", first)) == [True]
    assert not dangling({key: body for key, body in pair.target.bodies().items() if not key.startswith(OURS)})


async def test_what_the_source_lost_already_does_not_hold_up_the_rest(pair: Pair) -> None:
    image = pair.image(0, 1)
    pair.builder.push("a", image, "1")
    del pair.source.objects[encode(BlobKey(pair.layers[1]))]
    result = await pair.move()
    assert pair.tag("a", "1") == str(image), "the old registry served it too"
    assert [problem.subject for problem in result.incomplete] == [f"revision {image}"]
    assert [problem.subject for problem in result.damaged] == [f"layer link {pair.layers[1]}"]


async def test_unknown_keys_and_uploads_stay(pair: Pair) -> None:
    pair.builder.push("a", pair.image(0), "1")
    pair.builder.upload("a", "00000000-0000-4000-8000-000000000001")
    pair.source.objects["docker/registry/v2/repositories/a/_manifests/tags/stray"] = (b"?", NOW)
    summary = await plan_only(pair.here(), pair.there(), MigrateOptions(), scanning=SCANNING)
    assert (summary.unknown, summary.uploads, len(pair.target)) == (1, 1, 0)
    result = await pair.move()
    assert (result.unknown, result.uploads, result.partial) == (1, 1, False)
    assert not [key for key in pair.target if "stray" in key or "_uploads" in key]


async def test_no_registry_and_no_store(pair: Pair, tmp_path: Path) -> None:
    pair.builder.store.objects.clear()
    with pytest.raises(NotARegistry, match="here"):
        await pair.move()
    with pytest.raises(InputError, match="both"):
        await move(pair.here(), pair.here())
    with pytest.raises(NoSuchBucket):
        await move(DiskStorage(tmp_path / "none"), pair.there())


async def test_symbolic_links_are_refused(pair: Pair, tmp_path: Path) -> None:
    pair.builder.push("a", pair.image(0), "1")
    pair.source.write_folder(tmp_path / "here")
    blobs = tmp_path / "here/docker/registry/v2/blobs/sha256"
    blobs.rename(tmp_path / "elsewhere")
    blobs.symlink_to(tmp_path / "elsewhere")
    async with DiskStorage(tmp_path / "here") as source:
        with pytest.raises(Refused, match="symbolic"):
            await move(source, pair.there())
    assert len(pair.target) == 0


# -- tags


async def test_a_moved_tag_is_followed_and_a_foreign_one_kept(pair: Pair) -> None:
    first, second, third = pair.image(0), pair.image(1), pair.image(2)
    for tag in ("ours", "theirs", "both"):
        pair.builder.push("a", first, tag)
    await pair.move()
    pair.builder.push("a", second)
    pair.builder.push("a", third)
    for tag in ("ours", "theirs"):
        pair.builder.tag("a", tag, second)
    pair.set_tag("a", "theirs", third)
    pair.set_tag("a", "both", third)
    pair.builder.tag("a", "both", third)
    result = await pair.move()
    assert (pair.tag("a", "ours"), pair.tag("a", "theirs"), pair.tag("a", "both")) == (
        str(second),
        str(third),
        str(third),
    )
    (conflict,) = result.conflicts
    assert (conflict.tag, conflict.source, conflict.target) == ("theirs", str(second), str(third))
    assert result.partial
    # Back to what a pass before the last one wrote: that is somebody's doing too.
    pair.set_tag("a", "ours", first)
    result = await pair.move()
    assert {conflict.tag for conflict in result.conflicts} == {"ours", "theirs"}
    result = await pair.move(overwrite_tags=True)
    assert (result.partial, result.tags, pair.tag("a", "ours")) == (False, 2, str(second))


async def test_a_tag_of_a_target_that_we_never_wrote(pair: Pair) -> None:
    ours, theirs = pair.image(0), pair.image(1)
    pair.builder.push("a", ours, "1")
    pair.set_tag("a", "1", theirs)
    result = await pair.move()
    assert (len(result.conflicts), pair.tag("a", "1")) == (1, str(theirs))


@pytest.mark.parametrize("present", [False, True])
async def test_a_tag_set_at_the_target_while_we_copy(pair: Pair, present: bool) -> None:
    first, second, theirs = pair.image(0), pair.image(1), pair.image(2)
    pair.builder.push("a", first, "1")
    if present:
        await pair.move()
        pair.builder.push("a", second)
        pair.builder.tag("a", "1", second)

    def push(operation: str, key: str) -> None:
        if operation == "put" and key.startswith(TAG_RECORDS):
            pair.set_tag("a", "1", theirs)

    result = await move(pair.here(), FaultyStorage(pair.there(), before=push))
    assert (pair.tag("a", "1"), [conflict.target for conflict in result.conflicts]) == (str(theirs), [str(theirs)])


async def test_a_kill_between_record_and_tag_makes_no_conflict(pair: Pair) -> None:
    first, second = pair.image(0), pair.image(1)
    pair.builder.push("a", first, "1")
    await pair.move()
    pair.builder.push("a", second)
    pair.builder.tag("a", "1", second)

    def stop(operation: str, key: str) -> None:
        if operation == "put" and key.endswith("current/link"):
            raise StorageFull("as if killed")

    with pytest.raises(StorageFull):
        await move(pair.here(), FaultyStorage(pair.there(), before=stop))
    assert pair.tag("a", "1") == str(first)
    third = pair.image(2)
    pair.builder.push("a", third)
    pair.builder.tag("a", "1", third)
    result = await pair.move()
    assert (result.conflicts, pair.tag("a", "1")) == ((), str(third))


async def test_the_record_has_the_tags_own_times(pair: Pair) -> None:
    image = pair.image(0)
    pair.builder.push("a", image, "1")
    await pair.move(rename={"a": "b"})
    (key,) = [key for key in pair.target if key.startswith(TAG_RECORDS)]
    body = pair.target.body(key)
    assert body is not None
    assert [orjson.loads(line) for line in body.splitlines()] == [
        {
            "source": "here",
            "place": "here",
            "origin": "a",
            "repository": "b",
            "tag": "1",
            "digest": str(image),
            "time": NOW - 30 * DAY,
        }
    ]


async def test_a_tags_own_time_survives_a_second_hop(pair: Pair) -> None:
    """As long as nobody set the tag in between; what they name counts, not what they are called."""
    for tag in ("kept", "again", "moved"):
        pair.builder.push("a", pair.image(0), tag)
    await pair.move()
    middle = ModelStorage(pair.target, now=NOW + DAY)
    middle.url = "there"
    pair.builder.store, third = pair.target, ModelStore()
    pair.builder.mtime = NOW + DAY
    pair.builder.tag("a", "again", pair.image(0))
    pair.builder.push("a", pair.image(1), "moved")
    last = ModelStorage(third, now=NOW + 2 * DAY)
    last.url = "third"
    await move(middle, last, rename={"a": "b"})
    (key,) = [key for key in third if key.startswith(TAG_RECORDS)]
    times = {line["tag"]: line["time"] for line in map(orjson.loads, third.objects[key][0].splitlines())}
    assert times == {"kept": NOW - 30 * DAY, "again": NOW + DAY, "moved": NOW + DAY}


async def test_the_sources_own_record_may_be_out_of_reach(pair: Pair) -> None:
    pair.builder.push("a", pair.image(0), "1")

    def denied(operation: str, key: str) -> None:
        if key.startswith("regstore/"):
            raise AccessDenied(key)

    assert not (await move(FaultyStorage(pair.here(), before=denied), pair.there())).partial


async def test_two_sources_do_not_overwrite_each_other(pair: Pair) -> None:
    ours, theirs = pair.image(0), pair.image(1)
    pair.builder.push("a", ours, "1")
    await pair.move()
    other = Pair()
    other.builder.push("a", other.image(1), "1")
    other.target = pair.target
    storage = other.here()
    storage.url = "elsewhere"
    result = await move(storage, other.there())
    assert [(one.tag, one.target) for one in result.conflicts] == [("1", str(ours))]
    assert pair.tag("a", "1") == str(ours)
    # Nor does another repository of this one.
    pair.builder.push("b", theirs, "1")
    del pair.source.objects[encode(TagCurrentKey("a", "1"))]
    result = await pair.move(repositories=("b",), rename={"b": "a"})
    assert [(one.tag, one.target) for one in result.conflicts] == [("1", str(ours))]
    result = await move(storage, other.there(), overwrite_tags=True)
    assert not result.conflicts and pair.tag("a", "1") == str(theirs)


async def test_a_record_of_an_older_version_claims_nothing(pair: Pair) -> None:
    """It does not say which store of that name it was."""
    pair.builder.push("a", pair.image(0), "goes")
    pair.builder.push("a", pair.image(0), "moves")
    await pair.move()
    (key,) = [key for key in pair.target if key.startswith(TAG_RECORDS)]
    body, mtime = pair.target.objects[key]
    assert b'"place":"here",' in body
    pair.target.objects[key] = (body.replace(b'"place":"here",', b""), mtime)
    for each in [each for each in pair.source if "/tags/goes/" in each]:
        del pair.source.objects[each]
    pair.builder.push("a", pair.image(1), "moves")
    result = await pair.move(delete=True, max_delete=1)
    assert (result.deleted, [one.tag for one in result.conflicts]) == (0, ["moves"])
    assert [note for note in result.notes if "--delete removes nothing" in note]


async def test_many_files_of_the_record_become_one(pair: Pair) -> None:
    """They say the same afterwards, and a pass costs one GET of them, and one of its own."""
    first, second = pair.image(0), pair.image(1)
    for tag in ("same", "other"):
        pair.builder.push("a", first, tag)
    await pair.move()
    (key,) = [key for key in pair.target if key.startswith(TAG_RECORDS)]
    for number in range(2, MANY + 2):  # as many passes would leave
        name = key.replace(f"{1:010}", f"{number:010}")
        pair.target.objects[name] = (pair.target.objects[key][0].splitlines(keepends=True)[0], NOW)
    pair.builder.push("a", second, "same")
    await pair.move()
    files = [key for key in pair.target if key.startswith(TAG_RECORDS)]
    assert len(files) == 2 and ".merged" in files[0], "all but that of the last pass"
    lines = [orjson.loads(line) for key in files for line in pair.target.objects[key][0].splitlines()]
    assert [(line["tag"], line["digest"]) for line in lines] == [
        ("other", str(first)),
        ("same", str(first)),
        ("same", str(second)),
    ]
    del pair.source.objects[encode(TagCurrentKey("a", "other"))]
    there = pair.there()
    assert (await move(pair.here(), there, delete=True)).deleted == 1
    assert pair.tag("a", "other") is None


async def test_a_record_merged_while_it_is_read_is_read_again(pair: Pair) -> None:
    pair.builder.push("a", pair.image(0), "1")
    await pair.move()
    pair.builder.push("a", pair.image(1), "1")
    (key,) = [key for key in pair.target if key.startswith(TAG_RECORDS)]

    def merge(operation: str, text: str) -> None:
        if operation == "get" and text == key and key in pair.target:
            pair.target.objects[key.replace(".ndjson", ".merged000000.ndjson")] = pair.target.objects.pop(key)

    result = await move(pair.here(), FaultyStorage(pair.there(), before=merge))
    assert not result.conflicts and pair.tag("a", "1") == str(pair.image(1))


async def test_a_pass_that_may_still_run_is_not_merged(pair: Pair) -> None:
    inventory = Inventory()
    line = {"source": "s", "origin": "a", "repository": "a", "digest": str(pair.image(0)), "time": 1}
    for number in range(MANY + 1):
        body = orjson.dumps(line | {"tag": f"{number}"} | ({"was": None} if number == 3 else {}))
        pair.target.objects[f"{TAG_RECORDS}{number:010}-00000000-000000.ndjson"] = (body, NOW)
    there, files = pair.there(), sorted(pair.target)
    try:
        await merge_record(there, inventory, await load_record(there, inventory))
        assert sorted(pair.target) == files
        there.clock += 2 * DAY
        await merge_record(there, inventory, await load_record(there, inventory))
        (merged,) = pair.target
        before = inventory.all("from migrate_record order by all")
        assert list(await load_record(there, inventory)) == [merged]
        assert inventory.all("from migrate_record order by all") == before
    finally:
        inventory.close()


async def test_a_damaged_record_stops_the_run(pair: Pair) -> None:
    """Where it is asked: who set a tag that differs."""
    pair.builder.push("a", pair.image(0), "1")
    pair.target.objects[f"{TAG_RECORDS}x.ndjson"] = (b"{", NOW)
    pair.set_tag("a", "1", pair.image(1))
    with pytest.raises(StorageError, match="record of migrate"):
        await pair.move()


# -- scope


async def test_repositories_by_pattern_and_renamed(pair: Pair) -> None:
    for name in ("team/a", "team/b/c", "other"):
        pair.builder.push(name, pair.image(0), "1")
    result = await pair.move(repositories=("team/*",), rename={"team/a": "moved/a"})
    assert not result.partial
    assert [pair.tag(name, "1") is not None for name in ("moved/a", "team/a", "team/b/c", "other")] == [
        True,
        False,
        True,
        False,
    ]
    with pytest.raises(InputError, match="both other and team/a"):
        await pair.move(rename={"team/a": "other"})
    with pytest.raises(InputError, match="nothing to rename"):
        await pair.move(rename={"none": "x"})
    with pytest.raises(InputError, match="not a repository name"):
        await pair.move(rename={"team/a": "Not/Valid"})


async def test_tags_by_pattern_bring_children_referrers_and_digest_tags(pair: Pair) -> None:
    b = pair.builder
    child, untagged, other = pair.image(0), pair.image(1), pair.image(2)
    index = b.index([child])
    b.push("a", index, "v1")
    b.push("a", child)
    b.push("a", untagged)
    b.push("a", other, "w1")
    signature = b.image(pair.config, [pair.layers[3]], subject=index)
    b.push("a", signature)
    b.push("a", b.index([signature]), f"sha256-{index.encoded}")
    cosign = b.image(pair.config, [pair.layers[4]])
    b.push("a", cosign, f"sha256-{child.encoded}.sig")
    for odd in ("sha256-abc", "sha256-", f"sha512-{child.encoded}", "sha256-xyz"):
        b.push("a", other, odd)
    b.push("a", cosign, f"sha256-{other.encoded}.sig")
    result = await pair.move(tags=("v*",))
    assert not result.partial
    copied = [index, child, signature, cosign]
    assert pair.has(*(RevisionLinkKey("a", digest) for digest in [*copied, untagged, other])) == [
        *[True] * 4,
        *[False] * 2,
    ]
    assert pair.tag("a", f"sha256-{index.encoded}") and pair.tag("a", f"sha256-{child.encoded}.sig")
    assert pair.tag("a", f"sha256-{other.encoded}.sig") is None and pair.tag("a", "w1") is None
    assert not pair.has(BlobKey(pair.layers[2]))[0]
    with pytest.raises(InputError):
        MigrateOptions(tags=("x",), all=True)


async def test_a_digest_tag_that_is_cut_follows_what_it_names(pair: Pair) -> None:
    """A sha512 is too long for a tag: the distribution specification cuts it to 64 characters."""
    b = pair.builder
    image = b.by_sha512(pair.image(0))
    b.push("a", image, "v1")
    b.push("a", pair.image(1), "w1")
    cosign, other = b.image(pair.config, [pair.layers[2]]), b.image(pair.config, [pair.layers[3]])
    b.push("a", cosign, f"sha512-{image.encoded[:64]}.sig")
    b.push("a", other, f"sha512-{Digest.of(b'other', 'sha512').encoded[:64]}")
    result = await pair.move(tags=("v*",))
    assert not result.partial
    assert pair.tag("a", "v1") == str(image)
    assert pair.tag("a", f"sha512-{image.encoded[:64]}.sig") == str(cosign)
    assert pair.has(RevisionLinkKey("a", cosign), RevisionLinkKey("a", other)) == [True, False]


async def test_all_takes_garbage_too(pair: Pair) -> None:
    pair.builder.push("a", pair.image(0), "1")
    pair.builder.link_layer("a", pair.layers[3])
    await pair.move()
    assert pair.has(BlobKey(pair.layers[3]), LayerLinkKey("a", pair.layers[3])) == [False, False]
    await pair.move(all=True, repositories=("a",))
    assert pair.has(BlobKey(pair.layers[3]), LayerLinkKey("a", pair.layers[3])) == [True, True]
    assert pair.has(BlobKey(pair.layers[4])) == [False]
    await pair.move(all=True)
    assert pair.has(BlobKey(pair.layers[4])) == [True]


async def test_a_young_layer_link_is_live(pair: Pair) -> None:
    pair.builder.push("a", pair.image(0), "1")
    pair.builder.mtime = NOW - 1
    pair.builder.link_layer("a", pair.layers[3])
    await pair.move()
    assert pair.has(BlobKey(pair.layers[3]), LayerLinkKey("a", pair.layers[3])) == [True, True]


# -- a source that lives


async def test_a_blob_that_gc_took_is_no_error_when_its_links_went_too(pair: Pair) -> None:
    gone, stays = pair.image(0), pair.image(1)
    pair.builder.push("a", gone, "gone")
    pair.builder.push("a", stays, "stays")

    def collect(operation: str, key: str) -> None:
        if operation == "get" and key == encode(BlobKey(pair.layers[0])):
            for each in [each for each in pair.source if "/gone/" in each or gone.encoded in each]:
                del pair.source.objects[each]
            del pair.source.objects[encode(LayerLinkKey("a", pair.layers[0]))]
            del pair.source.objects[encode(BlobKey(pair.layers[0]))]

    result = await move(FaultyStorage(pair.here(), before=collect), pair.there())
    assert not result.partial
    assert result.gone == 3  # layer link, revision, tag
    assert (pair.tag("a", "gone"), pair.tag("a", "stays")) == (None, str(stays))


@pytest.mark.parametrize("moved", [False, True])
async def test_what_gc_takes_during_the_listing_is_no_damage(pair: Pair, moved: bool) -> None:
    """A manifest was linked when links were listed, and is gone with its links when it is read."""
    gone, stays = pair.image(0), pair.image(1)
    pair.builder.push("a", gone, "gone")
    pair.builder.push("a", stays, "stays")

    def collect(operation: str, key: str) -> None:
        if operation == "get" and key == encode(BlobKey(gone)) and key in pair.source:
            for each in [each for each in pair.source if "/gone/" in each or gone.encoded in each]:
                del pair.source.objects[each]
            if moved:
                pair.builder.tag("a", "gone", stays)

    result = await move(FaultyStorage(pair.here(), before=collect), pair.there())
    assert (result.damaged, result.protected, result.partial) == ((), (), False)
    assert pair.tag("a", "gone") == (str(stays) if moved else None) and pair.tag("a", "stays") == str(stays)
    again = pair.image(0, 1)
    pair.builder.push("a", again, "1")
    del pair.source.objects[encode(BlobKey(again))]
    assert {problem.subject for problem in (await pair.move()).damaged} == {f"revision {again}", "tag 1"}


async def test_a_pull_through_cache_lacks_what_it_did_not_fetch(pair: Pair) -> None:
    here, absent = pair.image(0, 1), pair.image(2)
    pair.builder.push("a", here, "1")
    pair.builder.push("a", absent, "2")
    for digest in (pair.layers[1], absent):
        del pair.source.objects[encode(BlobKey(digest))]
    pair.builder.tag("a", "3", pair.image(3))
    assert (await plan_only(pair.here(), pair.there(), MigrateOptions(), scanning=SCANNING)).damaged
    pair.source.objects["scheduler-state.json"] = (b"{}", NOW)
    result = await pair.move()
    assert (result.partial, result.protected, "pull-through" in str(result.notes)) == (False, (), True)
    assert [pair.tag("a", tag) for tag in ("1", "2", "3")] == [str(here), None, None]
    pair.source.objects[encode(RevisionLinkKey("a", here))] = (b"", NOW)
    assert (await pair.move()).partial, "damage is damage there too"


async def test_a_blob_that_is_sound_at_the_target_only(pair: Pair) -> None:
    """Cut short at the source by now: what needs it can be served all the same."""
    pair.builder.push("a", pair.image(0), "1")
    await pair.move()
    new = pair.image(0, 1)
    pair.builder.push("a", new, "2")
    key = encode(BlobKey(pair.layers[0]))
    pair.source.objects[key] = (b"layer", NOW)
    result = await pair.move()
    assert (result.failed, pair.tag("a", "2")) == ([], str(new))
    assert pair.target.body(key) == b"layer 0"
    assert [problem.subject for problem in result.damaged] == [f"blob {pair.layers[0]}"]


async def test_a_damaged_manifest_does_not_widen_a_tag(pair: Pair) -> None:
    bad = pair.image(0)
    pair.builder.push("a", bad, "bad")
    pair.builder.push("a", pair.image(1), "other")
    body, mtime = pair.source.objects[encode(BlobKey(bad))]
    pair.source.objects[encode(BlobKey(bad))] = (body.replace(b"2", b"3", 1), mtime)
    result = await pair.move(tags=("bad",))
    assert result.partial and not result.protected
    assert (result.objects, len(registry_keys(pair))) == (0, 0)


def registry_keys(pair: Pair) -> list[str]:
    return [key for key in pair.target if key.startswith("docker/")]


async def test_a_blob_that_went_without_its_links_is_reported(pair: Pair) -> None:
    image = pair.image(0)
    pair.builder.push("a", image, "1")

    def lose(operation: str, key: str) -> None:
        if operation == "get" and key == encode(BlobKey(pair.layers[0])):
            pair.source.objects.pop(key, None)

    result = await move(FaultyStorage(pair.here(), before=lose), pair.there())
    assert result.partial and pair.tag("a", "1") is None
    assert f"revision {image}" in {problem.subject for problem in result.skipped}


@pytest.mark.parametrize("area", ["_layers/", "_manifests/revisions/", "_manifests/tags/", "blobs/"])
async def test_a_push_during_the_listing(pair: Pair, area: str) -> None:
    """Whatever the listing saw of it, no incomplete tag arrives; the next pass brings the rest."""
    pair.builder.push("a", pair.image(0), "1")
    pair.builder.mtime = NOW
    pushed: list[Digest] = []

    class Source(ModelStorage):
        async def list(self, prefix: str, *, start_after: str = "") -> Any:
            async for page in super().list(prefix, start_after=start_after):
                if not pushed and any(area in key for key in page.keys):
                    pair.builder.store = pair.source
                    child = pair.builder.image(pair.builder.blob(b"new config"), [pair.builder.blob(b"new layer")])
                    pair.builder.push("a", child)
                    pushed.append(pair.builder.index([child]))
                    pair.builder.push("a", pushed[0], "new")
                yield page

    for page in (1, 3):
        pushed.clear()
        pair.target.objects.clear()
        source = Source(pair.source, now=NOW, page=page)
        source.url = "here"
        await move(source, pair.there())
        assert not incomplete_tags(pair.source, pair.target, now=NOW)
        result = await move(source, pair.there(), follow=True)
        assert pair.tag("a", "new") == str(pushed[0])
        assert not result.partial


async def test_follow_ends_when_nothing_changes(pair: Pair) -> None:
    pair.builder.push("a", pair.image(0), "1")
    pushes = [pair.image(1), pair.image(2)]

    def push(operation: str, key: str) -> None:
        if operation == "put" and key.endswith("current/link") and pushes:
            pair.builder.push("a", pushes.pop(), f"n{len(pushes)}")

    result = await move(pair.here(), FaultyStorage(pair.there(), before=push), follow=True)
    assert (result.passes, result.tags) == (4, 3)


async def test_a_tag_that_goes_between_two_passes_is_no_mistake(pair: Pair) -> None:
    pair.builder.push("a", pair.image(0), "v1")

    def remove(operation: str, key: str) -> None:
        if operation == "put" and key.endswith("current/link"):
            for each in [each for each in pair.source if "/tags/" in each]:
                del pair.source.objects[each]

    result = await move(pair.here(), FaultyStorage(pair.there(), after=remove), follow=True, tags=("v*",))
    assert (result.passes, result.tags, result.partial) == (2, 1, False)


async def test_gc_at_the_target_while_we_copy(pair: Pair) -> None:
    """A blob that the target had when it was listed is gone before its links are there: it is copied."""
    image = pair.image(0)
    pair.builder.push("a", image, "1")
    pair.target.objects[encode(BlobKey(pair.layers[0]))] = pair.source.objects[encode(BlobKey(pair.layers[0]))]

    def collect(operation: str, key: str) -> None:
        if operation != "put" or "/_layers/" not in key:
            return
        if pair.target.objects.pop(encode(BlobKey(pair.layers[0])), None):
            pair.target.objects["regstore/runs/20260101T000000Z-abcdef00/000001.jsonl.gz"] = (b"", NOW)

    result = await move(pair.here(), FaultyStorage(pair.there(), before=collect))
    assert pair.has(BlobKey(pair.layers[0])) == [True]
    assert result.passes > 1
    assert not incomplete_tags(pair.source, pair.target, now=NOW)


async def test_gc_at_the_target_that_never_ends_is_no_success(pair: Pair) -> None:
    """No pass could set a tag: that must not look like a migration that is done."""
    pair.builder.push("a", pair.image(0), "1")
    number = 0

    def collect(operation: str, key: str) -> None:
        nonlocal number
        if operation == "put" and key.startswith("docker/"):
            number += 1
            pair.target.objects[f"regstore/runs/20260101T000000Z-abcdef00/{number:06}.jsonl.gz"] = (b"", NOW)
            for blob in [other for other in pair.target if other.startswith("docker/registry/v2/blobs/")][:1]:
                del pair.target.objects[blob]

    result = await move(pair.here(), FaultyStorage(pair.there(), before=collect))
    assert pair.tag("a", "1") is None
    assert result.partial
    assert "gc" in str(result.failed[-1])


class Gc:
    """A run at the target that has journaled a blob which migrate relies on, and takes it after the listing."""

    run = "20260101T000000Z-abcdef00"

    def __init__(self, pair: Pair, *, locked: bool, age: int = 0) -> None:
        self.pair = pair
        self.blob = encode(BlobKey(pair.layers[0]))
        self.lock = f"regstore/locks/{self.run}"
        pair.builder.push("a", pair.image(0), "1")
        objects = pair.target.objects
        objects[self.blob] = pair.source.objects[self.blob]
        objects[f"regstore/runs/{self.run}/run.json"] = (b"{}", NOW - age)
        objects[f"regstore/runs/{self.run}/000001.jsonl.gz"] = (b"", NOW - age)
        if locked:
            objects[self.lock] = (b"{}", NOW - age)

    def take(self, operation: str, key: str) -> None:
        """Once links are written."""
        if operation == "put" and "/_layers/" in key:
            self.pair.target.objects.pop(self.blob, None)

    def end(self, *, failures: int = 0) -> None:
        done = orjson.dumps({"failures": ["x"] * failures})
        self.pair.target.objects[f"regstore/runs/{self.run}/done.json"] = (done, NOW)
        self.pair.target.objects.pop(self.lock, None)


@pytest.mark.parametrize("locked", [True, False])
async def test_gc_that_had_journaled_before_the_listing_is_waited_for(pair: Pair, locked: bool) -> None:
    gc = Gc(pair, locked=locked)
    notices: list[str] = []

    async def pause(seconds: float) -> None:
        assert pair.tag("a", "1") is None and not any(pair.has(RevisionLinkKey("a", pair.image(0))))
        gc.end()

    there = FaultyStorage(pair.there(), before=gc.take)
    result = await migrate(
        pair.here(),
        there,
        MigrateOptions(),
        scanning=SCANNING,
        pause=pause,
        on_event=lambda event: notices.append(getattr(event, "message", "")),
    )
    assert (result.passes, result.partial) == (2, False)
    assert gc.blob in pair.target and pair.tag("a", "1") is not None
    assert [each for each in notices if f"run {gc.run}" in each and "waiting" in each]


async def test_gc_that_does_not_end_for_an_hour_is_no_success(pair: Pair) -> None:
    gc = Gc(pair, locked=True)

    async def pause(seconds: float) -> None:
        pair.target.objects[gc.lock] = (b"{}", there.clock)  # renewed
        there.clock += int(seconds * 1_000_000)

    there = pair.there()
    result = await migrate(pair.here(), there, MigrateOptions(), scanning=SCANNING, pause=pause)
    assert result.partial and pair.tag("a", "1") is None
    assert gc.run in str(result.failed) and "run migrate again" in str(result.failed)


async def test_gc_that_died_blocks_for_its_lease_only(pair: Pair) -> None:
    gc = Gc(pair, locked=True)
    there = pair.there()
    result = await move(pair.here(), FaultyStorage(there, before=gc.take))
    assert (result.passes, result.partial) == (2, False)
    assert NOW + 600_000_000 < there.clock < NOW + 660_000_000
    assert gc.blob in pair.target and pair.tag("a", "1") is not None


@pytest.mark.parametrize("failures", [0, 1])
async def test_what_a_dead_run_asked_for_may_take_effect_late(pair: Pair, failures: int) -> None:
    """Nobody is at work, but a blob that was listed goes all the same: it is looked for before tags are set."""
    gc = Gc(pair, locked=False, age=2 * DAY)
    if failures:
        gc.end(failures=failures)
    result = await move(pair.here(), FaultyStorage(pair.there(), before=gc.take))
    assert (result.passes, result.partial) == (2, False)
    assert gc.blob in pair.target and pair.tag("a", "1") is not None


async def test_nothing_to_do_is_no_success_while_gc_is_at_work(pair: Pair) -> None:
    gc = Gc(pair, locked=False, age=2 * DAY)
    await pair.move()
    pair.target.objects[gc.lock] = (b"{}", NOW)

    async def pause(seconds: float) -> None:
        for key in [key for key in pair.target if "/tags/1/" in key]:
            del pair.target.objects[key]
        gc.end()

    result = await migrate(pair.here(), pair.there(), MigrateOptions(), scanning=SCANNING, pause=pause)
    assert (result.passes, result.tags) == (2, 1)


async def test_a_pattern_that_matches_nothing_is_a_mistake(pair: Pair) -> None:
    pair.builder.push("a", pair.image(0), "1")
    for patterns in (("typo",), ("a", "typo*")):
        with pytest.raises(InputError, match="typo"):
            await pair.move(repositories=patterns)
    with pytest.raises(InputError, match="no tag typo"):
        await pair.move(tags=("1", "typo"))
    await pair.move()
    for each in [each for each in pair.source if "/a/" in each]:
        del pair.source.objects[each]
    pair.builder.push("b", pair.image(0), "1")
    assert (await pair.move(repositories=("a",), delete=True, max_delete=1)).deleted == 1, "it had been there"


async def test_a_tag_set_back_at_the_target_after_a_kill_is_a_conflict(pair: Pair) -> None:
    """A killed pass leaves `was` in the record; once the tag was written, who sets that value again is somebody."""
    old, new, newest = pair.image(0), pair.image(1), pair.image(2)
    pair.builder.push("a", old, "1")
    await pair.move()
    pair.builder.push("a", new, "1")
    files = 0

    def kill(operation: str, key: str) -> None:
        nonlocal files
        if operation == "put" and key.startswith(TAG_RECORDS):
            files += 1
            if files == 2:  # the tag is there, `was` not yet gone
                raise AuthenticationFailed("killed")

    with pytest.raises(AuthenticationFailed):
        await move(pair.here(), FaultyStorage(pair.there(), before=kill))
    assert pair.tag("a", "1") == str(new)
    await pair.move()  # finishes what is left to do
    pair.target.objects[encode(TagCurrentKey("a", "1"))] = (link_body(old), NOW + 1)
    pair.builder.push("a", newest, "1")
    result = await pair.move()
    assert pair.tag("a", "1") == str(old)
    assert [one.tag for one in result.conflicts] == ["1"]


# -- deletes


async def test_delete_takes_only_our_tags_and_journals_them(pair: Pair) -> None:
    image, theirs = pair.image(0), pair.image(1)
    for tag in ("stays", "goes", "moved"):
        pair.builder.push("a", image, tag)
    pair.builder.push("b", image, "whole")
    await pair.move()
    pair.set_tag("a", "foreign", theirs)
    pair.set_tag("a", "moved", theirs)
    for key in [key for key in pair.source if any(f"/{tag}/" in key for tag in ("goes", "moved", "whole"))]:
        del pair.source.objects[key]
    before = pair.target.bodies()
    assert (await pair.move()).deleted == 0, "off by default"
    result = await pair.move(delete=True, repositories=("a",))
    assert (result.deleted, result.deleted_tags) == (1, ["a:goes"])
    gone = before.keys() - pair.target.bodies().keys()
    assert gone == {key for key in before if "/goes/" in key}
    assert not [key for key in pair.target if "/locks/" in key]
    journal = b"".join(
        gzip.decompress(body) for key, (body, _) in pair.target.objects.items() if key.endswith("jsonl.gz")
    )
    assert {orjson.loads(line)["key"]: orjson.loads(line)["body"] for line in journal.splitlines()} == {
        key: before[key].decode() for key in gone
    }
    # Another source never deletes what this one wrote.
    other = Pair()
    other.builder.push("a", image, "stays")
    storage = other.here()
    storage.url = "another"
    other.target = pair.target
    assert (await move(storage, other.there(), delete=True)).deleted == 0
    assert (await pair.move(delete=True)).deleted == 1, "whole"


async def test_a_source_that_lost_most_tags_is_refused(pair: Pair) -> None:
    for tag in ("a", "b", "c"):
        pair.builder.push("a", pair.image(0), tag)
    await pair.move()
    for key in [key for key in pair.source if "/tags/a/" in key or "/tags/b/" in key]:
        del pair.source.objects[key]
    before = pair.target.bodies()
    with pytest.raises(Refused, match="2 of the 3 tags"):
        await pair.move(delete=True)
    assert pair.target.bodies() == before
    assert (await pair.move(delete=True, max_delete=0.7)).deleted == 2


async def test_an_empty_source_deletes_nothing(pair: Pair) -> None:
    pair.builder.push("a", pair.image(0), "1")
    await pair.move()
    pair.source.objects.clear()
    with pytest.raises(NotARegistry):
        await pair.move(delete=True)
    assert pair.tag("a", "1") is not None


# -- faults


@crossed("side, page", ["source", "target"], [1, 2, 4, 7], meeting=1)
async def test_a_listing_that_fails_stops_the_run(pair: Pair, side: str, page: int) -> None:
    for number in range(3):
        pair.builder.push(f"r{number}", pair.image(number), "1")
    await pair.move(repositories=("r0",))
    before = pair.target.bodies()
    here, there = pair.here(), pair.there()
    here.page = there.page = 5
    stores: dict[str, Storage] = {"source": here, "target": there}
    error: Callable[[str], StorageError] = AccessDenied
    stores[side] = FaultyStorage(stores[side], fail_list_page=page, fail_list_prefix="docker/", error=error)
    faulty = stores[side]
    assert isinstance(faulty, FaultyStorage)
    try:
        await move(stores["source"], stores["target"])
    except AccessDenied:
        assert pair.target.bodies() == before
    else:
        assert faulty.pages < page


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_write_that_fails_leaves_a_correct_target(pair: Pair, when: Any) -> None:
    pair.builder.push("a", pair.builder.index([pair.image(0, 1), pair.image(1, 2)]), "1")
    number = -4
    while True:
        number += 5  # 1, 6, 11, …
        pair.target.objects.clear()
        faulty = FaultyStorage(pair.there(), fail_at=number, when=when)
        try:
            result = await move(pair.here(), faulty)
        except StorageError:
            result = None
        assert not dangling({key: body for key, body in pair.target.bodies().items() if not key.startswith(OURS)})
        assert not incomplete_tags(pair.source, pair.target, now=NOW)
        if faulty.fail_at is not None:
            break
        assert result is None or result.partial
        assert not (await pair.move()).partial
        assert pair.tag("a", "1") is not None
    assert number > 10


async def test_credentials_that_fail_stop_the_run(pair: Pair) -> None:
    pair.builder.push("a", pair.image(0), "1")
    faulty = FaultyStorage(pair.there(), fail_at=1, error=StorageFull)
    with pytest.raises(StorageFull):
        await move(pair.here(), faulty)
    assert all("/blobs/" in key for key in pair.target)


# -- verification


async def test_verify_full_reads_back_and_repairs(pair: Pair) -> None:
    pair.builder.push("a", pair.image(0), "1")
    await pair.move()
    key = encode(BlobKey(pair.layers[0]))
    pair.target.objects[key] = (b"layer 9", NOW)  # of the same size
    assert (await pair.move()).objects == 0
    result = await pair.move(verify=Verify.FULL)
    assert (result.repaired, result.verified, result.partial) == (1, 3, False)
    assert pair.target.body(key) == b"layer 0"


async def test_a_blob_of_another_size_is_written_again(pair: Pair) -> None:
    pair.builder.push("a", pair.image(0), "1")
    await pair.move()
    key = encode(BlobKey(pair.layers[0]))
    pair.target.objects[key] = (b"", NOW)
    assert (await pair.move()).blobs == 1
    assert pair.target.body(key) == b"layer 0"


# -- what is seen and left behind


async def test_the_bar_goes_on_within_a_blob(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regstore.migrate.way._TELL_SECONDS", 0.0)
    large = pair.builder.blob(bytes(5 << 20))
    pair.builder.push("a", pair.builder.image(pair.config, [large]), "1")
    pair.source.write_folder(tmp_path)
    seen: list[Progress] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == "copying blobs":
            seen.append(event)

    async with DiskStorage(tmp_path) as source:
        await migrate(source, pair.there(), MigrateOptions(concurrency=1), scanning=SCANNING, on_event=on_event)
    done = [event.done for event in seen]
    assert done == sorted(done)
    assert [event.done >> 20 for event in seen if "0/3 blobs" in event.detail] == [1, 2, 3, 4, 5]
    assert f"{large.short} ({5 << 20:,} B)" in seen[0].detail
    assert (seen[-1].done, seen[-1].detail) == (seen[-1].total, "3/3 blobs")


async def test_what_a_killed_run_was_writing_goes_once_it_is_old(pair: Pair, tmp_path: Path) -> None:
    pair.builder.push("a", pair.image(0), "1")
    name = ".regstore-" + "0a" * 16
    key = encode(BlobKey(pair.layers[0]))
    places = [key.replace("data", name), f"docker/registry/v2/repositories/a/_layers/{name}"]
    kept = [key.replace("data", name + "x"), key.replace("data", ".regstore-1"), name]
    for place in places + kept:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    async with DiskStorage(tmp_path) as target:
        await move(pair.here(), target)
        assert all((tmp_path / place).exists() for place in places), "somebody may be at it"
        for place in places + kept:
            os.utime(tmp_path / place, (time.time() - 7 * 3600,) * 2)
        assert (await move(pair.here(), target)).objects == 0
    assert not any((tmp_path / place).exists() for place in places)
    assert all((tmp_path / place).exists() for place in kept)
