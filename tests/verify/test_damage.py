"""Each kind of damage is found, named with the tags it touches, and repaired from another copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from regstore.backup.links import BackedUpLinks
from regstore.errors import InputError
from regstore.layout import REPOSITORIES, SCHEDULER_STATE, BlobKey, encode
from regstore.verify.fault import FaultKind
from tests.backup.places import memory, take
from tests.model.builder import Builder
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore
from tests.servers import images
from tests.verify.stores import (
    ALIAS,
    APP,
    ARM,
    DOCKER,
    MULTI,
    SBOM,
    SIGNATURE,
    SIGNATURE_TAG,
    SINGLE,
    link,
    look,
    mend,
    named,
    pristine,
    registry_of,
    storage_of,
)

FALLBACK = f"team/app:{images.referrers_tag(MULTI)}"
SINGLES = {"team/app:single", "team/app:next", "other:1"}
LAYER = SINGLE.blobs[1].digest
CONFIG = SINGLE.blobs[0].digest


def flip(body: bytes) -> bytes:
    return bytes([body[0] ^ 1]) + body[1:]


def cut(body: bytes) -> bytes:
    return body[:-3]


def empty(body: bytes) -> bytes:
    return b""


def newline(body: bytes) -> bytes:
    return body + b"\n"


def other(body: bytes) -> bytes:
    return DOCKER.digest.encode()


def long(body: bytes) -> bytes:
    return b"x" * 2000


@dataclass(frozen=True)
class Damage:
    """change None: the key is lost. found: the fault's words. needs: what a repair must be told beside --repair."""

    key: str
    change: Callable[[bytes], bytes] | None
    found: str
    tags: frozenset[str]
    read: str = ""
    from_copy: bool = True
    links: bool = False


def blob(digest: str, change: Callable[[bytes], bytes] | None, tags: set[str], read: str = "") -> Damage:
    kind = FaultKind.BLOB_MISSING if change is None else FaultKind.BLOB_DAMAGED
    return Damage(images.blob_key(digest), change, f"{kind}: blob {digest}", frozenset(tags), read)


def lost(area: str, key: str, subject: str, tags: set[str]) -> Damage:
    return Damage(key, None, f"{FaultKind.LINK_MISSING}: {area} {subject}", frozenset(tags), links=True)


def bad(
    area: str,
    key: str,
    subject: str,
    change: Callable[[bytes], bytes],
    tags: set[str],
    *,
    from_copy: bool = False,
    links: bool = False,
) -> Damage:
    found = f"{FaultKind.LINK_DAMAGED}: {area} {subject}"
    return Damage(key, change, found, frozenset(tags), from_copy=from_copy, links=links)


