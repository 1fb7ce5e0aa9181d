"""What is attached to an image, in words: signatures, attestations, SBOMs. Parses bytes, fetches nothing.

Known: cosign's simple signing payload; a DSSE envelope, whose payload is decoded; an in-toto statement; SPDX and
CycloneDX as JSON. Anything else that is JSON is shown as it is. Nothing is verified here: that is for who has the keys.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from regstore.manifest import Descriptor, Manifest
from regstore.serve.image import TEXT

#: Bytes of one blob that is decoded, and blobs of one manifest.
CONTENT_MAX: Final = 512 * 1024
BLOBS_MAX: Final = 4
#: What stands in the media types of what is JSON.
_JSON: Final = ("json", "in-toto", "dsse", "spdx", "cyclonedx", "simplesigning", "sarif")
_SHOWN: Final = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """what: in a few words. facts: what it says of itself. text: all of it, as indented JSON, cut where it is long."""

    what: str
    facts: Mapping[str, str] = field(default_factory=dict)
    text: str = ""


def readable(manifest: Manifest) -> list[Descriptor]:
    """The blobs of a manifest that `decode` is for: some small ones whose type is JSON, and none of an image's."""
    found = [
        layer
        for layer in manifest.layers
        if any(sign in layer.media_type.lower() for sign in _JSON) and 0 <= layer.size <= CONTENT_MAX
    ]
    return found[:BLOBS_MAX]


def decode(data: bytes) -> Attachment | None:
    """None where it is no JSON object."""
    document = _object(data)
    if document is None:
        return None
    facts: dict[str, str] = {}
    what = "JSON"
    if isinstance(document.get("payload"), str) and "payloadType" in document:
        facts["payload type"] = _text(document["payloadType"])
        facts["signatures"] = (
            str(len(document["signatures"])) if isinstance(document.get("signatures"), list) else "0"
        )
        inner = _payload(document["payload"])
        what, document = "signed envelope (DSSE)", inner if inner is not None else document
    if "predicateType" in document:
        what = f"{what}, in-toto statement" if facts else "in-toto statement"
        facts["predicate"] = _text(document["predicateType"])
        facts |= _subjects(document.get("subject"))
    elif isinstance(document.get("critical"), dict):
        what = "cosign signature"
        critical = document["critical"]
        facts["of"] = _text(_at(critical, "image", "docker-manifest-digest"))
        facts["reference"] = _text(_at(critical, "identity", "docker-reference"))
    elif isinstance(document.get("spdxVersion"), str):
        what = "SBOM (SPDX)"
        facts |= {"version": _text(document["spdxVersion"]), "packages": _number(document.get("packages"))}
    elif document.get("bomFormat") == "CycloneDX":
        what = "SBOM (CycloneDX)"
        facts |= {"version": _text(document.get("specVersion")), "components": _number(document.get("components"))}
    text = orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
    if len(text) > _SHOWN:
        text = f"{text[:_SHOWN]}\n… ({len(text):,} characters)"
    return Attachment(what=what, facts={name: each for name, each in facts.items() if each}, text=text)


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def _payload(text: str) -> dict[str, Any] | None:
    try:
        return _object(base64.b64decode(text))
    except (binascii.Error, ValueError):
        return None


def _subjects(value: object) -> dict[str, str]:
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return {}
    name = _text(value[0].get("name"))
    return {"subject": name if len(value) == 1 else f"{name} and {len(value) - 1:,} more"}


def _at(document: object, *names: str) -> object:
    for name in names:
        document = document.get(name) if isinstance(document, dict) else None
    return document


def _text(value: object) -> str:
    return value[:TEXT] if isinstance(value, str) else ""


def _number(value: object) -> str:
    return f"{len(value):,}" if isinstance(value, list) else ""
