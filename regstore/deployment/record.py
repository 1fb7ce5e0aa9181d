"""What was asked of a deployment, and what was written: DIR/deployment.json. Pure.

One JSON object, with no secret in it:

    {
      "format": 1,
      "deployment": {"host": "registry.example.org", "port": 5000, "store": "s3://images", ...},
      "written": {"config.yml": ["9f86d08…"], ...}
    }

`written` has the SHA-256 of what regstore wrote to each file that is made of the deployment, so that what people
changed since is known, and kept. While files are being written it has those before and those after: a run that is cut
short leaves no file that looks like one changed by hand. Of secrets, and of users, it has none. A field
that this version does not know is not passed over but refused, for writing the file again would lose it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import time
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any, Final

from regstore.deployment.wanted import Cache, Deployment, Form, RegistryVersion, Tls, is_within
from regstore.errors import InputError

FORMAT: Final = 1
_ENUMS: Final[dict[str, type[StrEnum]]] = {"form": Form, "tls": Tls, "registry": RegistryVersion, "cache": Cache}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """written: path to the digests of what may stand there by regstore's own hand."""

    deployment: Deployment
    written: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def encode(record: Record) -> bytes:
    document = {
        "format": FORMAT,
        "deployment": {each.name: _plain(getattr(record.deployment, each.name)) for each in fields(Deployment)},
        "written": {path: list(digests) for path, digests in sorted(record.written.items())},
    }
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def decode(content: bytes, where: str) -> Record:
    """InputError where it is not such a file, or a later regstore's."""
    try:
        document = json.loads(content)
        version, asked, written = document["format"], dict(document["deployment"]), document["written"]
        if version != FORMAT:
            raise InputError(f"{where} has format {version!r}, and this regstore knows {FORMAT}: use a newer one")
        known = {each.name for each in fields(Deployment)}
        unknown = sorted(set(asked) - known)
        if unknown:
            raise InputError(
                f"{where} says {', '.join(unknown)}, which this regstore does not know: use a newer one"
            )
        for name, kind in _ENUMS.items():
            if name in asked:
                asked[name] = kind(asked[name])
        asked["names"] = tuple(asked.get("names", ()))
        asked["folder"] = PurePosixPath(asked["folder"])
        asked["nightly"] = time.fromisoformat(asked["nightly"])
        for path in written:
            if not is_within(path):  # what is no longer wanted is removed: nothing elsewhere may be named
                raise InputError(
                    f"{where} names {path!r}, which is not in its folder: move it away, and init begins anew"
                )
        return Record(
            deployment=Deployment(**asked),
            written={str(path): tuple(map(str, digests)) for path, digests in written.items()},
        )
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{where} is damaged ({type(error).__name__}: {error}): move it away, and init begins anew"
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, PurePosixPath):
        return str(value)
    if isinstance(value, time):
        return value.isoformat("minutes")
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value
