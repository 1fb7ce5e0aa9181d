"""A store's objects by key, wherever they lie: a disk, a bucket, memory.

    from regstore.storage import open_storage

    async with open_storage("/srv/registry") as storage:
        async for page in storage.list("docker/registry/v2/blobs/"):
            print(len(page.keys), "keys, of", sum(page.sizes), "bytes")

open_storage takes `s3://bucket[/rootdirectory]`, a folder, `file:///folder` or `memory://name` (DiskLocation and
S3Location are what `parse_location` makes of the text), with OpenOptions; open_registry_config and read_registry_config
take a registry's own configuration (RegistryConfig) instead.

What they give is a Storage: its contract is in `regstore.storage.base`. It deals in Page, ObjectInfo, ReadHandle,
PutOptions, MultipartUpload, Capabilities and Counters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from regstore.lazy import lazily

if TYPE_CHECKING:
    from regstore.storage.backends import OpenOptions, parse_location
    from regstore.storage.base import (
        Capabilities,
        Counters,
        MultipartUpload,
        ObjectInfo,
        Page,
        PutOptions,
        ReadHandle,
        Storage,
    )
    from regstore.storage.location import DiskLocation, S3Location
    from regstore.storage.opening import open_registry_config, open_storage, read_registry_config
    from regstore.storage.registry_config import RegistryConfig
else:
    __getattr__, __dir__ = lazily(__name__)

__all__ = [
    "Capabilities",
    "Counters",
    "DiskLocation",
    "MultipartUpload",
    "ObjectInfo",
    "OpenOptions",
    "Page",
    "PutOptions",
    "ReadHandle",
    "RegistryConfig",
    "S3Location",
    "Storage",
    "open_registry_config",
    "open_storage",
    "parse_location",
    "read_registry_config",
]
