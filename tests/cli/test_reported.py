"""--blobs-from on a bucket: what commands say, what they ask the server, and what they refuse."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from regstore.cli.run import run_async
from regstore.digest import Digest
from regstore.gc import GcOptions, GcRunOptions, open_run
from regstore.inventory.reported.report import BlobsFrom
from regstore.inventory.scan import ScanOptions
from regstore.layout import BLOBS, BlobKey, encode
from regstore.storage.s3 import S3Storage
from tests.cli.conftest import Run
from tests.inventory.reports import MadeReport, Row, make_report
from tests.model.builder import Builder
from tests.servers.memory_s3 import memory_s3
from tests.servers.s3 import S3Server

pytestmark = pytest.mark.long
SECOND = 1_000_000
GARBAGE = (b"nothing names this", b"nor this")


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with memory_s3() as server:
        yield server


class Bucket:
    """A registry below a root in a bucket, and reports of it in another."""

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.name, self.reports = server.create_bucket("registry"), server.create_bucket("reports")
        self.url = f"s3://{self.name}/root"
        b = Builder()
        self.layer = b.blob(b"a layer" * 100)
        self.image = b.image(b.blob(b"{}"), [self.layer])
        b.push("team/app", self.image, "latest")
        for content in GARBAGE:
            b.blob(content)

        async def write() -> None:
            async with self.open() as storage:
                await b.store.write_storage(storage)

        run_async(write())

    def open(self) -> S3Storage:
        return S3Storage(self.server.settings(self.name, "root"))

    def rows(self) -> list[Row]:
        now = int(time.time()) * SECOND
        return [Row(key=key, size=size, mtime=now) for key, size in self.server.keys(self.name).items()]

    def report(self, **more: Any) -> MadeReport:
        created = more.pop("created", int(time.time() - 1) * SECOND)
        return make_report(more.pop("rows", None) or self.rows(), created=created, bucket=self.name, **more)

    def deliver(self, report: MadeReport) -> str:
        """To the bucket of reports; its name for --blobs-from."""
        for key, data in report.objects.items():
            self.server.write(self.reports, key, data)
        return f"s3-inventory:s3://{self.reports}/{report.manifest}"

    def blobs(self) -> set[str]:
        return {key.removeprefix("root/") for key in self.server.keys(self.name, f"root/{BLOBS}")}


@pytest.fixture
def bucket(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return Bucket(server)


def key_of(content: bytes) -> str:
    return encode(BlobKey(Digest.of(content)))


def test_gc_shows_then_removes(run: Run, bucket: Bucket) -> None:
    place = bucket.deliver(bucket.report(files=2))
    time.sleep(1.1)  # the grace is none, and the server's clock has whole seconds
    words = ("gc", bucket.url, "--grace", "0s", "--blobs-from", place, "--unlinked-blobs")
    shown = run(*words, "--dry-run")
    assert (shown.code, shown.err) == (0, "")
    assert "blobs are those of the S3 Inventory report of " in shown.out and "(0 hours old)" in shown.out
    plan = run(*words, "--dry-run", "--json").plan
    assert plan["blobs"]["dead"] == len(GARBAGE) and plan["blobs"]["total"] == 5
    assert plan["blobs_from"]["where"] == place.removeprefix("s3-inventory:") and plan["blobs_from"]["blobs"] == 5
    assert run("gc", bucket.url, "--dry-run", "--json").plan["blobs_from"] is None
    done = run(*words, "--offline", "--yes", "--json").report
    assert done["blobs"] == len(GARBAGE)
    assert not bucket.blobs() & {key_of(content) for content in GARBAGE} and len(bucket.blobs()) == 3


def test_gc_takes_a_report_that_was_downloaded_also_where_the_store_is_full(
    run: Run, bucket: Bucket, tmp_path: Path
) -> None:
    """Then its lock and journal are kept elsewhere."""
    path = bucket.report(format="Parquet").write_folder(tmp_path)
    time.sleep(1.1)
    words = ("gc", bucket.url, "--grace", "0s", "--blobs-from", f"s3-inventory:{path}")
    assert run(*words, "--dry-run", "--json").plan["blobs"]["dead"] == len(GARBAGE)
    done = run(*words, "--offline", "--no-trash", "--state-dir", tmp_path / "state", "--yes", "--json")
    assert done.report["blobs"] == len(GARBAGE)


async def test_blobs_are_not_listed_but_asked_for_where_they_go(bucket: Bucket) -> None:
    bucket.deliver(made := bucket.report())
    time.sleep(1.1)
    plan = GcOptions(grace=0)
    spent = []
    for blobs_from in (None, BlobsFrom.parse(f"s3-inventory:s3://{bucket.reports}/{made.manifest}")):
        scanning = ScanOptions(cache_dir=None, blobs_from=blobs_from)
        async with bucket.open() as storage, open_run(storage, GcRunOptions(plan=plan, scan=scanning)) as run:
            assert run.summary.blobs.dead == len(GARBAGE)
            spent.append(storage.counters.requests)
    assert spent[1].pop("HeadObject") == len(GARBAGE)
    assert spent[0] == spent[1], "one LIST for the mark of a database, in the place of one for the blobs"


def test_why_asks_the_store(run: Run, bucket: Bucket) -> None:
    place = bucket.deliver(bucket.report())
    bucket.server.write(bucket.name, "root/" + key_of(b"came since"), b"came since")
    for content, stored in ((b"came since", True), (b"never came", False), (GARBAGE[0], True)):
        digest = str(Digest.of(content))
        said = run("gc", bucket.url, "--json", "--blobs-from", place, "--why", digest)
        assert [one["stored"] for one in said.json["why"]] == [stored]


def test_du_counts_what_came_since_where_anything_names_it(run: Run, bucket: Bucket) -> None:
    rows = [row for row in bucket.rows() if not row.key.endswith(key_of(b"a layer" * 100))]
    place = bucket.deliver(bucket.report(rows=rows))
    said = run("du", bucket.url, "--blobs-from", place)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("blobs are those of the S3 Inventory report of ")
    fresh, by_report = (
        run("du", bucket.url, "--json").json,
        run("du", bucket.url, "--json", "--blobs-from", place).json,
    )
    assert by_report.pop("blobs_from")["blobs"] == 4 and fresh.pop("blobs_from") is None
    assert by_report == fresh


def test_verify_says_as_of_when_and_repairs_by_no_report(run: Run, bucket: Bucket) -> None:
    place = bucket.deliver(bucket.report())
    said = run("verify", bucket.url, "--blobs-from", place)
    assert "(0 hours old): what was lost since then shows only where it was read" in said.out
    fresh, by_report = (
        run("verify", bucket.url, "--json", *words).json["found"] for words in ((), ("--blobs-from", place))
    )
    assert by_report.pop("blobs_from")["age_seconds"] >= 0 and fresh.pop("blobs_from") is None
    assert by_report.pop("read")["bytes"] == fresh.pop("read")["bytes"]  # times differ
    assert by_report == fresh
    run("verify", bucket.url, "--repair", "--blobs-from", place).failed(2, "a repair goes by what is there")


def test_migrate_takes_a_report_of_its_source(run: Run, bucket: Bucket, tmp_path: Path) -> None:
    place = bucket.deliver(bucket.report())
    words = ("migrate", bucket.url, tmp_path / "there", "--create", "--blobs-from", place)
    run(*words, "--all").failed(2, "--follow")
    assert not (tmp_path / "there").exists()
    assert "those of the S3 Inventory report" in run(*words, "--dry-run").out
    assert run(*words).code == 0
    assert (tmp_path / "there" / key_of(b"a layer" * 100)).read_bytes() == b"a layer" * 100


def test_what_is_refused_is_one_sentence(run: Run, bucket: Bucket, tmp_path: Path) -> None:
    good = bucket.report()
    missing = f"s3-inventory:s3://{bucket.reports}/none/manifest.json"
    run("gc", bucket.url, "--dry-run", "--blobs-from", missing).failed(2, "none/manifest.json is not there")
    folder = f"s3-inventory:{tmp_path / 'manifest.json'}"
    run("gc", bucket.url, "--dry-run", "--blobs-from", folder).failed(2, "manifest.json is not there")
    run("gc", bucket.url, "--dry-run", "--blobs-from", "s3://x/manifest.json").failed(2, "no S3 Inventory report")
    other = bucket.deliver(good.changed(lambda document: document.update(sourceBucket="other")))
    run("gc", bucket.url, "--dry-run", "--blobs-from", other).failed(2, "a report of the bucket other")
    run("gc", tmp_path, "--dry-run", "--blobs-from", other).failed(2, "is no bucket")
    short = bucket.deliver(good.with_data(0, b"x", told=False))
    run("gc", bucket.url, "--yes", "--blobs-from", short).failed(1, "has 1 bytes, not the")
    before = bucket.blobs()
    assert {key_of(content) for content in GARBAGE} <= before
    run("gc", bucket.url, "--dry-run", "--blobs-from-profile", "x").failed(2, "--blobs-from-profile")


def test_orc_without_pyarrow(run: Run, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    place = bucket.deliver(bucket.report(format="ORC"))
    assert run("gc", bucket.url, "--dry-run", "--blobs-from", place).code == 0
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    run("gc", bucket.url, "--dry-run", "--blobs-from", place).failed(2, "pip install 'regstore[orc]'")
