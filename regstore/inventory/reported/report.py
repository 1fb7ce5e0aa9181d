"""An S3 Inventory report's manifest.json: which files it has, in what format, of which bucket, and since when.

As Amazon's user guide has it ("Locating your inventory list"), version 2016-11-30. creationTimestamp is when the scan
of the bucket began, in milliseconds. Keys of files are those in the destination bucket. Of a CSV `fileSchema` names the
columns, for the files have no header; the others say their columns themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final

from regstore.errors import InputError, IntegrityError
from regstore.storage.backends import OpenOptions, open_location
from regstore.storage.base import Storage
from regstore.storage.location import S3Location
from regstore.words import Moment

SCHEME: Final = "s3-inventory:"
MANIFEST: Final = "manifest.json"
EXPECTED: Final = f"{SCHEME}s3://bucket/…/{MANIFEST}, or {SCHEME}/folder/…/{MANIFEST}"
_VERSION: Final = "2016-11-30"
_MD5: Final = re.compile(r"[0-9a-f]{32}")
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class Format(Enum):
    CSV = "CSV"
    PARQUET = "Parquet"
    ORC = "ORC"


@dataclass(frozen=True, slots=True)
class ReportFile:
    """key: in the destination bucket. size in bytes; md5 in hex."""

    key: str
    size: int
    md5: str

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class Report:
    """where: of its manifest. bucket: that it is a report of. created: in microseconds. columns: of a CSV."""

    where: str
    bucket: str
    created: Moment
    format: Format
    columns: Sequence[str]
    files: Sequence[ReportFile]


def _open(location: S3Location) -> Storage:
    return open_location(location, OpenOptions(read_only=True))


@dataclass(frozen=True, kw_only=True)
class BlobsFrom:
    """Where a report lies: the path of its manifest.json, or the key of it in a bucket. open: a storage of that bucket,
    with the settings of the store; the default goes by the AWS environment."""

    bucket: S3Location | None = None
    manifest: str
    open: Callable[[S3Location], Storage] = field(default=_open, repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, open: Callable[[S3Location], Storage] = _open) -> BlobsFrom:
        """InputError where the text is none of EXPECTED. Looks at nothing but the text."""
        if not text.startswith(SCHEME):
            raise InputError(f"{text!r} says no S3 Inventory report; expected {EXPECTED}")
        place = text[len(SCHEME) :]
        if place.rpartition("/")[2] != MANIFEST:
            raise InputError(
                f"{text!r} names no {MANIFEST}: it lies in a folder of the report's date; expected {EXPECTED}"
            )
        url = _URL.match(place)
        if url is None:
            return cls(manifest=place)
        rest = place[url.end() :]
        if url[1].lower() == "file" and rest.startswith("/"):
            return cls(manifest=rest)
        bucket, _, key = rest.partition("/")
        if url[1].lower() != "s3" or not key:
            raise InputError(f"{text!r} is no place that regstore knows; expected {EXPECTED}")
        if "@" in bucket:  # not echoed: what stands before the @ may be a secret
            raise InputError("credentials do not belong into an s3:// URL; set AWS_ACCESS_KEY_ID and so on")
        return cls(bucket=S3Location(bucket), manifest=key, open=open)

    def __str__(self) -> str:
        return self.manifest if self.bucket is None else f"{self.bucket}/{self.manifest}"

    @property
    def folder(self) -> Path:
        """That the manifest lies in, where it is a file."""
        return Path(self.manifest).parent


def parse_report(data: bytes, where: str) -> Report:
    """IntegrityError where the document is not whole; InputError where it is no report that regstore reads."""
    import orjson

    try:
        document = orjson.loads(data)
        version, format_name = str(document["version"]), str(document["fileFormat"])
        if version != _VERSION:
            raise InputError(f"{where} has version {version}; regstore knows that of Amazon S3, {_VERSION}")
        report = Report(
            where=where,
            bucket=str(document["sourceBucket"]).rpartition(":")[2],
            created=int(document["creationTimestamp"]) * 1000,
            format=_format(format_name, where),
            columns=[column.strip() for column in str(document["fileSchema"]).split(",")],
            files=[_file(entry, where) for entry in document["files"]],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise IntegrityError(
            f"{where} is no manifest of an S3 Inventory report: {type(error).__name__} {error}"
        ) from error
    if not report.files:
        raise IntegrityError(f"{where} names no files: it says nothing of what is in the bucket")
    if len({file.key for file in report.files}) < len(report.files):
        raise IntegrityError(f"{where} names a file twice")
    return report


def _format(name: str, where: str) -> Format:
    for known in Format:
        if name.lower() == known.value.lower():
            return known
    raise InputError(f"{where} is of the format {name}; regstore reads CSV, Parquet and ORC")


def _file(entry: Mapping[str, Any], where: str) -> ReportFile:
    file = ReportFile(str(entry["key"]), int(entry["size"]), str(entry["MD5checksum"]).lower())
    if not file.name or file.size < 0 or not _MD5.fullmatch(file.md5):
        raise IntegrityError(f"{where}: of the file {file.key!r} it says no size and MD5")
    return file
