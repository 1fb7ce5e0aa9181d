"""Options that commands with a second place share: what goes there, how it is stored, and where it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regstore.cli.settings import StoreSettings

if TYPE_CHECKING:
    from regstore.storage.base import PutOptions

Repo = Annotated[
    list[str] | None,
    typer.Option(
        "--repo", metavar="PATTERN", show_default=False, help="Only these repositories (glob; repeatable)."
    ),
]
Tag = Annotated[
    list[str] | None,
    typer.Option(
        "--tag",
        metavar="PATTERN",
        show_default=False,
        help="Only these tags (glob; repeatable), with all they reach, their referrers and sha256-… tags.",
    ),
]
StorageClass = Annotated[
    str | None,
    typer.Option("--storage-class", metavar="NAME", show_default=False, help="S3 storage class of new objects."),
]
Sse = Annotated[
    str | None, typer.Option("--sse", metavar="NAME", show_default=False, help="Encryption: AES256 or aws:kms.")
]
SseKmsKeyId = Annotated[
    str | None, typer.Option("--sse-kms-key-id", metavar="ID", show_default=False, help="KMS key of new objects.")
]
Acl = Annotated[
    str | None,
    typer.Option(
        "--acl", metavar="NAME", show_default=False, help="Canned ACL, such as bucket-owner-full-control."
    ),
]
DstEndpointUrl = Annotated[
    str | None,
    typer.Option("--dst-endpoint-url", metavar="URL", show_default=False, help="S3 server of the second place."),
]
DstRegion = Annotated[
    str | None, typer.Option("--dst-region", metavar="NAME", show_default=False, help="Its region.")
]
DstProfile = Annotated[
    str | None, typer.Option("--dst-profile", metavar="NAME", show_default=False, help="Profile for it.")
]
DstCaBundle = Annotated[
    Path | None,
    typer.Option("--dst-ca-bundle", metavar="FILE", show_default=False, help="Certificates to trust for it."),
]


def there_of(
    settings: StoreSettings,
    store: str,
    endpoint_url: str | None,
    region: str | None,
    profile: str | None,
    ca_bundle: Path | None,
) -> StoreSettings:
    """The second place: what is not said of it is as of the first."""
    return replace(
        settings,
        store=store,
        registry_config=None,
        endpoint_url=endpoint_url or settings.endpoint_url,
        region=region or settings.region,
        profile=profile or settings.profile,
        ca_bundle=ca_bundle or settings.ca_bundle,
    )


def put_options(storage_class: str | None, sse: str | None, key: str | None, acl: str | None) -> PutOptions:
    from regstore.storage.base import PutOptions

    return PutOptions(storage_class=storage_class, sse=sse, sse_kms_key_id=key, acl=acl)
