"""Opening a storage: from a location, or from a registry's own configuration.

Nothing is read or asked here but the configuration file: a store that is missing shows at the first operation.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from regstore.errors import InputError
from regstore.events import OnEvent, ignore
from regstore.storage.base import PutOptions, Storage
from regstore.storage.location import DiskLocation, Location, S3Location, parse_location
from regstore.storage.registry_config import RegistryConfig, S3Access, parse_registry_config

__all__ = [
    "DiskLocation",
    "OpenOptions",
    "RegistryConfig",
    "S3Location",
    "open_registry_config",
    "open_storage",
    "parse_location",
    "read_registry_config",
]

#: More threads than this only wait for the same disk.
_MOST_THREADS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenOptions:
    """None leaves a thing to the registry's configuration, where there is one, and then to the AWS environment.

    ca_bundle: path of a PEM file to trust. concurrency: requests (files, on a disk) at once.
    create: make the root folder of a disk if it is missing; of no meaning for S3. read_only: for who only looks: every
    change is refused, `capabilities` tries nothing, and a disk's `now` is this computer's clock.
    on_event: told of each request to S3 that is tried again (`Retry`), which may say why nothing happens.
    """

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    path_style: bool | None = None
    ca_bundle: str | os.PathLike[str] | None = None
    concurrency: int | None = None
    create: bool = False
    read_only: bool = False
    on_event: OnEvent = ignore

    def __post_init__(self) -> None:
        if self.concurrency is not None and self.concurrency < 1:
            raise InputError(f"concurrency must be at least 1, not {self.concurrency}")


def open_storage(text: str | os.PathLike[str], options: OpenOptions = OpenOptions()) -> Storage:
    """The storage at `s3://bucket[/rootdirectory]`, a path or `file:///path`; close it, or use it as an async
    context manager. InputError where the text is none of these. A PathLike is always a path."""
    location = parse_location(text) if isinstance(text, str) else DiskLocation(Path(os.fspath(text)))
    return open_location(location, options)


def open_location(
    location: Location,
    options: OpenOptions = OpenOptions(),
    access: S3Access | None = None,
    put: PutOptions | None = None,
) -> Storage:
    """`access`: what a registry's configuration says about reaching the bucket; the options come before it. `put`:
    how what is put without options of its own is stored in a bucket."""
    if isinstance(location, DiskLocation):
        from regstore.storage.disk import DiskStorage

        threads = min(options.concurrency or _MOST_THREADS, _MOST_THREADS)
        return DiskStorage(location.root, create=options.create, read_only=options.read_only, concurrency=threads)
    from regstore.storage.s3 import S3Settings, S3Storage

    access = access or S3Access()
    defaults = S3Settings(bucket=location.bucket)
    # A profile that is asked for is meant to be used, whatever keys the registry has.
    with_keys = options.profile is None
    settings = S3Settings(
        bucket=location.bucket,
        root=location.root,
        endpoint_url=options.endpoint_url or access.endpoint_url,
        region=options.region or access.region,
        profile=options.profile,
        path_style=options.path_style if options.path_style is not None else access.path_style,
        ca_bundle=os.fspath(options.ca_bundle) if options.ca_bundle is not None else None,
        access_key=access.access_key if with_keys else None,
        secret_key=access.secret_key if with_keys else None,
        session_token=access.session_token if with_keys else None,
        verify_tls=access.verify_tls,
        concurrency=options.concurrency or defaults.concurrency,
        put=put or PutOptions(),
        read_only=options.read_only,
        on_event=options.on_event,
    )
    return S3Storage(settings)


def read_registry_config(path: str | os.PathLike[str], environ: Mapping[str, str]) -> RegistryConfig:
    """A registry's config.yml with the `REGISTRY_*` overrides of `environ`. InputError where it can't be used."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot read the registry's configuration {os.fspath(path)}: {reason}") from error
    return parse_registry_config(text, environ, where=os.fspath(path))


def open_registry_config(
    path: str | os.PathLike[str], environ: Mapping[str, str], options: OpenOptions = OpenOptions()
) -> tuple[Storage, RegistryConfig]:
    """The storage that a registry's configuration names, which stores things as the registry does, and what else the
    configuration says that matters here."""
    config = read_registry_config(path, environ)
    return open_location(config.location, options, config.s3, config.put), config
