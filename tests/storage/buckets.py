"""Storages on a server of the tests."""

from __future__ import annotations

from typing import Any

from regstore.storage.s3 import RetryPolicy, S3Settings, S3Storage
from tests.servers.s3 import S3Server


def bucket_storage(server: S3Server, bucket: str, root: str = "", **more: Any) -> S3Storage:
    """more: S3Settings. Requests are tried as often as ever, without much waiting between."""
    settings = {"retries": RetryPolicy(base=0.01), "region": server.region} | more
    return S3Storage(
        S3Settings(
            bucket=bucket,
            root=root.strip("/"),
            endpoint_url=server.endpoint_url,
            access_key=server.access_key,
            secret_key=server.secret_key,
            **settings,
        )
    )
