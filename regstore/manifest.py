"""Manifests: from bytes to typed references, without guessing.

What is parsed, and which references keep a blob alive:

    docker schema1 (signed or not)   fsLayers[].blobSum
    docker schema2, OCI image        config, layers[]
    docker list, OCI index           manifests[] (which may list layers: BuildKit's cache)
    OCI artifact manifest            blobs[]

A `subject` is the reverse edge: it keeps nothing alive, it makes this manifest a referrer of another.
A document that more than one reader could understand differently is refused with InvalidManifest
(CVE-2021-41190): two shapes at once, a shape that its media type contradicts, a field name that differs from
a known one only in case (Go's decoder, which registries use, would take it), or a known field that stands twice in one
object (RFC 8259, section 4: some readers keep the first, others the last).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from regstore.digest import Digest
from regstore.errors import InvalidDigest, InvalidManifest

#: Change it when the same bytes would give other edges: cached edges carry it.
PARSER_VERSION: Final = 3
#: Distribution refuses larger payloads on PUT at 4 MiB; what is larger than this is not read as a manifest.
MAX_SIZE: Final = 32 * 1024 * 1024

DOCKER_SCHEMA1: Final = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED: Final = "application/vnd.docker.distribution.manifest.v1+prettyjws"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_ARTIFACT: Final = "application/vnd.oci.artifact.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"
#: Also seen on ORAS artifacts before OCI 1.1.
ORAS_ARTIFACT: Final = "application/vnd.cncf.oras.artifact.manifest.v1+json"

_IMAGE_TYPES: Final = frozenset({DOCKER_MANIFEST, OCI_MANIFEST})
_INDEX_TYPES: Final = frozenset({DOCKER_LIST, OCI_INDEX})
_SCHEMA1_TYPES: Final = frozenset({DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED, "application/json"})
_ARTIFACT_TYPES: Final = frozenset({OCI_ARTIFACT, ORAS_ARTIFACT})
MANIFEST_MEDIA_TYPES: Final = (
    _IMAGE_TYPES | _INDEX_TYPES | _ARTIFACT_TYPES | {DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED}
)


class EdgeKind(IntEnum):
    """Why a manifest names a digest. The numbers are stored: never reuse one."""

    CONFIG = 1
    LAYER = 2
    FOREIGN_LAYER = 3  # usually not stored: its absence is normal
    MANIFEST = 4  # an index's entry whose media type is a manifest's, or is absent
    ENTRY = 5  # an index's entry of any other media type: a layer, as in BuildKit's cache
    BLOB = 6  # of an artifact manifest
    SUBJECT = 7  # the reverse edge


#: The kinds that keep what they name.
STRONG: Final = frozenset(EdgeKind) - {EdgeKind.SUBJECT}


@dataclass(frozen=True, slots=True)
class Platform:
    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """size is in bytes, -1 where the document does not say (schema1)."""

    digest: Digest
    media_type: str = ""
    size: int = -1
    foreign: bool = False
    platform: Platform | None = None
    artifact_type: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    kind: EdgeKind
    target: Descriptor


@dataclass(frozen=True, slots=True)
class Manifest:
    """media_type is the document's own, or what its shape says where it has none."""

    media_type: str
    edges: tuple[Edge, ...]
    subject: Descriptor | None = None
    artifact_type: str = ""

    @property
    def is_index(self) -> bool:
        return self.media_type in _INDEX_TYPES

    @property
    def is_schema1(self) -> bool:
        return self.media_type in _SCHEMA1_TYPES

    @property
    def config(self) -> Descriptor | None:
        return next((edge.target for edge in self.edges if edge.kind is EdgeKind.CONFIG), None)

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        kinds = (EdgeKind.LAYER, EdgeKind.FOREIGN_LAYER)
        return tuple(edge.target for edge in self.edges if edge.kind in kinds)

    @property
    def manifests(self) -> tuple[Descriptor, ...]:
        kinds = (EdgeKind.MANIFEST, EdgeKind.ENTRY)
        return tuple(edge.target for edge in self.edges if edge.kind in kinds)


