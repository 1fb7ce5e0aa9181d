"""migrate with a report of the source's blobs: its first pass goes by it, and nothing is left out for that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from regstore.digest import Digest
from regstore.errors import InputError
from regstore.layout import BLOBS, BlobKey, encode
from regstore.migrate import MigrateOptions, MigrateResult, migrate
from tests.inventory.reports import InBucket, make_report, rows_of
from tests.migrate.stores import SCANNING, contents, dangling
from tests.model.builder import Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore


def source() -> tuple[Builder, ModelStore]:
    """A registry, and as a report shows it: without what was pushed since."""
    b = Builder(NOW - 30 * DAY)
    b.push("a", b.image(b.blob(b"config"), [b.blob(b"layer"), b.blob(b"shared")]), "old")
    then = ModelStore(dict(b.store.objects))
    b.mtime = NOW - 2 * DAY
    b.push("a", b.index([b.image(b.blob(b"new config"), [b.blob(b"new layer"), b.blob(b"shared")])]), "new")
    return b, then


async def move(
    store: ModelStore, then: ModelStore | None, *, follow: bool = False, **options: object
) -> tuple[MigrateResult, ModelStorage, InBucket]:
    scanning = SCANNING
    if then is not None:
        scanning = replace(scanning, blobs_from=make_report(rows_of(then), created=NOW - 10 * DAY).blobs_from())
    there, here = ModelStorage(ModelStore(), now=NOW), InBucket(store, now=NOW)
    there.url = "target"
    chosen = MigrateOptions(concurrency=8, **options)  # type: ignore[arg-type]
    result = await migrate(here, there, chosen, follow=follow, scanning=scanning)
    found = await contents(there)
    assert dangling(found) == []
    return result, there, here


def blob(content: bytes) -> str:
    return encode(BlobKey(Digest.of(content)))


async def test_what_was_pushed_since_is_copied_in_one_pass() -> None:
    b, then = source()
    result, there, here = await move(b.store, then)
    assert await contents(there) == await contents(here)
    assert result.passes == 1 and not result.partial
    assert any("S3 Inventory report of " in note for note in result.notes)
    fresh, _, _ = await move(b.store, None)
    assert fresh.requests["list"] == result.requests["list"], "lockfiles in the place of blobs"


async def test_what_was_deleted_since_is_not_missed() -> None:
    b, then = source()
    old = next(key for key in then if "_manifests/revisions" in key).split("/")[-2]
    names = ("/old/", old, Digest.of(b"config").encoded, Digest.of(b"layer").encoded)
    for key in [key for key in b.store if any(name in key for name in names)]:
        del b.store.objects[key]
    result, there, here = await move(b.store, then)
    fresh, other, _ = await move(b.store, None)
    assert await contents(there) == await contents(other)
    assert (result.damaged, result.failed, result.skipped) == (fresh.damaged, fresh.failed, fresh.skipped)
    assert blob(b"new layer") in there.store and here is not None


@pytest.mark.parametrize("lost", [b"layer", b"shared"])
async def test_what_was_lost_since_is_named_by_a_pass_that_lists(lost: bytes) -> None:
    b, then = source()
    del b.store.objects[blob(lost)]
    result, there, _ = await move(b.store, then)
    fresh, other, _ = await move(b.store, None)
    assert result.passes == 2
    assert await contents(there) == await contents(other)
    for name in ("damaged", "incomplete", "failed", "skipped", "partial"):
        assert getattr(result, name) == getattr(fresh, name), name
    assert result.partial


async def test_all_needs_passes_that_list() -> None:
    b, then = source()
    b.blob(b"of a database, and newer than the report")
    with pytest.raises(InputError, match="--follow"):
        await move(b.store, then, all=True)
    result, there, here = await move(b.store, then, all=True, follow=True)
    assert await contents(there) == await contents(here)
    assert result.passes >= 2
    assert len([key for key in there.store if key.startswith(BLOBS)]) == len(
        [key for key in b.store if key.startswith(BLOBS)]
    )