DAMAGES = (
    {
        "layer, flipped byte": blob(LAYER, flip, SINGLES, "all"),
        "layer, truncated": blob(LAYER, cut, SINGLES),
        "layer, empty": blob(LAYER, empty, SINGLES),
        "layer, lost": blob(LAYER, None, SINGLES),
        "config, flipped byte": blob(CONFIG, flip, SINGLES, "all"),
        "config, lost": blob(CONFIG, None, SINGLES),
        "manifest, flipped byte": blob(SINGLE.digest, flip, SINGLES),
        "manifest, truncated": blob(SINGLE.digest, cut, SINGLES),
        "manifest, lost": blob(SINGLE.digest, None, SINGLES),
        "index, lost": blob(MULTI.digest, None, {"team/app:multi"}),
        "child, lost": blob(ARM.digest, None, {"team/app:multi"}),
        "child, flipped byte": blob(ARM.digest, flip, {"team/app:multi"}),
        "layer of a child, lost": blob(ARM.blobs[2].digest, None, {"team/app:multi"}),
        "referrer's payload, lost": blob(SBOM.blobs[1].digest, None, {"~team/app:multi", FALLBACK}),
        "referrer, lost": blob(SBOM.digest, None, {"~team/app:multi", FALLBACK}),
        "signature's payload, lost": blob(
            SIGNATURE.blobs[1].digest, None, {f"team/app:{SIGNATURE_TAG}", "~team/app:single", "~team/app:next"}
        ),
        "layer by sha512, lost": blob(images.layer("by sha512").digest, None, {"b:sha512"}),
        "layer by sha512, flipped byte": blob(images.layer("by sha512").digest, flip, {"b:sha512"}, "all"),
        "layer link, lost": lost(
            "layer", link("team/app", "_layers", LAYER), LAYER, {"team/app:single", "team/app:next"}
        ),
        "layer link by sha512, lost": lost("layer", link("b", "_layers", str(ALIAS)), str(ALIAS), {"b:sha512"}),
        "revision link, lost": lost(
            "revision", link("other", "_manifests/revisions", SINGLE.digest), SINGLE.digest, {"other:1"}
        ),
        "revision link of a child, lost": lost(
            "revision", link("team/app", "_manifests/revisions", ARM.digest), ARM.digest, {"team/app:multi"}
        ),
        "tag, lost": lost("tag", f"{APP}/_manifests/tags/multi/current/link", "multi", {"team/app:multi"}),
        "layer link by sha512, empty": bad(
            "layer", link("b", "_layers", str(ALIAS)), str(ALIAS), empty, {"b:sha512"}, from_copy=True, links=True
        ),
    }
    | {
        f"{area} link, {change.__name__}": bad(area, key, subject, change, tags, **more)
        for change in (flip, cut, empty, newline, other, long)
        for area, key, subject, tags, more in (
            ("layer", link("team/app", "_layers", LAYER), LAYER, {"team/app:single", "team/app:next"}, {}),
            ("revision", link("team/app", "_manifests/revisions", ARM.digest), ARM.digest, {"team/app:multi"}, {}),
            (
                "tag",
                f"{APP}/_manifests/tags/docker/current/link",
                "docker",
                {"team/app:docker"},
                {"from_copy": True, "links": True},
            ),
        )
        if not (area == "tag" and change in (other, empty))
    }
    | {
        # Its history holds one manifest: nothing else can be meant.
        "tag link, empty": bad(
            "tag", f"{APP}/_manifests/tags/docker/current/link", "docker", empty, {"team/app:docker"}
        ),
    }
)


#: The first of each kind of damage, of each kind of key.
FIRST = {(each.found.rpartition(" ")[0], each.read): each for each in reversed(DAMAGES.values())}.values()


def damaged(damage: Damage) -> ModelStore:
    store = pristine()
    body, mtime = store.objects[damage.key]
    if damage.change is None:
        del store.objects[damage.key]
    else:
        store.objects[damage.key] = (damage.change(body), mtime)
    return store


async def test_nothing_is_wrong_with_a_sound_registry() -> None:
    storage = storage_of(pristine())
    report = await look(storage, "all")
    assert report.findings.counts == {}
    assert report.findings.absent.sparse == 1
    assert report.findings.absent.foreign == 1
    assert report.reading is not None
    assert report.reading.blobs + report.reading.manifests == report.findings.blobs
    assert report.reading.never_proved == 0
    assert not {"put", "copy", "delete"} & storage.counters.requests.keys()


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_damage_is_found_and_named_and_repaired(damage: Damage, request: pytest.FixtureRequest) -> None:
    """That nothing is repaired which is not asked for, or has no copy, is looked at for the first of each kind."""
    first = damage in FIRST or request.config.getoption("--slow")
    store = damaged(damage)
    storage, copy = storage_of(store), storage_of(pristine())
    before = registry_of(store)
    if first and damage.from_copy:
        _, repairs, left = await mend(storage, read=damage.read)
        assert repairs.nothing
        assert left.findings.damage == 1
        assert registry_of(store) == before
    if first and damage.links:
        _, repairs, left = await mend(storage, copy, read=damage.read)
        assert repairs.nothing, "a link that is not there may have been removed on purpose"
        assert registry_of(store) == before
    found, repairs, left = await mend(
        storage, copy if damage.from_copy else None, read=damage.read, restore_links=damage.links
    )
    assert {one.what: one.tags for one in map(named, found.findings.faults)} == {damage.found: damage.tags}
    assert found.findings.damage == 1
    assert found.findings.tags_broken == sum(not tag.startswith("~") for tag in damage.tags)
    assert left.findings.counts == {}
    assert not repairs.failures
    assert registry_of(store) == pristine().bodies()
    # What was replaced can be looked at.
    if damage.change is not None:
        kept = [body for key, (body, _) in store.objects.items() if key.endswith(f"/damaged/{damage.key}")]
        in_journal = damage.found.startswith(FaultKind.LINK_DAMAGED) and damage.change is not long
        assert kept == ([] if in_journal else [before[damage.key]])


