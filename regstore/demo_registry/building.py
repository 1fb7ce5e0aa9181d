"""The demo's registry, pushed into a folder as its docstring says, with the damage, and made to look old."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson

from regstore import layout
from regstore.demo_registry import images
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
            document["platform"] = images.platform_fields(self.platform)
        return document


async def build_demo_registry(folder: Path, *, now: datetime) -> None:
    """Fill the folder, which is made if it is missing. `now`: the time from which things are made to look old."""
    async with Registry(open_storage(folder, OpenOptions(create=True))) as registry:
        for key in layout.SEEDS:
            await registry.storage.put(layout.encode(key), SEED_BODY)
        base = await _image(registry.repository("library/base"), images.base_image(_AMD64), tag="12")
        app, worker = registry.repository("team/app"), registry.repository("team/worker")
        for repository in (app, worker):
            await repository.blobs.mount(images.base().digest, "library/base")
        for build in range(3):  # each push of `latest` leaves the one before without a tag
            nightly = images.program_image(
                "app", f"nightly-{build}", _AMD64, created=f"2024-03-0{build + 1}", runtime=True
            )
            await _image(app, nightly, tag="latest")
        for version, created in (("1.0", "2024-01-15"), ("1.1", "2024-02-20")):
            children = [
                await _image(app, images.program_image("app", version, platform, created=created, runtime=True))
                for platform in (_AMD64, _ARM64)
            ]
            index = await _put(
                app,
                {
                    "schemaVersion": 2,
                    "mediaType": OCI_INDEX,
                    "manifests": [child.descriptor() for child in children],
                    "annotations": {"org.opencontainers.image.version": version},
                },
                tag=version,
            )
        await _sign(app, index)
        await _image(worker, images.program_image("worker", "2.4", _AMD64, created="2024-02-01"), tag="stable")
        legacy = await _image(registry.repository(CORRUPT_REPOSITORY), images.legacy_image(_AMD64), tag="2019")
        await _damage(registry, legacy, base)
        await _abandon_upload(registry, now - AGE)
    _make_old(folder, now - AGE)


async def _image(repository: Repository, image: images.DemoImage, *, tag: str | None = None) -> _Pushed:
    pushed = [await repository.blobs.put(layer.data) for layer in image.layers]
    stored = await repository.blobs.put(image.config())
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": str(stored.digest), "size": stored.size},
        "layers": [{"mediaType": OCI_LAYER, "digest": str(blob.digest), "size": blob.size} for blob in pushed],
    }
    return await _put(repository, document, tag=tag, platform=image.platform)


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
    orphan = images.noise("orphan", 1_500_000)
    await registry.storage.put(layout.blob_key(Digest.of(orphan)), orphan)


async def _abandon_upload(registry: Registry, began: datetime) -> None:
    parts = {
        "startedat": began.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode(),
        "data": images.noise("upload", 700_000),
    }
    for part, data in parts.items():
        await registry.storage.put(layout.encode(layout.UploadKey("team/worker", UPLOAD, part)), data)


def _make_old(folder: Path, time: datetime) -> None:
    for directory, _, files in os.walk(folder, topdown=False):
        for name in [*files, ""]:
            os.utime(Path(directory) / name, (time.timestamp(), time.timestamp()))
