"""A registry that real clients filled, on Ceph: damaged, verified, repaired, pulled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regstore.errors import EXIT_DAMAGE, EXIT_OK
from tests.servers import images, skopeo
from tests.servers.api import Api, pull_complete
from tests.servers.distribution import Registry
from tests.servers.s3 import S3Root, S3Server
from tests.verify.stores import link

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("with_skopeo")]

StartRegistry = Callable[..., Registry]
TAGS = {"multi": images.multiarch("m"), "single": images.image("s", 3), "doomed": images.image("doomed")}


def regstore(server: S3Server, *arguments: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        [sys.executable, "-m", "regstore", *arguments, "--json"],
        env=os.environ | server.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, json.loads(done.stdout)["result"] if done.stdout else {}, done.stderr


def test_damaged_verified_repaired_pulled(
    tmp_path: Path, ceph: S3Server, ceph_bucket: str, start_registry: StartRegistry
) -> None:
    place = S3Root(ceph, ceph_bucket, "/reg")
    store, copy = f"s3://{ceph_bucket}/reg", tmp_path / "copy"
    registry = start_registry(place)
    layout = images.write_oci_layout(tmp_path / "layout", TAGS)
    for tag in TAGS:
        skopeo.push(layout, tag, registry.host, "team/app")
    with Api(registry.host) as api:
        api.patch_upload(api.start_upload("team/app"), b"begun")
    registry.delete("team/app", TAGS["doomed"].digest)
    registry.stop()
    registry.garbage_collect()

    code, report, said = regstore(ceph, "verify", store, "--read-data", "all")
    assert (code, report["found"]["counts"]) == (EXIT_OK, {}), said
    assert report["found"]["absent"]["leftovers"] == len(TAGS["doomed"].blobs), (
        "2.x leaves the links of what it removed"
    )
    sound = {key: ceph.read(ceph_bucket, key) for key in ceph.keys(ceph_bucket, "reg/")}
    images.write_keys(copy, {key.removeprefix("reg/"): body for key, body in sound.items()})

    multi, single = TAGS["multi"], TAGS["single"]
    rotten, config, child = single.blobs[1].digest, multi.children[0].blobs[0].digest, multi.children[1].digest
    body = sound["reg/" + images.blob_key(rotten)]
    damage = {
        "reg/" + images.blob_key(rotten): bytes([body[0] ^ 1]) + body[1:],
        "reg/" + images.blob_key(child): sound["reg/" + images.blob_key(child)][:-1],
        "reg/" + link("team/app", "_layers", single.blobs[2].digest): b"",
        "reg/" + link("team/app", "_manifests/revisions", multi.digest): multi.digest.encode() + b"\n",
    }
    for key, data in damage.items():
        ceph.write(ceph_bucket, key, data)
    ceph.client().delete_object(Bucket=ceph_bucket, Key="reg/" + images.blob_key(config))

    code, report, said = regstore(ceph, "verify", store, "--read-data", "all")
    assert code == EXIT_DAMAGE, said
    found = {
        (fault["kind"], fault["digest"]): {f"{tag['repository']}:{tag['tag']}" for tag in fault["tags"]}
        for fault in report["found"]["faults"]
    }
    assert found == {
        ("blob damaged", rotten): {"team/app:single"},
        ("blob damaged", child): {"team/app:multi"},
        ("blob missing", config): {"team/app:multi"},
        ("link damaged", single.blobs[2].digest): {"team/app:single"},
        ("link damaged", multi.digest): {"team/app:multi"},
    }
    broken = start_registry(place)
    for tag in ("multi", "single"):
        with pytest.raises(skopeo.SkopeoError):
            skopeo.pull(broken.host, "team/app", tag)
    broken.stop()

    code, report, said = regstore(ceph, "verify", store, "--read-data", "all", "--repair-from", str(copy))
    assert (code, report["left"]["counts"]) == (EXIT_OK, {}), said
    assert len(report["repaired"]["blobs"]) == 3
    assert len(report["repaired"]["rewritten"]) == 2
    now = {key: ceph.read(ceph_bucket, key) for key in ceph.keys(ceph_bucket, "reg/docker/")}
    assert now == {key: body for key, body in sound.items() if key.startswith("reg/docker/")}
    kept = {key.partition("/damaged/")[2] for key in ceph.keys(ceph_bucket, "reg/regstore/trash/")}
    assert kept == {images.blob_key(rotten), images.blob_key(child)}

    mended = start_registry(place)
    for tag in ("multi", "single"):
        skopeo.pull(mended.host, "team/app", tag)
        assert set(pull_complete(mended.host, "team/app", tag)) == set(TAGS[tag].closure())
    code, report, said = regstore(ceph, "doctor", store, "--write-probe")
    assert code == EXIT_OK, said
    states = {check["name"]: check["outcome"] for check in report["checks"]}
    assert states["reachable"] == states["health 2.6"] == states["permission write"] == "ok"
    assert states["trash"] == "warn"


async def test_checksums_that_the_server_keeps(moto: S3Server, moto_bucket: str) -> None:
    """Reported as such; they count as proof only when asked."""
    from regstore.proving.read_data import Checksums, ReadData
    from regstore.storage.s3 import S3Storage
    from regstore.verify.fault import FaultKind
    from regstore.verify.options import VerifyOptions
    from regstore.verify.run import verify
    from tests.verify.stores import SINGLE

    rotten = images.blob_key(SINGLE.blobs[1].digest)
    for key, body in images.registry_keys("a", SINGLE, "1").items():
        more: dict[str, Any] = {}
        if key == images.blob_key(SINGLE.blobs[2].digest):
            more = {"ChecksumAlgorithm": "SHA256"}
        if key == rotten:
            body, more = b"!" + body[1:], {"ChecksumAlgorithm": "SHA256"}
        moto.client().put_object(Bucket=moto_bucket, Key=key, Body=body, **more)
    settings = moto.settings(moto_bucket)
    blobs = 1 + len(SINGLE.blobs) - 1
    async with S3Storage(settings) as storage:
        for checksums, read in ((Checksums.IGNORE, blobs), (Checksums.REPORT, blobs), (Checksums.TRUST, blobs - 1)):
            report = await verify(storage, VerifyOptions(read=ReadData.parse("all"), checksums=checksums))
            assert report.findings.counts == {FaultKind.BLOB_DAMAGED: 1}
            assert report.reading is not None
            assert report.reading.blobs == read
            kept = (
                report.reading.checksums_agree,
                report.reading.checksums_differ,
                report.reading.checksums_absent,
            )
            assert kept == ((0, 0, 0) if checksums is Checksums.IGNORE else (1, 1, 2))
