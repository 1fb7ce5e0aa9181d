"""Manifests and blobs of every kind that registries hold, made in memory, the same in every run.

Everything starts from a seed: equal arguments give equal bytes. Layers are real gzipped tar archives, so every
client takes them as they are.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"
OCI_ARTIFACT: Final = "application/vnd.oci.artifact.manifest.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_SCHEMA1: Final = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED: Final = "application/vnd.docker.distribution.manifest.v1+prettyjws"
BUILDKIT_CACHE_CONFIG: Final = "application/vnd.buildkit.cacheconfig.v0"

_ROOT: Final = "docker/registry/v2"
_CREATED: Final = "2024-01-02T03:04:05Z"


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Blob:
    """Bytes that a manifest names: a layer or a config."""

    data: bytes = field(repr=False)
    media_type: str
    #: Of a layer: the digest of the archive before compression.
    diff_id: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def digest(self) -> str:
        return sha256(self.data)

    def descriptor(self, **more: Any) -> dict[str, Any]:
        return _descriptor(self.media_type, self.data, dict(self.annotations), more)


@dataclass(frozen=True)
class Document:
    """A manifest's bytes, with all that must be stored before it.

    blobs: config, layers, blobs. children: the manifests that it lists. A `subject` is in neither.
    """

    data: bytes = field(repr=False)
    media_type: str
    blobs: tuple[Blob, ...] = field(default=(), repr=False)
    children: tuple[Document, ...] = field(default=(), repr=False)

    @property
    def digest(self) -> str:
        return sha256(self.data)

    @property
    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.data)
        return document

    def descriptor(self, **more: Any) -> dict[str, Any]:
        return _descriptor(self.media_type, self.data, {}, more)

    def documents(self) -> Iterator[Document]:
        """Itself and the manifests below, children first: the order of a push."""
        for child in self.children:
            yield from child.documents()
        yield self

    def closure(self) -> dict[str, bytes]:
        """All that a complete pull fetches: digest to bytes."""
        contents = {}
        for document in self.documents():
            contents[document.digest] = document.data
            contents |= {blob.digest: blob.data for blob in document.blobs}
        return contents


# -- blobs


@cache
def layer(seed: object, size: int = 2048, *, docker: bool = False) -> Blob:
    """A gzipped tar archive with one file of `size` bytes that do not compress."""
    content = random.Random(f"layer {seed}").randbytes(size)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        member = tarfile.TarInfo(f"layer-{seed}.bin".replace("/", "-")[:90])
        member.size = size
        tar.addfile(member, io.BytesIO(content))
    plain = archive.getvalue()
    media_type = DOCKER_LAYER if docker else OCI_LAYER
    return Blob(gzip.compress(plain, 1, mtime=0), media_type, sha256(plain))


def layers(seed: object, count: int, size: int = 2048, *, docker: bool = False) -> list[Blob]:
    return [layer(f"{seed}.{number}", size, docker=docker) for number in range(count)]


def blob(seed: object, size: int = 512, media_type: str = "application/octet-stream") -> Blob:
    """Bytes of no meaning."""
    return Blob(random.Random(f"blob {seed}").randbytes(size), media_type)


def config(
    seed: object, of: Sequence[Blob], *, architecture: str = "amd64", docker: bool = False, created: str = _CREATED
) -> Blob:
    document = {
        "created": created,
        "architecture": architecture,
        "os": "linux",
        "config": {"Labels": {"seed": str(seed)}, "Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": [part.diff_id for part in of]},
        "history": [{"created": created, "created_by": f"layer {number}"} for number in range(len(of))],
    }
    return Blob(_json(document), DOCKER_CONFIG if docker else OCI_CONFIG)


EMPTY: Final = Blob(b"{}", OCI_EMPTY)


# -- manifests


def image(
    seed: object,
    parts: int | Sequence[Blob] = 2,
    *,
    size: int = 2048,
    architecture: str = "amd64",
    docker: bool = False,
    subject: Document | None = None,
    annotations: Mapping[str, str] | None = None,
    created: str = _CREATED,
) -> Document:
    """An image manifest (OCI, or docker schema2) over new layers, or over the given, shared ones."""
    stack = layers(seed, parts, size, docker=docker) if isinstance(parts, int) else list(parts)
    image_config = config(seed, stack, architecture=architecture, docker=docker, created=created)
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST if docker else OCI_MANIFEST,
        "config": image_config.descriptor(),
        "layers": [part.descriptor() for part in stack],
    }
    if subject is not None:
        document["subject"] = subject.descriptor()
    if annotations:
        document["annotations"] = dict(annotations)
    return Document(_json(document), document["mediaType"], (image_config, *stack))


def index(
    children: Sequence[Document], *, docker: bool = False, subject: Document | None = None, sparse: bool = False
) -> Document:
    """An index (OCI, or docker's list). sparse: its last child is named but not pushed with it."""
    entries = []
    for child in children:
        architecture = ""
        if child.blobs and child.blobs[0].media_type in (OCI_CONFIG, DOCKER_CONFIG):
            architecture = json.loads(child.blobs[0].data)["architecture"]
        platform = {"platform": {"os": "linux", "architecture": architecture}} if architecture else {}
        entries.append(child.descriptor(**platform))
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": DOCKER_LIST if docker else OCI_INDEX,
        "manifests": entries,
    }
    if subject is not None:
        document["subject"] = subject.descriptor()
    kept = children[:-1] if sparse else children
    return Document(_json(document), document["mediaType"], (), tuple(kept))


