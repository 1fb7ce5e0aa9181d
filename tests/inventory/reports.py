"""S3 Inventory reports of a store, as Amazon makes them: CSV, Parquet, ORC; of current objects, or of all versions."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from regstore.inventory.reported.report import BlobsFrom
from regstore.storage.location import S3Location
from tests.model.memory import ModelStorage
from tests.model.store import ModelStore

SOURCE = "registry"
FORMATS = ("CSV", "Parquet", "ORC")
#: In the order of Amazon's. Of CSV, and of the others.
COLUMNS = {
    "Bucket": "bucket",
    "Key": "key",
    "VersionId": "version_id",
    "IsLatest": "is_latest",
    "IsDeleteMarker": "is_delete_marker",
    "Size": "size",
    "LastModifiedDate": "last_modified_date",
    "ETag": "e_tag",
    "StorageClass": "storage_class",
}
OF_VERSIONS = ("VersionId", "IsLatest", "IsDeleteMarker")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One of a report. mtime in microseconds."""

    key: str
    size: int | None
    mtime: int
    latest: bool = True
    marker: bool = False
    storage_class: str = "STANDARD"


def rows_of(store: ModelStore, root: str = "") -> list[Row]:
    """Of everything in a store whose keys begin so in the bucket."""
    return [Row(key=root + key, size=len(body), mtime=mtime) for key, (body, mtime) in store.objects.items()]


@dataclass(frozen=True, kw_only=True)
class MadeReport:
    """The objects of a report, by their keys in the destination bucket, and where its manifest is."""

    manifest: str
    objects: Mapping[str, bytes]

    def changed(self, change: Callable[[dict[str, Any]], None]) -> MadeReport:
        """With another manifest, and its checksum."""
        document = json.loads(self.objects[self.manifest])
        change(document)
        return replace(self, objects={**self.objects, **_manifest(self.manifest, document)})

    def without(self, key: str) -> MadeReport:
        return replace(self, objects={name: data for name, data in self.objects.items() if name != key})

    @property
    def data(self) -> list[str]:
        """Keys of its data files."""
        return [key for key in self.objects if "/data/" in key]

    def with_data(self, number: int, data: bytes, *, told: bool = True) -> MadeReport:
        """With other bytes in a data file. told: the manifest has their size and MD5."""
        key = self.data[number]
        made = replace(self, objects={**self.objects, key: data})

        def change(document: dict[str, Any]) -> None:
            for entry in document["files"]:
                if entry["key"] == key:
                    entry |= {"size": len(data), "MD5checksum": _md5(data)}

        return made.changed(change) if told else made

    def write_folder(self, folder: Path) -> Path:
        """As `aws s3 sync` does. The manifest's path."""
        for key, data in self.objects.items():
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder / self.manifest

    def blobs_from(self) -> BlobsFrom:
        """In a bucket in memory."""

        def open_bucket(location: S3Location) -> Any:
            assert (location.bucket, location.root) == ("reports", "")
            return ModelStorage(ModelStore.from_dict(self.objects), now=0)

        return BlobsFrom.parse(f"s3-inventory:s3://reports/{self.manifest}", open_bucket)


def make_report(
    rows: Sequence[Row],
    *,
    created: int,
    format: str = "CSV",
    versions: bool = False,
    without: Sequence[str] = (),
    files: int = 1,
    bucket: str = SOURCE,
) -> MadeReport:
    """created: in microseconds, to the millisecond. without: columns that its configuration does not name."""
    names = [name for name in COLUMNS if name not in without and (versions or name not in OF_VERSIONS)]
    prefix = f"inventories/{bucket}/daily"
    stamp = f"{_time(created):%Y-%m-%dT%H-%MZ}"
    objects, entries = {}, []
    for number in range(files):
        data = _WRITERS[format](list(_values(rows[number::files], names, bucket)), names)
        key = f"{prefix}/data/{number:08x}{_ENDINGS[format]}"
        objects[key] = data
        entries.append({"key": key, "size": len(data), "MD5checksum": _md5(data)})
    document = {
        "sourceBucket": bucket,
        "destinationBucket": "arn:aws:s3:::reports",
        "version": "2016-11-30",
        "creationTimestamp": str(created // 1000),
        "fileFormat": format,
        "fileSchema": ", ".join(names) if format == "CSV" else _SCHEMAS[format](names),
        "files": entries,
    }
    manifest = f"{prefix}/{stamp}/manifest.json"
    return MadeReport(manifest=manifest, objects={**objects, **_manifest(manifest, document)})


def _manifest(key: str, document: Mapping[str, Any]) -> dict[str, bytes]:
    data = json.dumps(document, indent=2).encode()
    return {key: data, key.replace(".json", ".checksum"): _md5(data).encode()}


def _values(rows: Sequence[Row], names: Sequence[str], bucket: str) -> Iterator[dict[str, Any]]:
    for row in rows:
        values = {
            "Bucket": bucket,
            "Key": row.key,
            "VersionId": "v",
            "IsLatest": row.latest,
            "IsDeleteMarker": row.marker,
            "Size": row.size,
            "LastModifiedDate": _time(row.mtime // 1000 * 1000),
            "ETag": None if row.marker else "0" * 32,
            "StorageClass": None if row.marker else row.storage_class,
        }
        yield {name: values[name] for name in names}


def _csv(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> bytes:
    def text(name: str, value: Any) -> str:
        if value is None:
            return ""
        if name == "Key":
            return quote(value, safe="/-_.*").replace("%20", "+")
        if isinstance(value, bool):
            return str(value).lower()
        return (
            f"{value:%Y-%m-%dT%H:%M:%S}.{value.microsecond // 1000:03}Z"
            if isinstance(value, datetime)
            else str(value)
        )

    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([text(name, value) for name, value in row.items()] for row in rows)
    return gzip.compress(out.getvalue().encode(), mtime=0)


def _table(rows: Sequence[Mapping[str, Any]], names: Sequence[str], unit: str, zone: str | None) -> Any:
    import pyarrow as pa

    kinds = {
        "Size": pa.int64(),
        "LastModifiedDate": pa.timestamp(unit, zone),
        "IsLatest": pa.bool_(),
        "IsDeleteMarker": pa.bool_(),
    }
    return pa.table(
        {
            COLUMNS[name]: pa.array(
                [_naive(row[name]) if zone is None else row[name] for row in rows], kinds.get(name, pa.string())
            )
            for name in names
        }
    )


def _naive(value: Any) -> Any:
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


def _parquet(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> bytes:
    from pyarrow import parquet

    out = io.BytesIO()
    parquet.write_table(_table(rows, names, "ms", "UTC"), out)
    return out.getvalue()


def _orc(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> bytes:
    from pyarrow import orc

    out = io.BytesIO()
    orc.write_table(_table(rows, names, "ns", None), out, compression="zlib")
    return out.getvalue()


_WRITERS = {"CSV": _csv, "Parquet": _parquet, "ORC": _orc}
_ENDINGS = {"CSV": ".csv.gz", "Parquet": ".parquet", "ORC": ".orc"}
_SCHEMAS = {
    "Parquet": lambda names: "message s3.inventory {" + " ".join(f"{COLUMNS[name]};" for name in names) + "}",
    "ORC": lambda names: "struct<" + ",".join(COLUMNS[name] for name in names) + ">",
}


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _time(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


class InBucket(ModelStorage):
    """A model of a store in a bucket, of which reports can be."""

    bucket = SOURCE
    rootdirectory = ""

    def aioboto3_client(self) -> Any:
        raise NotImplementedError

    def translate(self, error: BaseException, what: str) -> Any:
        raise NotImplementedError
