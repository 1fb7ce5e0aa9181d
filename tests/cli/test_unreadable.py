"""One object that a bucket does not give, or has archived: every command says which, and goes on with the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.servers import images
from tests.servers.fault_proxy import FaultProxy
from tests.servers.s3 import S3Server

BAD, GOOD = images.image("bad"), images.image("good")


@dataclass
class Bucket:
    url: str
    proxy: FaultProxy
    server: S3Server
    name: str

    def options(self) -> list[str]:
        return ["--endpoint-url", self.proxy.endpoint_url, "--region", self.server.region]

    def archive(self, key: str, storage_class: str) -> None:
        """As a lifecycle rule does it: moto restores nothing by itself, and answers as S3 does."""
        self.server.client().copy_object(
            Bucket=self.name,
            Key=key,
            CopySource={"Bucket": self.name, "Key": key},
            StorageClass=storage_class,
            MetadataDirective="COPY",
        )


@pytest.fixture
def bucket(moto: S3Server, moto_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name, value in moto.environment().items():
        monkeypatch.setenv(name, value)
    for name, image in {"bad": BAD, "good": GOOD}.items():
        for key, body in images.registry_keys(name, image, "latest").items():
            moto.client().put_object(Bucket=moto_bucket, Key=key, Body=body)
    with FaultProxy(moto.endpoint_url) as proxy:
        yield Bucket(f"s3://{moto_bucket}", proxy, moto, moto_bucket)


MANIFEST = images.blob_key(BAD.digest)
LAYER = images.blob_key(BAD.blobs[1].digest)


@pytest.mark.parametrize("trouble", ["403", "GLACIER", "Intelligent-Tiering"])
def test_one_manifest_that_is_not_given_stops_no_command(
    trouble: str, bucket: Bucket, run: Run, tmp_path: Path
) -> None:
    match trouble:
        case "403":
            bucket.proxy.answer(403, "AccessDenied", operation="GetObject", key=MANIFEST, times=None)
        case "GLACIER":
            bucket.archive(MANIFEST, "GLACIER")
        case "Intelligent-Tiering":
            bucket.proxy.answer(403, "InvalidObjectState", operation="GetObject", key=MANIFEST, times=None)
    store = [bucket.url, *bucket.options()]
    encoded = BAD.digest.partition(":")[2]

    assert run("ls", *store).code == 0
    assert run("ls", "--long", *store).code == 0
    for command in ("du", "tags"):
        said = run(command, *store, *(["bad"] if command == "tags" else []))
        assert said.code in (0, 3), said
        assert encoded in said.out + said.err

    said = run("verify", *store, "--json")
    assert said.code == 6, said
    assert said.json["found"]["archived"] == (trouble != "403")
    (fault,) = said.json["found"]["faults"]
    assert fault["digest"] == BAD.digest
    assert [tag["repository"] for tag in fault["tags"]] == ["bad"]

    said = run("gc", *store, "--dry-run", "--grace", "0s")
    assert said.code == 3, said
    assert "bad" in said.out + said.err and encoded in said.out + said.err

    said = run("backup", "create", "--create", bucket.url, str(tmp_path / "backup"), *bucket.options(), "--json")
    assert said.code == 3, said
    assert [one["repository"] for one in said.json["snapshot"]["left_out"]] == ["bad"]

    said = run(
        "migrate",
        bucket.url,
        str(tmp_path / "moved"),
        "--create",
        "--endpoint-url",
        bucket.proxy.endpoint_url,
    )
    assert said.code == 3, said
    assert encoded in said.out + said.err
    assert run("verify", str(tmp_path / "moved")).code == 0
    assert run("inspect", str(tmp_path / "moved"), "good:latest").code == 0


@pytest.mark.parametrize("storage_class", ["GLACIER", pytest.param("DEEP_ARCHIVE", marks=pytest.mark.slow)])
def test_an_archived_layer_makes_its_tags_unpullable(
    storage_class: str, bucket: Bucket, run: Run, tmp_path: Path
) -> None:
    bucket.archive(LAYER, storage_class)
    store = [bucket.url, *bucket.options()]
    for extra in ((), ("--read-data", "all")):
        said = run("verify", *store, *extra, "--json")
        assert said.code == 6, said
        (fault,) = said.json["found"]["faults"]
        assert (fault["kind"], fault["digest"]) == ("archived", BAD.blobs[1].digest)
        assert storage_class in fault["detail"]
        assert fault["tags"] == [{"repository": "bad", "tag": "latest", "broken": True}]
    said = run("doctor", *store)
    assert "archived" in said.out and storage_class in said.out and "bad:latest" in said.out
    said = run("backup", "create", "--create", bucket.url, str(tmp_path / "backup"), *bucket.options(), "--json")
    assert said.code == 3, said
    assert [(one["repository"], one["tag"]) for one in said.json["snapshot"]["left_out"]] == [("bad", "latest")]
    said = run(
        "migrate",
        bucket.url,
        str(tmp_path / "moved"),
        "--create",
        "--endpoint-url",
        bucket.proxy.endpoint_url,
    )
    assert said.code == 3, said
    assert "archived" in said.out + said.err
    # It is dead, then: nothing copies it, so it stays, and is named; without trash it goes.
    for key in (
        images.registry_keys("bad", BAD, "latest").keys() - images.registry_keys("good", GOOD, "latest").keys()
    ):
        if "/repositories/" in key:
            bucket.server.client().delete_object(Bucket=bucket.name, Key=key)
    gc = ["gc", *store, "--grace", "0s", "--offline", "--yes", "--max-delete", "100%"]
    said = run(*gc)
    assert said.code == 3, said
    assert "archived" in said.out + said.err
    assert LAYER in bucket.server.keys(bucket.name)
    assert run(*gc, "--no-trash").code == 0
    assert LAYER not in bucket.server.keys(bucket.name)


def test_a_copy_that_was_restored_for_a_while_can_be_read(bucket: Bucket, run: Run, tmp_path: Path) -> None:
    """LIST says GLACIER still; reading decides."""
    bucket.archive(LAYER, "GLACIER")
    bucket.server.client().restore_object(Bucket=bucket.name, Key=LAYER, RestoreRequest={"Days": 1})
    said = run("verify", bucket.url, *bucket.options())
    assert said.code == 0, said
    said = run("backup", "create", "--create", bucket.url, str(tmp_path / "backup"), *bucket.options())
    assert said.code == 0, said


def test_glacier_instant_retrieval_is_read_at_once(bucket: Bucket, run: Run) -> None:
    bucket.archive(LAYER, "GLACIER_IR")
    assert run("verify", bucket.url, *bucket.options()).code == 0


def test_a_bucket_that_lists_and_gives_nothing_is_an_outage(bucket: Bucket, run: Run, tmp_path: Path) -> None:
    bucket.proxy.answer(403, "AccessDenied", operation="GetObject", key="/blobs/", times=None)
    for command in (
        ["verify", bucket.url],
        ["gc", bucket.url, "--dry-run"],
        ["backup", "create", "--create", bucket.url, str(tmp_path / "backup")],
    ):
        run(*command, *bucket.options()).failed(1, "others", "permissions")
