"""An image of a few hundred bytes that nobody else has. Pure, but for the chance in it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import secrets
import tarfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
#: The time of the check, and chance.
_TAG: Final = re.compile(r"check-(\d{8}T\d{6}Z)-[0-9a-f]{16}")
_TIME: Final = "%Y%m%dT%H%M%SZ"
_STALE: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyImage:
    tag: str
    layer: bytes = field(repr=False)
    config: bytes = field(repr=False)
    manifest: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def size(self) -> int:
        return len(self.layer) + len(self.config) + len(self.manifest)


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def make_image(now: datetime) -> TinyImage:
    """A new one at each call. now: UTC."""
    plain = _archive(secrets.token_bytes(64))
    layer = gzip.compress(plain, mtime=0)
    config = _json(
        {
            "created": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(plain)]},
            "history": [{"created_by": "regstore init --check"}],
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _descriptor(_CONFIG_TYPE, config),
            "layers": [_descriptor(_LAYER_TYPE, layer)],
        }
    )
    tag = f"check-{now:{_TIME}}-{secrets.token_hex(8)}"
    return TinyImage(tag=tag, layer=layer, config=config, manifest=manifest)


def is_left_over(tag: str, now: datetime) -> bool:
    """Whether it is of a check that has ended, and did not remove it."""
    found = _TAG.fullmatch(tag)
    return found is not None and found[1] < f"{now - _STALE:{_TIME}}"


def _archive(content: bytes) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        member = tarfile.TarInfo("regstore-check")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def _json(document: dict[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