def multiarch(seed: object, architectures: Sequence[str] = ("amd64", "arm64"), *, docker: bool = False) -> Document:
    """An index of one image for each architecture; they share their first layer."""
    base = layer(f"{seed}.base", docker=docker)
    children = [
        image(f"{seed}.{name}", [base, layer(f"{seed}.{name}", docker=docker)], architecture=name, docker=docker)
        for name in architectures
    ]
    return index(children, docker=docker)


def referrer(
    subject: Document, seed: object = "sbom", *, artifact_type: str = "application/spdx+json", size: int = 600
) -> Document:
    """An OCI 1.1 artifact (a signature, an SBOM) that names its subject."""
    payload = blob(f"{seed} of {subject.digest}", size, artifact_type)
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": EMPTY.descriptor(),
        "layers": [payload.descriptor()],
        "subject": subject.descriptor(),
    }
    return Document(_json(document), OCI_MANIFEST, (EMPTY, payload))


def referrers_tag(subject: Document) -> str:
    """The tag of the OCI fallback index: `sha256-<hex>`."""
    return subject.digest.replace(":", "-")


def referrers_index(subject: Document, referrers: Sequence[Document]) -> tuple[str, Document]:
    """What clients keep where a registry has no referrers API: tag and index."""
    entries = [referrer.descriptor(artifactType=referrer.json.get("artifactType", "")) for referrer in referrers]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return referrers_tag(subject), Document(_json(document), OCI_INDEX, (), tuple(referrers))


def cosign(subject: Document, suffix: str = "sig") -> tuple[str, Document]:
    """cosign's older scheme: tag `sha256-<hex>.sig` (att, sbom) and an image without `subject`."""
    payload = Blob(
        _json({"critical": {"image": {"docker-manifest-digest": subject.digest}}, "kind": suffix}),
        "application/vnd.dev.cosign.simplesigning.v1+json",
        annotations={"dev.cosignproject.cosign/signature": "bm90IHNpZ25lZA=="},
    )
    stack = [Blob(payload.data, payload.media_type, payload.digest, payload.annotations)]
    return f"{referrers_tag(subject)}.{suffix}", image(f"cosign {suffix} {subject.digest}", stack)


def buildkit_cache(seed: object, parts: int | Sequence[Blob] = 3) -> Document:
    """BuildKit's registry cache: an index whose entries are layers, and a config among them."""
    stack = layers(f"cache {seed}", parts) if isinstance(parts, int) else list(parts)
    records = [{"layer": number, "digest": part.digest} for number, part in enumerate(stack)]
    cache_config = Blob(_json({"layers": records, "records": []}), BUILDKIT_CACHE_CONFIG)
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [*(part.descriptor() for part in stack), cache_config.descriptor()],
    }
    return Document(_json(document), OCI_INDEX, (*stack, cache_config))


