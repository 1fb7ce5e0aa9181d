"""A report in place of the listing of blobs: what is read from it, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from regstore.digest import Digest
from regstore.errors import InputError, IntegrityError, RegstoreError
from regstore.inventory.inventory import Inventory
from regstore.inventory.reported.report import BlobsFrom
from regstore.inventory.scan import ScanOptions, scan
from regstore.layout import DATABASE_IN_USE, BlobKey, encode
from tests.inventory.reports import FORMATS, InBucket, MadeReport, Row, make_report, rows_of
from tests.model.builder import Builder
from tests.model.random_registry import DAY, HOUR, NOW
from tests.model.store import ModelStore

formats = pytest.mark.parametrize("format", FORMATS)
CREATED = NOW - DAY


def registry() -> ModelStore:
    b = Builder(NOW - 30 * DAY)
    for name in ("a", "b/c"):
        b.push(name, b.image(b.blob(b"{}"), [b.blob(name.encode()), b.blob(b"shared")]), "latest")
    b.blob(b"nothing names this")
    return b.store


def storage(store: ModelStore, root: str = "") -> InBucket:
    made = InBucket(store, now=NOW)
    made.rootdirectory = root
    return made


def options(made: MadeReport, **more: Any) -> ScanOptions:
    return ScanOptions(cache_dir=None, concurrency=4, blobs_from=made.blobs_from(), **more)


def blobs(inventory: Inventory) -> list[tuple[bytes, int, int]]:
    return sorted((bytes(digest), size, mtime) for digest, size, mtime in inventory.all("from blob"))


async def listed(store: ModelStore) -> list[tuple[bytes, int, int]]:
    async with scan(storage(store), ScanOptions(cache_dir=None)) as inventory:
        return blobs(inventory)


@formats
async def test_blobs_are_those_of_a_listing(format: str) -> None:
    store = registry()
    store.objects["docker/registry/v2/blobs/odd"] = b"x", NOW - DAY
    store.objects["other/file with + and %"] = b"x", NOW
    made = make_report(rows_of(store), created=CREATED, format=format, files=3)
    bucket = storage(store)
    async with scan(bucket, options(made)) as inventory:
        assert blobs(inventory) == await listed(store)
        assert inventory.reported is not None and inventory.reported.created == CREATED
        assert inventory.reported.blobs == len(blobs(inventory))
        assert [key for (key,) in inventory.all("select key from unknown")] == ["docker/registry/v2/blobs/odd"]
        assert inventory.count("manifest") == 2 and inventory.count("tag") == 2
    assert bucket.counters.requests == {"list": 2, "get": 2, "list_multipart_uploads": 1}, "lockfiles, repositories"


@formats
async def test_of_versions_the_latest_counts_and_no_delete_marker(format: str) -> None:
    store = registry()
    rows = rows_of(store)
    gone = encode(BlobKey(Builder().blob(b"gone")))
    again = encode(BlobKey(Builder().blob(b"shared")))
    rows += [
        Row(key=gone, size=4, mtime=NOW - 20 * DAY, latest=False),
        Row(key=gone, size=None, mtime=NOW - 10 * DAY, marker=True),
        Row(key=again, size=99, mtime=NOW - 40 * DAY, latest=False),
        Row(key=again, size=None, mtime=NOW - 35 * DAY, latest=False, marker=True),
    ]
    made = make_report(rows, created=CREATED, format=format, versions=True)
    async with scan(storage(store), options(made)) as inventory:
        assert blobs(inventory) == await listed(store)


async def test_a_key_that_stands_twice_is_one_blob() -> None:
    store = registry()
    rows = rows_of(store)
    made = make_report([*rows, *rows], created=CREATED, files=2)
    async with scan(storage(store), options(made)) as inventory:
        assert blobs(inventory) == await listed(store)


@formats
async def test_below_a_root_directory_with_a_name_that_csv_encodes(format: str) -> None:
    store = registry()
    root = "team ä+%/reg"
    rows = [*rows_of(store, f"{root}/"), *rows_of(registry(), "other/")]
    made = make_report(rows, created=CREATED, format=format)
    async with scan(storage(store, root), options(made)) as inventory:
        assert blobs(inventory) == await listed(store)


async def test_what_is_archived_is_known() -> None:
    store = registry()
    rows = [
        Row(key=row.key, size=row.size, mtime=row.mtime, storage_class=name)
        for row, name in zip(rows_of(store), ("GLACIER", "GLACIER_IR") * 100, strict=False)
    ]
    made = make_report(rows, created=CREATED)
    wanted = {row.key for row in rows if row.storage_class == "GLACIER" and "/blobs/" in row.key}
    async with scan(storage(store), options(made)) as inventory:
        assert {key for (key,) in inventory.all("select key from archived_blob")} == wanted != set()


async def test_the_mark_of_a_database_is_looked_for() -> None:
    store = registry()
    made = make_report(rows_of(store), created=CREATED)
    store.objects[DATABASE_IN_USE] = b"", NOW
    async with scan(storage(store), options(made)) as inventory:
        assert DATABASE_IN_USE in inventory.database


@pytest.mark.parametrize("place", ["as synced", "beside", "by key alone"])
async def test_in_a_folder(tmp_path: Path, place: str) -> None:
    store = registry()
    made = make_report(rows_of(store), created=CREATED, files=2)
    path = made.write_folder(tmp_path / "a")
    if place == "beside":
        path = tmp_path / "manifest.json"
        for key, data in made.objects.items():
            (tmp_path / key.rpartition("/")[2]).write_bytes(data)
    elif place == "by key alone":
        path = tmp_path / "a" / "manifest.json"
        for key, data in made.objects.items():
            if "/manifest." in key:
                (tmp_path / "a" / key.rpartition("/")[2]).write_bytes(data)
    blobs_from = BlobsFrom.parse(f"s3-inventory:{path}")
    async with scan(storage(store), ScanOptions(cache_dir=None, blobs_from=blobs_from)) as inventory:
        assert blobs(inventory) == await listed(store)


@formats
async def test_what_was_proven_is_what_is_read(tmp_path: Path, format: str) -> None:
    """Where a folder's name is a pattern to DuckDB, and another folder's matches it."""
    store = registry()
    path = make_report(rows_of(store), created=CREATED, format=format).write_folder(tmp_path / "a[b]")
    other = [*rows_of(Builder(NOW).store), Row(key=encode(BlobKey(Digest.of(b"x"))), size=1, mtime=NOW)]
    for key, data in make_report(other, created=CREATED, format=format).objects.items():
        beside = tmp_path / "ab" / key
        beside.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(data)
    blobs_from = BlobsFrom.parse(f"s3-inventory:{path}")
    async with scan(storage(store), ScanOptions(cache_dir=None, blobs_from=blobs_from)) as inventory:
        assert blobs(inventory) == await listed(store)


# -- what is refused


def good() -> MadeReport:
    return make_report(rows_of(registry()), created=CREATED, files=2)


def _set(name: str, value: object) -> Any:
    return lambda made: made.changed(lambda document: document.__setitem__(name, value))


def _rows(change: Any) -> Any:
    """Other lines in the first file, of which the manifest knows."""

    def changed(made: MadeReport) -> MadeReport:
        lines = gzip.decompress(made.objects[made.data[0]]).decode().splitlines()
        return made.with_data(0, gzip.compress("\n".join(change(lines)).encode()))

    return changed


BAD = {
    "no manifest": (lambda made: made.without(made.manifest), "is not there"),
    "no checksum": (lambda made: made.without(made.manifest[:-4] + "checksum"), "manifest.checksum does not lie"),
    "a manifest that changed": (
        lambda made: MadeReport(
            manifest=made.manifest,
            objects={**made.objects, made.manifest: made.objects[made.manifest] + b" "},
        ),
        "has not the MD5",
    ),
    "no JSON": (
        lambda made: MadeReport(
            manifest=made.manifest,
            objects={
                **made.objects,
                made.manifest: b"nonsense",
                made.manifest[:-4] + "checksum": b"352a507c78da1dea6dd42a5867d3c2cc",
            },
        ),
        "no manifest of an S3 Inventory report",
    ),
    "another version": (_set("version", "2030-01-01"), "has version 2030-01-01"),
    "another bucket": (_set("sourceBucket", "elsewhere"), "is a report of the bucket elsewhere"),
    "another format": (_set("fileFormat", "Avro"), "of the format Avro"),
    "no files": (_set("files", []), "names no files"),
    "files of nothing": (_set("files", [{"key": "x"}]), "no manifest of an S3 Inventory report"),
    "no schema": (lambda made: made.changed(lambda document: document.pop("fileSchema")), "fileSchema"),
    "from the future": (_set("creationTimestamp", str((NOW + HOUR) // 1000)), "later than now"),
    "a missing file": (lambda made: made.without(made.data[1]), "is not whole: there is no"),
    "other bytes": (
        lambda made: made.with_data(1, bytes(len(made.objects[made.data[1]])), told=False),
        "has the MD5",
    ),
    "a short file": (lambda made: made.with_data(0, made.objects[made.data[0]][:-9], told=False), "bytes, not the"),
    "a file that ends early": (lambda made: made.with_data(0, made.objects[made.data[0]][:-30]), "can't be read"),
    "a row cut short": (_rows(lambda lines: [*lines[:-1], lines[-1][:40]]), "can't be read"),
    "a row with a column more": (_rows(lambda lines: [lines[0] + ',"x"', *lines[1:]]), "can't be read"),
    "a size that is none": (
        _rows(lambda lines: [line.replace('"2","', '"two","') for line in lines]),
        "can't be read",
    ),
    "a row without a size": (
        _rows(lambda lines: [line.replace('data","2"', 'data",""') for line in lines]),
        "no size",
    ),
    "another part of the bucket": (
        lambda made: make_report([row for row in rows_of(registry()) if "/blobs/" not in row.key], created=CREATED),
        "shows no blob",
    ),
    "nothing at all": (lambda made: make_report([], created=CREATED), "shows no blob"),
    "no time": (
        lambda made: make_report(rows_of(registry()), created=CREATED, without=["LastModifiedDate"]),
        "has no LastModifiedDate",
    ),
    "no size and no time": (
        lambda made: make_report(rows_of(registry()), created=CREATED, without=["LastModifiedDate", "Size"]),
        "add them to the fields",
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_report_that_is_not_whole_is_refused_and_never_taken_for_no_blobs(name: str) -> None:
    spoil, words = BAD[name]
    made = spoil(good())
    with pytest.raises((InputError, IntegrityError), match=words) as error:
        async with scan(storage(registry()), options(made)):
            raise AssertionError("it was scanned")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("format", ["Parquet", "ORC"])
async def test_nonsense_in_other_formats_is_refused(format: str) -> None:
    made = make_report(rows_of(registry()), created=CREATED, format=format).with_data(0, b"PAR1 nonsense ORC")
    with pytest.raises(IntegrityError, match="can't be read"):
        async with scan(storage(registry()), options(made)):
            pass


async def test_a_store_that_is_no_bucket_is_refused() -> None:
    from tests.model.memory import ModelStorage

    with pytest.raises(InputError, match="is no bucket"):
        async with scan(ModelStorage(registry(), now=NOW), options(good())):
            pass


@pytest.mark.parametrize(
    "text",
    [
        "s3://reports/manifest.json",
        "s3-inventory:",
        "s3-inventory:s3://reports/daily/",
        "s3-inventory:s3://manifest.json",
        "s3-inventory:https://reports/manifest.json",
        "s3-inventory:s3://key:secret@reports/a/manifest.json",
        "s3-inventory:/folder",
    ],
)
def test_words_that_name_no_report(text: str) -> None:
    with pytest.raises(RegstoreError) as error:
        BlobsFrom.parse(text)
    assert error.value.exit_code == 2 and "secret" not in str(error.value)
