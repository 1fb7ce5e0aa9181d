"""What tests know about an S3 server, whichever it is."""

from __future__ import annotations

import dataclasses
import itertools
import os
from dataclasses import dataclass
from functools import cache
from typing import Any

from regstore.storage.s3 import S3Settings

_numbers = itertools.count(1)


@dataclass(frozen=True)
class S3Server:
    endpoint_url: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"
    name: str = "s3"

    def client(self) -> Any:
        """A boto3 client, path style, no checksums that the server did not ask for. Cached for each server."""
        return _client(self)

    def create_bucket(self, prefix: str = "test") -> str:
        """A new bucket; its name is new in this process and on this server."""
        name = f"{prefix}-{os.getpid()}-{next(_numbers)}"
        self.client().create_bucket(Bucket=name)
        return name

    def remove_bucket(self, bucket: str) -> None:
        """With all that is in it, unfinished multipart uploads too."""
        client = self.client()
        for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
            for upload in page.get("Uploads", []):
                client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
            entries = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            names = [{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in entries]
            if names:
                client.delete_objects(Bucket=bucket, Delete={"Objects": names, "Quiet": True})
        client.delete_bucket(Bucket=bucket)

    def at(self, endpoint_url: str) -> S3Server:
        """The same server by another road, such as a FaultProxy."""
        return dataclasses.replace(self, endpoint_url=endpoint_url)

    def settings(self, bucket: str, root: str = "", **more: Any) -> S3Settings:
        """That open a place in one of its buckets. more: any others of S3Settings."""
        return S3Settings(
            bucket=bucket,
            root=root.strip("/"),
            endpoint_url=self.endpoint_url,
            region=self.region,
            access_key=self.access_key,
            secret_key=self.secret_key,
            **more,
        )

    def environment(self) -> dict[str, str]:
        """The AWS_* variables that make any SDK talk to this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
        }

    def keys(self, bucket: str, prefix: str = "") -> dict[str, int]:
        """Every key with its size, by the SDK's own listing."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", [])}

    def read(self, bucket: str, key: str) -> bytes:
        body = self.client().get_object(Bucket=bucket, Key=key)["Body"]
        with body:
            data: bytes = body.read()
        return data

    def write(self, bucket: str, key: str, data: bytes) -> None:
        self.client().put_object(Bucket=bucket, Key=key, Body=data)


@dataclass(frozen=True)
class S3Root:
    """A place in a bucket: what a registry's `storage.s3` configuration names."""

    server: S3Server
    bucket: str
    rootdirectory: str = ""

    def settings(self, **more: Any) -> S3Settings:
        """That open it. more: any others of S3Settings."""
        return self.server.settings(self.bucket, self.rootdirectory, **more)


@cache
def _client(server: S3Server) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name=server.region,
        config=Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"total_max_attempts": 2},
        ),
    )