def artifact(seed: object, subject: Document | None = None) -> Document:
    """An OCI artifact manifest: registries refuse it on PUT, but stores hold some."""
    payload = blob(f"artifact {seed}")
    document: dict[str, Any] = {
        "mediaType": OCI_ARTIFACT,
        "artifactType": "application/vnd.example",
        "blobs": [payload.descriptor()],
    }
    if subject is not None:
        document["subject"] = subject.descriptor()
    return Document(_json(document), OCI_ARTIFACT, (payload,))


def schema1(name: str, tag: str, seed: object, parts: int | Sequence[Blob] = 2) -> Document:
    """docker schema1 as a store holds it: the payload without signatures. To push one, let skopeo sign it."""
    stack = layers(f"schema1 {seed}", parts, docker=True) if isinstance(parts, int) else list(parts)
    history = []
    for number in reversed(range(len(stack))):
        compatibility = {"id": f"{number:064x}", "created": _CREATED, "architecture": "amd64", "os": "linux"}
        if number:
            compatibility["parent"] = f"{number - 1:064x}"
        history.append({"v1Compatibility": json.dumps(compatibility)})
    document = {
        "schemaVersion": 1,
        "name": name,
        "tag": tag,
        "architecture": "amd64",
        "fsLayers": [{"blobSum": part.digest} for part in reversed(stack)],
        "history": history,
    }
    return Document(json.dumps(document, indent=3).encode(), DOCKER_SCHEMA1, tuple(stack))


def with_foreign_layer(seed: object) -> Document:
    """A docker image whose first layer lies elsewhere and is not stored here."""
    foreign, own = layer(f"{seed}.foreign", docker=True), layer(f"{seed}.own", docker=True)
    image_config = config(seed, [foreign, own], docker=True)
    entry = foreign.descriptor() | {
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "urls": ["https://layers.example/foreign"],
    }
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": image_config.descriptor(),
        "layers": [entry, own.descriptor()],
    }
    return Document(_json(document), DOCKER_MANIFEST, (image_config, own))


# -- other places for them


def write_oci_layout(folder: Path, tagged: Mapping[str, Document]) -> Path:
    """An OCI image layout, for skopeo's `oci:folder:tag`."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    entries = []
    for tag, document in tagged.items():
        for digest, data in document.closure().items():
            (blobs / digest.partition(":")[2]).write_bytes(data)
        entries.append(document.descriptor(annotations={"org.opencontainers.image.ref.name": tag}))
    (folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    (folder / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": entries}))
    return folder


def registry_keys(repository: str, document: Document, tag: str = "") -> dict[str, bytes]:
    """What a registry has stored after a push: key (under the rootdirectory) to body, in push order.

    Written from the specification of the layout alone, so that it can check regstore's own codec.
    """
    base = f"{_ROOT}/repositories/{repository}"
    keys: dict[str, bytes] = {}
    for part in document.documents():
        for content in part.blobs:
            keys[blob_key(content.digest)] = content.data
            keys[f"{base}/_layers/{content.digest.replace(':', '/')}/link"] = content.digest.encode()
        keys[blob_key(part.digest)] = part.data
        keys[f"{base}/_manifests/revisions/{part.digest.replace(':', '/')}/link"] = part.digest.encode()
    if tag:
        path = document.digest.replace(":", "/")
        keys[f"{base}/_manifests/tags/{tag}/index/{path}/link"] = document.digest.encode()
        keys[f"{base}/_manifests/tags/{tag}/current/link"] = document.digest.encode()
    return keys


def blob_key(digest: str) -> str:
    algorithm, _, encoded = digest.partition(":")
    return f"{_ROOT}/blobs/{algorithm}/{encoded[:2]}/{encoded}/data"


def write_keys(folder: Path, keys: Mapping[str, bytes]) -> None:
    """Keys as files below a registry's root folder."""
    for key, body in keys.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)


def _descriptor(media_type: str, data: bytes, annotations: dict[str, str], more: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {"mediaType": media_type, "digest": sha256(data), "size": len(data)}
    if annotations:
        entry["annotations"] = annotations
    return entry | more


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
