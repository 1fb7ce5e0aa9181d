"""Where a store is, as a person writes it: `s3://bucket[/rootdirectory]`, a path, or `file:///path`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from regstore.errors import InputError

_EXPECTED: Final = "s3://bucket[/rootdirectory], a folder's path, or file:///folder"
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
#: Loose: servers other than AWS allow upper case, underscores, and more than 63 characters.
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


@dataclass(frozen=True, slots=True)
class DiskLocation:
    root: Path

    def __str__(self) -> str:
        return str(self.root)


@dataclass(frozen=True, slots=True)
class S3Location:
    """root: the registry's rootdirectory as a key's beginning: no slash at either end, "" for the whole bucket."""

    bucket: str
    root: str = ""

    def __post_init__(self) -> None:
        if not _BUCKET.fullmatch(self.bucket):
            raise InputError(
                f"{self.bucket!r} is not a bucket's name: letters, digits, dots, dashes and underscores, at least two"
            )
        if self.root != normalize_root(self.root):
            raise InputError(f"the root {self.root!r} must have no slash at either end")

    def __str__(self) -> str:
        return f"s3://{self.bucket}" + (f"/{self.root}" if self.root else "")


Location = DiskLocation | S3Location


def normalize_root(rootdirectory: str) -> str:
    """A registry's `rootdirectory` on S3 as the beginning of its keys, without the slash that follows.

    Distribution makes a key as `TrimLeft(TrimRight(rootdirectory, "/") + path, "/")`: slashes within stay.
    """
    return rootdirectory.strip("/")


def parse_location(text: str) -> Location:
    """InputError where the text is none of the three forms. Looks at nothing but the text.

    Nothing is percent-decoded in `s3://`: what follows the bucket is the root as the keys have it.
    """
    if not text.strip():
        raise InputError(f"no store is named; expected {_EXPECTED}")
    if "\0" in text:
        raise InputError(f"{text!r} has a NUL in it; expected {_EXPECTED}")
    scheme = _SCHEME.match(text)
    if (
        scheme
        and "@" in text[scheme.end() :].lstrip("/").partition("/")[0]
        and scheme[1].lower() not in ("s3", "file")
    ):
        # Not echoed: what stands before the @ may be a secret.
        raise InputError(f"a {scheme[1].lower()} URL is no location that regstore knows; expected {_EXPECTED}")
    name = scheme[1].lower() if scheme else ""
    if name == "s3" and text[3:].startswith("//"):
        bucket, _, root = text[5:].partition("/")
        if "@" in bucket:
            # Not echoed: what stands before the @ may be a secret.
            raise InputError("credentials do not belong into an s3:// URL; set AWS_ACCESS_KEY_ID and so on")
        if not bucket:
            raise InputError(f"{text!r} names no bucket; expected s3://bucket[/rootdirectory]")
        return S3Location(bucket, normalize_root(root))
    if name == "file":
        rest = text[5:]
        if rest.startswith("//"):
            host, slash, path = rest[2:].partition("/")
            if host not in ("", "localhost"):
                raise InputError(f"{text!r} names the host {host!r}; expected file:///folder, with three slashes")
            rest = slash + path
        if not rest:
            raise InputError(f"{text!r} names no folder; expected file:///folder")
        return DiskLocation(Path(unquote(rest)))
    if text.lower().startswith(("s3:", "file:")) or (scheme and text[scheme.end() :].startswith("/")):
        raise InputError(f"{text!r} is no location that regstore knows; expected {_EXPECTED}")
    return DiskLocation(Path(text))
