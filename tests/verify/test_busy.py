"""A registry that is pushed to while it is verified and repaired: a push is no damage, and no tag of it goes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from regstore.errors import Outage, StorageError, Unreachable
from regstore.storage.base import Page
from regstore.testing.faulty import FaultyStorage
from regstore.verify.fault import FaultKind
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore
from tests.servers import images
from tests.verify.stores import APP, DOCKER, SINGLE, link, look, mend, pristine, registry_of, storage_of

LAYER = images.blob_key(SINGLE.blobs[1].digest)
CURRENT = f"{APP}/_manifests/tags/single/current/link"
SINGLES = ("other:1", "team/app:next", "team/app:single")


class Busy(ModelStorage):
    """Each page of a listing shows what is there when it is asked for, as on S3. In each listing of team/app a push of
    a new image lands behind the page that shows the last of its layer links."""

    pushes = 0

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        last, pushed, more = start_after, False, True
        while more:
            keys = [key for key in self.store if key.startswith(prefix) and key > last]
            more = len(keys) > self.page
            infos = [self._info(key) for key in keys[: self.page]]
            yield Page(
                [info.key for info in infos],
                [info.size for info in infos],
                [info.etag for info in infos],
                [info.mtime for info in infos],
                not more,
            )
            last = infos[-1].key if infos else last
            if not pushed and f"{APP}/_layers/" < last < f"{APP}/_manifests/tags/":
                pushed = True
                self.push()

    def push(self) -> None:
        self.pushes += 1
        image = images.image(f"pushed {self.pushes}", 2)
        for key, body in images.registry_keys("team/app", image, f"v{self.pushes}").items():
            self.store.objects.setdefault(key, (body, NOW))


def busy(store: ModelStore) -> Busy:
    return Busy(store, now=NOW, page=7)


async def test_a_push_during_every_look_is_no_damage() -> None:
    storage = busy(pristine())
    report = await look(storage)
    assert storage.pushes >= 2, "not looked at twice"
    assert report.findings.counts == {}


async def test_true_damage_is_found_among_pushes() -> None:
    store = pristine()
    del store.objects[LAYER]
    store.objects[link("team/app", "_layers", SINGLE.blobs[0].digest)] = (b"", NOW)
    storage = busy(store)
    report = await look(storage)
    assert storage.pushes >= 2
    assert report.findings.counts == {FaultKind.BLOB_MISSING: 1, FaultKind.LINK_DAMAGED: 1}
    assert report.findings.tags_broken == len(SINGLES)


async def test_no_tag_of_a_push_is_dropped() -> None:
    store = pristine()
    del store.objects[LAYER]
    before = registry_of(store)
    storage = busy(store)
    _, repairs, _ = await mend(storage, drop_broken_tags=True, grace=0)
    assert storage.pushes >= 3
    assert repairs.dropped == SINGLES
    assert not repairs.spared
    for number in range(1, storage.pushes + 1):
        assert f"{APP}/_manifests/tags/v{number}/current/link" in store
    gone = before.keys() - registry_of(store).keys()
    assert all("/tags/single/" in key or "/tags/next/" in key or "other/_manifests/tags/1/" in key for key in gone)


@pytest.mark.parametrize("healed", ["blob", "layer link", "revision link", "damaged blob", "tag"])
async def test_what_was_put_right_since_it_was_seen_is_not_dropped(healed: str) -> None:
    """The push that heals it lands after the last look, before the tags go."""
    store = pristine()
    key = {
        "layer link": link("team/app", "_layers", SINGLE.blobs[1].digest),
        "revision link": link("team/app", "_manifests/revisions", SINGLE.digest),
    }.get(healed, LAYER)
    right = store.objects[key]
    if healed == "damaged blob":
        store.objects[key] = (b"rotten", right[1])
    else:
        del store.objects[key]

    def before(operation: str, text: str) -> None:
        if operation == "list" and "/_manifests/tags/" in text:
            if healed == "tag":  # it names another image since
                store.objects[CURRENT] = (DOCKER.digest.encode(), store.objects[CURRENT][1])
            else:
                store.objects[key] = right

    _, repairs, _ = await mend(FaultyStorage(storage_of(store), before=before), drop_broken_tags=True)
    assert "team/app:single" not in repairs.dropped
    assert CURRENT in store


async def test_a_tag_that_is_set_anew_while_the_journal_is_written_stays() -> None:
    store = pristine()
    del store.objects[LAYER]

    def before(operation: str, text: str) -> None:
        if operation == "put" and text.endswith("000001.jsonl.gz"):
            for name in (
                "team/app/_manifests/tags/single",
                "team/app/_manifests/tags/next",
                "other/_manifests/tags/1",
            ):
                key = f"docker/registry/v2/repositories/{name}/current/link"
                store.objects[key] = (store.objects[key][0], NOW)

    _, repairs, _ = await mend(FaultyStorage(storage_of(store), before=before), drop_broken_tags=True)
    assert repairs.dropped == ()
    assert len(repairs.spared) == len(SINGLES)


async def test_young_tags_are_spared() -> None:
    store = pristine()
    del store.objects[LAYER]
    store.objects[CURRENT] = (store.objects[CURRENT][0], NOW - 1_000_000)
    before = dict(store.objects)
    _, repairs, left = await mend(storage_of(store), drop_broken_tags=True)
    assert repairs.dropped == ("other:1", "team/app:next")
    assert [line.partition(": ")[0] for line in repairs.spared] == ["team/app:single"]
    assert left.findings.damage == 1
    assert before[CURRENT] == store.objects[CURRENT]


async def test_what_can_not_be_read_is_neither_repaired_nor_dropped() -> None:
    store = pristine()

    def before(operation: str, text: str) -> None:
        if (operation, text) == ("open_read", LAYER):
            raise StorageError("InternalError: please try again")

    storage = FaultyStorage(storage_of(store), before=before)
    whole = registry_of(store)
    found, repairs, left = await mend(storage, storage_of(pristine()), drop_broken_tags=True, grace=0)
    for report in (found, left):
        assert report.findings.counts == {FaultKind.BLOB_UNREADABLE: 1}
        assert (report.findings.damage, report.findings.unproven) == (1, 0)
    assert repairs.nothing
    assert registry_of(store) == whole


async def test_a_damaged_blob_that_can_not_be_read_again_drops_nothing() -> None:
    store = pristine()
    store.objects[LAYER] = (b"rotten", NOW - DAY)
    readings = 0

    def before(operation: str, text: str) -> None:
        nonlocal readings
        readings += (operation, text) == ("open_read", LAYER)
        if (operation, text) == ("open_read", LAYER) and readings > 2:
            raise StorageError("input/output error")

    _, repairs, _ = await mend(FaultyStorage(storage_of(store), before=before), drop_broken_tags=True)
    assert repairs.dropped == ()
    assert all("can't be looked at" in line for line in repairs.spared)
    assert len(repairs.spared) == len(SINGLES)


async def test_an_outage_ends_the_run() -> None:
    def before(operation: str, text: str) -> None:
        if operation == "open_read":
            raise Unreachable("no answer")

    with pytest.raises(Outage):
        await look(FaultyStorage(storage_of(pristine()), before=before), "all")


async def test_other_bytes_each_time_are_no_damage() -> None:
    store, number = pristine(), 0
    size = len(store.objects[LAYER][0])

    def before(operation: str, text: str) -> None:
        nonlocal number
        if (operation, text) == ("open_read", LAYER):
            number += 1
            store.objects[LAYER] = (b"%d" % number * size, store.objects[LAYER][1])

    report = await look(FaultyStorage(storage_of(store), before=before), "all")
    assert report.findings.counts == {FaultKind.BLOB_UNREADABLE: 1}
    assert "each time" in report.findings.faults[0].detail
