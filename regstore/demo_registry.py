"""A small, realistic registry in a folder, with what years leave behind: what `regstore demo` and examples work on.

Always the same bytes, so always the same digests:

    library/base      one layer that the others share
    team/app          1.0 and 1.1 for two platforms, a signature of 1.1, and `latest`, pushed three times
    team/worker       one tag, on the same base layer
    legacy/import     a link of zero bytes, as a full disk leaves it

and beside them a blob that no repository links, and an upload that was begun and never finished.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson

from regstore import layout
from regstore.digest import Digest
from regstore.manifest import OCI_CONFIG, OCI_EMPTY, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Platform
from regstore.registry import Registry, Repository
from regstore.seed.seeding import SEED_BODY
from regstore.storage.opening import OpenOptions, open_storage

#: How old everything is made to look: gc leaves alone what is younger than its grace.
AGE: Final = timedelta(days=30)
CORRUPT_REPOSITORY: Final = "legacy/import"
UPLOAD: Final = "5f0c1b62-7a3e-4d5f-9a11-3f6f0f4f7d2e"
_AMD64: Final = Platform("linux", "amd64")
_ARM64: Final = Platform("linux", "arm64", "v8")
_SIGNATURE_TYPE: Final = "application/vnd.dev.cosign.simplesigning.v1+json"


@dataclass(frozen=True, slots=True)
class _Pushed:
    digest: Digest
    size: int
    media_type: str
    platform: Platform | None = None

    def descriptor(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.platform is not None:
            names = ("os", "architecture", "variant")
            document["platform"] = {
                name: getattr(self.platform, name) for name in names if getattr(self.platform, name)
            }
        return document


async def build_demo_registry(folder: Path, *, now: datetime) -> None:
    """Fill the folder, which is made if it is missing. `now`: the time from which things are made to look old."""
    async with Registry(open_storage(folder, OpenOptions(create=True))) as registry:
        for key in layout.SEEDS:
            await registry.storage.put(layout.encode(key), SEED_BODY)
        base = await _image(registry.repository("library/base"), ["base"], _AMD64, tag="12")
        app, worker = registry.repository("team/app"), registry.repository("team/worker")
        for repository in (app, worker):
            await repository.blobs.mount(_layer_digest("base"), "library/base")
        for build in range(3):  # each push of `latest` leaves the one before without a tag
            await _image(app, ["base", "runtime", f"nightly-{build}"], _AMD64, tag="latest")
        for version in ("1.0", "1.1"):
            children = [
                await _image(app, ["base", "runtime", f"app-{version}-{platform.architecture}"], platform)
                for platform in (_AMD64, _ARM64)
            ]
            index = await _put(
                app,
                {
                    "schemaVersion": 2,
                    "mediaType": OCI_INDEX,
                    "manifests": [child.descriptor() for child in children],
                },
                tag=version,
            )
        await _sign(app, index)
        await _image(worker, ["base", "worker"], _AMD64, tag="stable")
        legacy = await _image(registry.repository(CORRUPT_REPOSITORY), ["legacy"], _AMD64, tag="2019")
        await _damage(registry, legacy, base)
        await _abandon_upload(registry, now - AGE)
    _make_old(folder, now - AGE)


async def _image(
    repository: Repository, layers: list[str], platform: Platform, *, tag: str | None = None
) -> _Pushed:
    pushed = [await repository.blobs.put(_layer(name)) for name in layers]
    config = orjson.dumps(
        {
            "created": "2024-03-01T12:00:00Z",
            "architecture": platform.architecture,
            "os": platform.os,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [str(blob.digest) for blob in pushed]},
        }
    )
    stored = await repository.blobs.put(config)
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": str(stored.digest), "size": stored.size},
        "layers": [{"mediaType": OCI_LAYER, "digest": str(blob.digest), "size": blob.size} for blob in pushed],
    }
    return await _put(repository, document, tag=tag, platform=platform)


async def _put(
    repository: Repository, document: dict[str, Any], *, tag: str | None = None, platform: Platform | None = None
) -> _Pushed:
    data = orjson.dumps(document)
    stored = await repository.manifests.put(data, tag=tag)
    return _Pushed(stored.digest, len(data), stored.media_type, platform)


async def _sign(repository: Repository, subject: _Pushed) -> None:
    """A signature names what it signs as its subject; registries without a referrers API get it by a tag."""
    payload = orjson.dumps({"critical": {"image": {"docker-manifest-digest": str(subject.digest)}}})
    empty, signature = await repository.blobs.put(b"{}"), await repository.blobs.put(payload)
    manifest = await _put(
        repository,
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": _SIGNATURE_TYPE,
            "config": {"mediaType": OCI_EMPTY, "digest": str(empty.digest), "size": empty.size},
            "layers": [{"mediaType": _SIGNATURE_TYPE, "digest": str(signature.digest), "size": signature.size}],
            "subject": subject.descriptor(),
        },
    )
    entry = manifest.descriptor() | {"artifactType": _SIGNATURE_TYPE}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    await _put(repository, index, tag=f"{subject.digest.algorithm}-{subject.digest.encoded}")


async def _damage(registry: Registry, legacy: _Pushed, base: _Pushed) -> None:
    """A link of zero bytes beside the good one, and a blob that nothing links."""
    broken = layout.RevisionLinkKey(CORRUPT_REPOSITORY, base.digest)
    assert legacy.digest != base.digest
    await registry.storage.put(layout.encode(broken), b"")
    orphan = _bytes("orphan", 1_500_000)
    await registry.storage.put(layout.encode(layout.BlobKey(Digest.of(orphan))), orphan)


async def _abandon_upload(registry: Registry, began: datetime) -> None:
    parts = {
        "startedat": began.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode(),
        "data": _bytes("upload", 700_000),
    }
    for part, data in parts.items():
        await registry.storage.put(layout.encode(layout.UploadKey("team/worker", UPLOAD, part)), data)


def _make_old(folder: Path, time: datetime) -> None:
    for directory, _, files in os.walk(folder, topdown=False):
        for name in [*files, ""]:
            os.utime(Path(directory) / name, (time.timestamp(), time.timestamp()))


def _layer(name: str) -> bytes:
    return _bytes(name, 900_000 if name == "base" else 60_000 + 7_919 * (sum(name.encode()) % 29))


def _layer_digest(name: str) -> Digest:
    return Digest.of(_layer(name))


def _bytes(name: str, size: int) -> bytes:
    """Bytes that do not compress, the same for each name."""
    return random.Random(name).randbytes(size)