async def test_a_sound_store_is_not_written_to() -> None:
    storage = storage_of(pristine())
    before = dict(storage.store.objects)
    _, repairs, _ = await mend(storage, storage_of(pristine()), restore_links=True, drop_broken_tags=True)
    assert repairs.nothing
    assert storage.store.objects == before


async def test_a_backup_serves_as_a_copy() -> None:
    store = pristine()
    del store.objects[images.blob_key(LAYER)]
    encoded = LAYER.partition(":")[2]
    backup = ModelStore.from_dict({f"blobs/sha256/{encoded[:2]}/{encoded}": SINGLE.blobs[1].data})
    _, repairs, left = await mend(storage_of(store), storage_of(backup))
    assert repairs.blobs == (LAYER,)
    assert left.findings.counts == {}


async def test_links_come_back_from_a_backup() -> None:
    """From the newest snapshot that left nothing of the repository out: one that was taken since lacks just these."""
    backup = ModelStore()
    await take(memory(pristine()), memory(backup))
    store = pristine()
    lost = [
        link("team/app", "_layers", LAYER),
        link("b", "_layers", str(ALIAS)),
        link("other", "_manifests/revisions", SINGLE.digest),
        f"{APP}/_manifests/tags/multi/current/link",
    ]
    for key in lost:
        del store.objects[key]
    later = await take(memory(store), memory(backup, now=NOW + DAY))
    assert later.snapshot.left_out
    source = memory(backup)
    _, repairs, left = await mend(storage_of(store), source, links=BackedUpLinks(source), restore_links=True)
    assert repairs.restored == tuple(sorted(lost))
    assert left.findings.counts == {}
    assert registry_of(store) == pristine().bodies()


async def test_links_come_from_no_other_store_in_the_backup() -> None:
    """Two stores have a repository of one name; what the other's clients may read is none of this one's business."""
    backup, store = ModelStore(), pristine()
    for number, url in enumerate(("s3://mine", "s3://other")):
        source = memory(pristine())
        source.url = url
        await take(source, memory(backup, now=NOW + number))
    key = link("other", "_manifests/revisions", SINGLE.digest)
    del store.objects[key]
    source = memory(backup)
    for place in ("", "s3://third"):
        links = BackedUpLinks(source, place=place)
        with pytest.raises(InputError, match="of s3://mine; s3://other"):
            await mend(storage_of(store), source, links=links, restore_links=True)
    _, repairs, _ = await mend(
        storage_of(store), source, links=BackedUpLinks(source, place="s3://mine"), restore_links=True
    )
    assert repairs.restored == (key,)


async def test_links_that_no_backup_has_stay_lost() -> None:
    backup, without = ModelStore(), pristine()
    for key in [key for key in without if "/repositories/other/" in key]:
        del without.objects[key]
    await take(memory(without), memory(backup))
    for key in [key for key in backup if key.startswith("packs/")][:1]:
        backup.objects[key] = (b"rotten", NOW)
    store = pristine()
    del store.objects[link("other", "_manifests/revisions", SINGLE.digest)]
    source = memory(backup)
    _, repairs, left = await mend(storage_of(store), source, links=BackedUpLinks(source), restore_links=True)
    assert repairs.nothing
    assert left.findings.counts == {FaultKind.LINK_MISSING: 1}


async def test_a_damaged_copy_is_not_taken() -> None:
    for change in (flip, None):
        store, copy = pristine(), pristine()
        key = images.blob_key(LAYER)
        if change is None:
            del store.objects[key]
        else:
            store.objects[key] = (change(store.objects[key][0]), NOW)
        copy.objects[key] = (cut(copy.objects[key][0]), NOW)
        before = registry_of(store)
        _, repairs, left = await mend(storage_of(store), storage_of(copy))
        assert repairs.nothing
        assert repairs.failures
        assert left.findings.damage == 1
        assert registry_of(store) == before


async def test_what_lies_in_the_trash_comes_back() -> None:
    store = pristine()
    key = images.blob_key(LAYER)
    store.objects[f"regstore/trash/20260101T000000Z-abcdef00/{key}"] = store.objects.pop(key)
    _, repairs, left = await mend(storage_of(store))
    assert repairs.blobs == (LAYER,)
    assert left.findings.counts == {}
    assert registry_of(store) == pristine().bodies()