_TOP: Final = frozenset(
    {"schemaVersion", "mediaType", "config", "layers", "fsLayers", "manifests", "blobs", "subject"}
)
_DESCRIPTOR: Final = frozenset({"mediaType", "digest", "size", "urls"})
_FOLDED: Final = {name.casefold() for name in _TOP | _DESCRIPTOR | {"blobSum"}}
_SHAPES: Final = ("manifests", "config", "layers", "fsLayers", "blobs")


def parse_manifest(data: bytes) -> Manifest:
    """The references of a manifest. InvalidManifest says in one sentence what is wrong with it."""
    import orjson

    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidManifest(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidManifest(f"a JSON {type(document).__name__}, not an object")
    _refuse_duplicates(data, document)
    _refuse_case_variants(document, _TOP)
    if "config" in document and document["config"] is None:
        # Written twice, Go's decoder would keep the first; ours would see the null.
        raise InvalidManifest("ambiguous: its config is null")
    present = {name for name in _SHAPES if document.get(name) is not None}
    media_type = document.get("mediaType") or ""
    if not isinstance(media_type, str):
        raise InvalidManifest("mediaType is not text")
    shape = _shape(present, media_type, document)
    subject = document.get("subject")
    edges = _READERS[shape](document)
    subject_descriptor = None
    if subject is not None:
        subject_descriptor = _descriptor(subject, "subject")
        edges.append(Edge(EdgeKind.SUBJECT, subject_descriptor))
    artifact_type = document.get("artifactType")
    if shape == "schema1" and media_type not in _SCHEMA1_TYPES:
        media_type = DOCKER_SCHEMA1_SIGNED if "signatures" in document else DOCKER_SCHEMA1
    return Manifest(
        media_type or {"index": OCI_INDEX, "image": OCI_MANIFEST, "artifact": OCI_ARTIFACT}[shape],
        tuple(edges),
        subject_descriptor,
        artifact_type if isinstance(artifact_type, str) else "",
    )


def _shape(present: set[str], media_type: str, document: Mapping[str, Any]) -> str:
    shapes = set()
    if "manifests" in present:
        shapes.add("index")
    if present & {"config", "layers"}:
        shapes.add("image")
    if "fsLayers" in present:
        shapes.add("schema1")
    if "blobs" in present:
        shapes.add("artifact")
    if len(shapes) > 1:
        raise InvalidManifest(f"ambiguous: it has {', '.join(sorted(present))} together")
    declared = _declared_shape(media_type)
    if not shapes:
        if declared in ("index", "artifact"):
            return declared  # an index or an artifact may be empty
        raise InvalidManifest("it has no manifests, config, layers, fsLayers or blobs")
    shape = str(shapes.pop())
    if declared is not None and declared != shape:
        raise InvalidManifest(f"ambiguous: its media type {media_type} is not that of a document with {present}")
    return shape


def _declared_shape(media_type: str) -> str | None:
    if media_type in _INDEX_TYPES:
        return "index"
    if media_type in _IMAGE_TYPES:
        return "image"
    if media_type in _ARTIFACT_TYPES:
        return "artifact"
    return "schema1" if media_type in (DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED) else None


def _read_index(document: Mapping[str, Any]) -> list[Edge]:
    edges = []
    for position, entry in enumerate(_list(document, "manifests")):
        target = _descriptor(entry, f"manifests[{position}]")
        is_manifest = not target.media_type or target.media_type in MANIFEST_MEDIA_TYPES
        edges.append(Edge(EdgeKind.MANIFEST if is_manifest else EdgeKind.ENTRY, target))
    return edges


def _read_image(document: Mapping[str, Any]) -> list[Edge]:
    edges = []
    if document.get("config") is not None:
        edges.append(Edge(EdgeKind.CONFIG, _descriptor(document["config"], "config")))
    for position, entry in enumerate(_list(document, "layers")):
        target = _descriptor(entry, f"layers[{position}]")
        edges.append(Edge(EdgeKind.FOREIGN_LAYER if target.foreign else EdgeKind.LAYER, target))
    return edges


def _read_artifact(document: Mapping[str, Any]) -> list[Edge]:
    entries = enumerate(_list(document, "blobs"))
    return [Edge(EdgeKind.BLOB, _descriptor(entry, f"blobs[{position}]")) for position, entry in entries]


def _read_schema1(document: Mapping[str, Any]) -> list[Edge]:
    edges = []
    for position, entry in enumerate(_list(document, "fsLayers")):
        where = f"fsLayers[{position}]"
        if not isinstance(entry, dict):
            raise InvalidManifest(f"{where} is not an object")
        _refuse_case_variants(entry, frozenset({"blobSum"}))
        edges.append(Edge(EdgeKind.LAYER, Descriptor(_parse_digest(entry.get("blobSum"), f"{where}.blobSum"))))
    return edges


_READERS: Final = {
    "index": _read_index,
    "image": _read_image,
    "artifact": _read_artifact,
    "schema1": _read_schema1,
}


def _descriptor(value: Any, where: str) -> Descriptor:
    if not isinstance(value, dict):
        raise InvalidManifest(f"{where} is not an object")
    _refuse_case_variants(value, _DESCRIPTOR)
    media_type = value.get("mediaType") or ""
    size = value.get("size", -1)
    if not isinstance(media_type, str):
        raise InvalidManifest(f"{where}.mediaType is not text")
    if not isinstance(size, int) or isinstance(size, bool):
        raise InvalidManifest(f"{where}.size is not a whole number")
    artifact_type = value.get("artifactType")
    return Descriptor(
        _parse_digest(value.get("digest"), f"{where}.digest"),
        media_type,
        size if 0 <= size < 2**63 else -1,
        bool(value.get("urls")) or "foreign" in media_type or "nondistributable" in media_type,
        _platform(value.get("platform")),
        artifact_type if isinstance(artifact_type, str) else "",
    )


def _platform(value: Any) -> Platform | None:
    if not isinstance(value, dict):
        return None
    os, architecture, variant = (str(value.get(name) or "") for name in ("os", "architecture", "variant"))
    return Platform(os, architecture, variant)


def _parse_digest(value: Any, where: str) -> Digest:
    if not isinstance(value, str):
        raise InvalidManifest(f"{where} is missing or no text")
    try:
        return Digest.parse(value)
    except InvalidDigest as error:
        raise InvalidManifest(f"{where}: {error}") from error


def _list(document: Mapping[str, Any], name: str) -> list[Any]:
    value = document.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidManifest(f"{name} is not a list")
    return value


def _refuse_duplicates(data: bytes, document: Mapping[str, Any]) -> None:
    """A known field twice in one object is ambiguous; the decoder has kept the last.

    Where no string holds a backslash, each string of the text is two quotation marks, and so it is in what the decoder
    kept when that is written again: a field that was dropped shows as a difference. That costs a tenth of looking at
    each pair, which only the others need.
    """
    import orjson

    with suppress(orjson.JSONEncodeError):  # nested too deeply for it
        if b"\\" not in data and orjson.dumps(document).count(b'"') == data.count(b'"'):
            return
    import json

    known = _TOP | _DESCRIPTOR | {"blobSum"}

    def look(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs if name in known]
        for name in names:
            if names.count(name) > 1:
                raise InvalidManifest(f"ambiguous: the field {name!r} stands twice in one object")

    try:
        json.loads(data, object_pairs_hook=look)
    except RecursionError as error:
        raise InvalidManifest("it is nested too deeply") from error


def _refuse_case_variants(value: Mapping[str, Any], known: frozenset[str]) -> None:
    for name in value.keys() - known:
        if name.casefold() in _FOLDED and name not in _TOP | _DESCRIPTOR | {"blobSum"}:
            raise InvalidManifest(f"ambiguous: the field {name!r} differs from a known one only in case")
