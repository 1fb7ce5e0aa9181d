"""The OCI image layout: its files, and the names of what is in it. Pure.

    oci-layout                 {"imageLayoutVersion": "1.0.0"}
    index.json                 what is in it by name: an image index
    blobs/<algorithm>/<hex>    manifests, configs and layers, each under its digest

An entry of index.json is named by the annotation org.opencontainers.image.ref.name, which skopeo, umoci, podman, oras
and regctl read. Of one repository it is the tag alone, `1.0`, as these tools write it. Of several, tags would meet:
then it is `team/app:1.0`, which the specification allows and which the tools take as the name. In both cases
io.containerd.image.name says `team/app:1.0`: containerd, docker and podman name what they load by it, and so does an
import. What has no tag (an image named by digest, a referrer) has no ref.name, and `team/app@sha256:…` there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from regstore.digest import Digest
from regstore.errors import InputError, InvalidManifest, InvalidReference
from regstore.manifest import MAX_SIZE, OCI_INDEX, Descriptor, parse_manifest
from regstore.reference import Reference, is_tag

MARKER: Final = "oci-layout"
INDEX: Final = "index.json"
BLOBS: Final = "blobs/"
MARKER_BODY: Final = b'{"imageLayoutVersion":"1.0.0"}'
REF_NAME: Final = "org.opencontainers.image.ref.name"
IMAGE_NAME: Final = "io.containerd.image.name"
#: Entries of one index.json, and manifests that are read of one layout.
MOST: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What index.json has, or is to have, of one image. repository: "" where nothing says it. tag: "" for none.
    written: its annotations as they stand, when it was read."""

    digest: Digest
    media_type: str
    size: int
    repository: str
    tag: str = ""
    artifact_type: str = ""
    platform: Mapping[str, Any] | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people: `team/app:1.0`, or what is known of it."""
        return f"{self.repository}:{self.tag}" if self.tag else f"{self.repository}@{self.digest}"


def blob_path(digest: Digest) -> str:
    return f"{BLOBS}{digest.algorithm}/{digest.encoded}"


def encode_index(entries: Sequence[Entry], others: Sequence[Mapping[str, Any]] = ()) -> bytes:
    """others: entries of before, which stay as they are unless one of these has their name."""
    import orjson

    several = len({entry.repository for entry in entries} | {_repository(other) for other in others}) > 1
    new = [_descriptor(entry, several) for entry in entries]
    taken = {_identity(one) for one in new}
    kept = [dict(other) for other in others if _identity(other) not in taken]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*map(_renamed(several), kept), *new]}
    return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def check_marker(data: bytes, where: str) -> None:
    """InputError unless it is the file of a layout that is known."""
    import orjson

    try:
        version = orjson.loads(data)["imageLayoutVersion"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{where} has a file {MARKER} that is none: it is no OCI image layout") from error
    if not isinstance(version, str) or version.partition(".")[0] != "1":
        raise InputError(f"{where} is an OCI image layout of version {version!r}, and 1.0.0 is known")


def raw_entries(data: bytes, where: str) -> list[Mapping[str, Any]]:
    """The entries of an index.json as they stand. InputError where it is none, or could be read in two ways."""
    import orjson

    if len(data) > MAX_SIZE:
        raise InputError(f"{INDEX} in {where} has {len(data):,} bytes: more than any index has")
    try:
        parsed = parse_manifest(data)
    except InvalidManifest as error:
        raise InputError(f"{INDEX} in {where} is no image index: {error}") from error
    if not parsed.is_index:
        raise InputError(f"{INDEX} in {where} is a {parsed.media_type}, not an image index")
    if len(parsed.manifests) > MOST:
        raise InputError(f"{INDEX} in {where} names {len(parsed.manifests):,} manifests, and {MOST:,} is the most")
    return list(orjson.loads(data).get("manifests") or [])


def entries_of(data: bytes, where: str) -> list[Entry]:
    """As `raw_entries`."""
    raw = raw_entries(data, where)
    return [_entry(one, target) for one, target in zip(raw, parse_manifest(data).manifests, strict=True)]


def split_name(text: str) -> tuple[str, str]:
    """Repository and tag of `[host/]team/app[:tag]` or `tag`; "" for what it does not say, or is none."""
    if is_tag(text):
        return "", text
    first, slash, rest = text.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):  # a host, as docker tells one
        text = rest
    try:
        reference = Reference.parse(text)
    except (InvalidReference, InputError):
        return "", ""
    return reference.name, reference.tag or ""


def _entry(raw: Mapping[str, Any], target: Descriptor) -> Entry:
    said = raw.get("annotations")
    annotations = {str(key): str(value) for key, value in said.items()} if isinstance(said, dict) else {}
    repository, tag = split_name(annotations.get(REF_NAME, ""))
    other, other_tag = split_name(annotations.get(IMAGE_NAME, ""))
    if not repository and (not tag or not other_tag or tag == other_tag):
        repository = other
    if not tag and REF_NAME not in annotations:
        tag = other_tag
    return Entry(
        digest=target.digest,
        media_type=target.media_type,
        size=target.size,
        repository=repository,
        tag=tag,
        artifact_type=target.artifact_type,
        platform=raw.get("platform"),
        annotations=annotations,
    )


def _descriptor(entry: Entry, several: bool) -> dict[str, Any]:
    annotations = {IMAGE_NAME: entry.name}
    if entry.tag:
        annotations[REF_NAME] = f"{entry.repository}:{entry.tag}" if several else entry.tag
    raw: dict[str, Any] = {"mediaType": entry.media_type, "digest": str(entry.digest), "size": entry.size}
    if entry.artifact_type:
        raw["artifactType"] = entry.artifact_type
    if entry.platform:
        raw["platform"] = dict(entry.platform)
    return raw | {"annotations": annotations}


def _annotations(raw: Mapping[str, Any]) -> Mapping[str, str]:
    said = raw.get("annotations")
    return said if isinstance(said, dict) else {}


def _repository(raw: Mapping[str, Any]) -> str:
    said = _annotations(raw)
    return split_name(said.get(IMAGE_NAME, ""))[0] or split_name(said.get(REF_NAME, ""))[0]


def _identity(raw: Mapping[str, Any]) -> tuple[str, str]:
    """Of two entries with the same, the newer one counts: a tag of a repository, or an image without one."""
    said = _annotations(raw)
    if REF_NAME not in said:
        return _repository(raw), str(raw.get("digest"))
    return _repository(raw), split_name(said[REF_NAME])[1] or said[REF_NAME]


def _renamed(several: bool) -> Any:
    """Gives an entry of before the form of names that all have now; one that names no repository keeps its own."""

    def rename(raw: dict[str, Any]) -> dict[str, Any]:
        said, repository = _annotations(raw), _repository(raw)
        tag = split_name(said.get(REF_NAME, ""))[1]
        if repository and tag:
            raw["annotations"] = {**said, REF_NAME: f"{repository}:{tag}" if several else tag}
        return raw

    return rename


def repositories_of(entries: Iterable[Entry]) -> list[str]:
    return sorted({entry.repository for entry in entries if entry.repository})
