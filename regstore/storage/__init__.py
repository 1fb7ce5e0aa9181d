"""Storage backends: a disk and S3 behind one protocol (`base`), opened by `open_storage`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from regstore.storage.backends import parse_location
    from regstore.storage.location import DiskLocation, S3Location
    from regstore.storage.opening import OpenOptions, open_registry_config, open_storage, read_registry_config
    from regstore.storage.registry_config import RegistryConfig

_OPENING = {
    "DiskLocation",
    "OpenOptions",
    "RegistryConfig",
    "S3Location",
    "open_registry_config",
    "open_storage",
    "parse_location",
    "read_registry_config",
}

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


def __getattr__(name: str) -> Any:
    if name in _OPENING:  # reading YAML is not needed to speak of a Storage
        from regstore.storage import opening

        return getattr(opening, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
