"""aioboto3, for work on the bucket itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from regstore.storage.s3.client import SignedClient


@asynccontextmanager
async def aioboto3_client(client: SignedClient) -> AsyncIterator[Any]:
    """With the same settings, and the credentials of the moment: for seconds, not hours."""
    import aioboto3
    from aiobotocore.config import AioConfig
    from aiobotocore.session import AioSession

    settings, endpoint = client.settings, client.endpoint
    credentials = await client.credentials.get()
    session = aioboto3.Session(
        botocore_session=AioSession(profile=settings.profile),
        aws_access_key_id=credentials.access_key,
        aws_secret_access_key=credentials.secret_key,
        aws_session_token=credentials.token,
    )
    async with session.client(
        "s3",
        endpoint_url=None if endpoint.is_aws and not settings.endpoint_url else endpoint.url,
        region_name=endpoint.region,
        verify=settings.verify_tls and settings.ca_bundle,
        config=AioConfig(
            s3={"addressing_style": "path" if endpoint.path_style else "virtual"},
            retries={"mode": "standard", "max_attempts": settings.retries.tries},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            connect_timeout=10,
            read_timeout=60,
        ),
    ) as opened:
        yield opened