async def test_a_lost_manifest_hides_what_it_names() -> None:
    """The index, a child and a layer of it are gone: each round of the repair finds what the last brought back."""
    store = pristine()
    for digest in (MULTI.digest, ARM.digest, ARM.blobs[2].digest):
        del store.objects[images.blob_key(digest)]
    _, repairs, left = await mend(storage_of(store), storage_of(pristine()))
    assert len(repairs.blobs) == 3
    assert left.findings.counts == {}
    assert registry_of(store) == pristine().bodies()


async def test_broken_tags_go_only_when_asked() -> None:
    store = pristine()
    del store.objects[images.blob_key(ARM.digest)]  # breaks team/app:multi
    del store.objects[images.blob_key(SBOM.blobs[1].digest)]  # breaks the referrers' tag only
    # A registry on S3 would show the tag as long as its marker is left.
    for litter in ("", "current/", "index/._sha256", "@eaDir/current@SynoEAStream"):
        key = f"{REPOSITORIES}team/app/_manifests/tags/multi/{litter}"
        store.objects[key] = (b"", store.objects[images.blob_key(LAYER)][1])
    storage = storage_of(store)
    _, repairs, _ = await mend(storage)
    assert repairs.nothing
    _, repairs, left = await mend(storage, drop_broken_tags=True)
    assert set(repairs.dropped) == {"team/app:multi", FALLBACK}
    assert not any("/tags/multi/" in key for key in store)
    assert {tag.tag for fault in left.findings.faults for tag in fault.touched} == set()
    assert {key for key in pristine() if "/tags/" not in key} - set(store) == {
        images.blob_key(ARM.digest),
        images.blob_key(SBOM.blobs[1].digest),
    }


async def test_a_tag_that_is_repaired_is_not_dropped() -> None:
    store = pristine()
    del store.objects[images.blob_key(LAYER)]
    _, repairs, left = await mend(storage_of(store), storage_of(pristine()), drop_broken_tags=True)
    assert repairs.dropped == ()
    assert left.findings.counts == {}


async def test_absence_is_normal_in_a_pull_through_cache() -> None:
    from regstore.errors import Refused

    store = pristine()
    store.objects[SCHEDULER_STATE] = (b"{}", NOW)
    for key in (images.blob_key(LAYER), link("other", "_layers", CONFIG), link("team/app", "_layers", CONFIG)):
        del store.objects[key]
    storage = storage_of(store)
    report = await look(storage, "all")
    assert report.pull_through
    assert report.findings.counts == {}
    assert report.findings.absent.cached == 1
    store.objects[images.blob_key(CONFIG)] = (b"rot", NOW)
    store.objects[link("other", "_layers", LAYER)] = (b"", NOW)
    report = await look(storage, "all")
    assert report.findings.counts == {FaultKind.BLOB_DAMAGED: 1, FaultKind.LINK_DAMAGED: 1}
    before = dict(store.objects)
    with pytest.raises(Refused, match="pull-through cache"):
        await mend(storage, storage_of(pristine()))
    assert store.objects == before


async def test_what_garbage_collect_leaves_is_no_damage() -> None:
    """2.x removes the blobs of an untagged image, and leaves their layer links."""
    store = pristine()
    for key in images.registry_keys("team/app", DOCKER, "docker"):
        if "_layers" not in key:
            del store.objects[key]
    report = await look(storage_of(store), "all")
    assert report.findings.counts == {}
    assert report.findings.absent.leftovers == len(DOCKER.blobs)


async def test_damage_of_what_a_cut_digest_tag_points_at_touches_what_it_names() -> None:
    """A sha512 is too long for a tag: the distribution specification cuts it to 64 characters."""
    b = Builder(NOW - DAY)
    image = b.by_sha512(b.image(b.blob(b"config"), [b.blob(b"layer")]))
    b.push("a", image, "v1")
    b.push("a", b.image(b.blob(b"other"), []), "v2")
    cut, payload = f"sha512-{image.encoded[:64]}.sig", b.blob(b"payload")
    b.push("a", b.image(b.blob(b"cosign"), [payload]), cut)
    del b.store.objects[encode(BlobKey(payload))]
    found = (await look(storage_of(b.store))).findings.faults
    (fault,) = [one for one in found if one.digest == payload]
    assert {(one.tag, one.pull) for one in fault.touched} == {(cut, True), ("v1", False)}
