"""What a registry's storage health check asks, asked here in the same words and judged as the driver would.

`health.storagedriver` calls the driver once an interval, and any error makes the registry answer 503:

    2.5        List("/")    registry/handlers/app.go, RegisterHealthChecks
    2.6, 2.7   Stat("/")
    2.8, 3.x   Stat("/"), and a path that is not found passes

On S3 (registry/storage/driver/s3-aws/s3.go, the same in all of 2.x) both are ListObjects, version 1, with the prefix
`s3Path("/")` = `TrimLeft(TrimRight(rootdirectory, "/") + "/", "/")`, that is "" or `<root>/`:

    List("/")    delimiter /, at most 1,000 keys, and further pages from NextMarker; an empty answer is no error
    Stat("/")    at most 1 key, no delimiter; without one it says `Path not found: /`

On a disk they are a read of the root folder, and a stat of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

LIST_MAX: Final = 1000
_MAX_PAGES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the check passes, and why (not), in a sentence."""

    passes: bool
    why: str


#: ListObjects with these parameters; gives the answer's fields as boto3 and aioboto3 name them, or raises.
ListObjects = Callable[..., Awaitable[dict[str, Any]]]


def s3_path(rootdirectory: str, path: str) -> str:
    """The key that the driver makes of a path."""
    return (rootdirectory.rstrip("/") + path).lstrip("/")


async def s3_stat_root(list_objects: ListObjects, rootdirectory: str) -> Verdict:
    """`Stat("/")`."""
    prefix = s3_path(rootdirectory, "/")
    answer = await list_objects(Prefix=prefix, MaxKeys=1)
    contents = answer.get("Contents") or []
    if len(contents) == 1:
        return Verdict(True, f'Stat("/") finds {contents[0]["Key"]}')
    if len(contents) > 1:
        return Verdict(
            False, f"the server gave {len(contents)} keys where 1 was asked for: the driver finds nothing"
        )
    if len(answer.get("CommonPrefixes") or []) == 1:
        return Verdict(True, 'Stat("/") finds a folder')
    return Verdict(False, f"no key begins with {prefix!r}: s3aws: Path not found: /")


async def s3_list_root(list_objects: ListObjects, rootdirectory: str) -> Verdict:
    """`List("/")`."""
    prefix = s3_path(rootdirectory, "/")
    found = 0
    marker: dict[str, str] = {}
    for _ in range(_MAX_PAGES):
        answer = await list_objects(Prefix=prefix, Delimiter="/", MaxKeys=LIST_MAX, **marker)
        found += len(answer.get("Contents") or []) + len(answer.get("CommonPrefixes") or [])
        if "IsTruncated" not in answer:
            return Verdict(False, "the server's listing does not say whether it is truncated: the driver panics")
        if not answer["IsTruncated"]:
            return Verdict(True, f'List("/") finds {found:,} ' + ("entry" if found == 1 else "entries"))
        following = answer.get("NextMarker", "")
        if not following or following <= marker.get("Marker", ""):
            return Verdict(False, "the server's listing is truncated and does not say where it goes on: no end")
        marker = {"Marker": following}
    return Verdict(False, f"the listing of {prefix!r} is longer than {_MAX_PAGES:,} pages")


def disk_stat_root(folder: Path) -> Verdict:
    try:
        folder.stat()
    except OSError as error:
        return Verdict(False, f"filesystem: {error.strerror}: {folder}")
    return Verdict(True, 'Stat("/") finds the folder')


def disk_list_root(folder: Path) -> Verdict:
    try:
        found = sum(1 for _ in folder.iterdir())
    except OSError as error:
        return Verdict(False, f"filesystem: {error.strerror}: {folder}")
    return Verdict(True, f'List("/") finds {found:,} ' + ("entry" if found == 1 else "entries"))
