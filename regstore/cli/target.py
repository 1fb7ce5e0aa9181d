"""The second place of a command that has one: where it is, and how what goes there is stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from regstore.cli.settings import StoreSettings

if TYPE_CHECKING:
    from regstore.storage.base import PutOptions


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
