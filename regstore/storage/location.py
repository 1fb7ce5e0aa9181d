"""Where a store is, as a person writes it: `s3://bucket[/rootdirectory]`, a path, or `file:///path`. Pure.

Each backend has a kind of location and a function that makes one of a URL of its scheme. Those that a registry's
configuration names, too, are here; `storage.backends` knows which belong together."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Protocol
from urllib.parse import unquote

from regstore.errors import InputError

EXPECTED: Final = "s3://bucket[/rootdirectory], a folder's path, or file:///folder"
#: Loose: servers other than AWS allow upper case, underscores, and more than 63 characters.
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


class Location(Protocol):
    """`str()` gives it as a person would write it."""

    #: Of its URLs, in lower case: the backend's name.
    scheme: ClassVar[str]


@dataclass(frozen=True, slots=True)
class DiskLocation:
    scheme: ClassVar[str] = "file"
    root: Path

    def __str__(self) -> str:
        return str(self.root)


@dataclass(frozen=True, slots=True)
class S3Location:
    """root: the registry's rootdirectory as a key's beginning: no slash at either end, "" for the whole bucket."""

    scheme: ClassVar[str] = "s3"
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


def normalize_root(rootdirectory: str) -> str:
    """A registry's `rootdirectory` on S3 as the beginning of its keys, without the slash that follows.

    Distribution makes a key as `TrimLeft(TrimRight(rootdirectory, "/") + path, "/")`: slashes within stay.
    """
    return rootdirectory.strip("/")


def parse_s3(text: str) -> S3Location | None:
    """None where that is no URL of a bucket. Nothing is percent-decoded: what follows the bucket is the root as the
    keys have it."""
    if not text[3:].startswith("//"):
        return None
    bucket, _, root = text[5:].partition("/")
    if "@" in bucket:
        # Not echoed: what stands before the @ may be a secret.
        raise InputError("credentials do not belong into an s3:// URL; set AWS_ACCESS_KEY_ID and so on")
    if not bucket:
        raise InputError(f"{text!r} names no bucket; expected s3://bucket[/rootdirectory]")
    return S3Location(bucket, normalize_root(root))


def parse_file(text: str) -> DiskLocation | None:
    """None where that is no URL of a folder."""
    rest = text[5:]
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host not in ("", "localhost"):
            raise InputError(f"{text!r} names the host {host!r}; expected file:///folder, with three slashes")
        rest = slash + path
    if not rest:
        raise InputError(f"{text!r} names no folder; expected file:///folder")
    return DiskLocation(Path(unquote(rest)))
