"""The backends, by the scheme of their URLs. One more is a folder beside these, a line here, and a subclass of the
conformance suite."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from regstore.errors import InputError
from regstore.events import OnEvent, ignore
from regstore.storage.base import PutOptions, Storage
from regstore.storage.location import (
    EXPECTED,
    DiskLocation,
    Location,
    S3Location,
    parse_file,
    parse_s3,
)
from regstore.storage.registry_config import S3Access

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
#: More threads than this only wait for the same disk.
_MOST_THREADS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenOptions:
    """None leaves a thing to the registry's configuration, where there is one, and then to the AWS environment.

    ca_bundle: path of a PEM file to trust. access_key, secret_key and session_token: to sign with, instead of what a
    configuration, a profile or the environment has. concurrency: requests (files, on a disk) at once.
    create: make the root folder of a disk if it is missing; of no meaning for S3. read_only: for who only looks: every
    change is refused, `capabilities` tries nothing, and a disk's `now` is this computer's clock.
    on_event: told of each request to S3 that is tried again (`Retry`), which may say why nothing happens,
    and of a clock that is in doubt (`Notice`).
    """

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    path_style: bool | None = None
    ca_bundle: str | os.PathLike[str] | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    concurrency: int | None = None
    create: bool = False
    read_only: bool = False
    on_event: OnEvent = ignore

    def __post_init__(self) -> None:
        if self.concurrency is not None and self.concurrency < 1:
            raise InputError(f"concurrency must be at least 1, not {self.concurrency}")


@dataclass(frozen=True, slots=True)
class Backend:
    """parse: a URL of the scheme as a location, or None where it is none. open: a storage there, from the location, the
    options, how a registry's configuration reaches it, and how what is put without options of its own is stored."""

    parse: Callable[[str], Location | None]
    open: Callable[[Any, OpenOptions, S3Access | None, PutOptions | None], Storage]


def _open_disk(
    location: DiskLocation, options: OpenOptions, access: S3Access | None, put: PutOptions | None
) -> Storage:
    from regstore.storage.disk import DiskStorage

    threads = min(options.concurrency or _MOST_THREADS, _MOST_THREADS)
    return DiskStorage(location.root, create=options.create, read_only=options.read_only, concurrency=threads)


def _open_s3(
    location: S3Location, options: OpenOptions, access: S3Access | None, put: PutOptions | None
) -> Storage:
    from regstore.storage.s3 import S3Settings, S3Storage

    access = access or S3Access()
    defaults = S3Settings(bucket=location.bucket)
    keys: OpenOptions | S3Access = options
    if options.access_key is None and options.profile is None:
        # A profile that is asked for is meant to be used, whatever keys the registry has.
        keys = access
    settings = S3Settings(
        bucket=location.bucket,
        root=location.root,
        endpoint_url=options.endpoint_url or access.endpoint_url,
        region=options.region or access.region,
        profile=options.profile,
        path_style=options.path_style if options.path_style is not None else access.path_style,
        ca_bundle=os.fspath(options.ca_bundle) if options.ca_bundle is not None else None,
        access_key=keys.access_key,
        secret_key=keys.secret_key,
        session_token=keys.session_token,
        verify_tls=access.verify_tls,
        concurrency=options.concurrency or defaults.concurrency,
        put=put or PutOptions(),
        read_only=options.read_only,
        on_event=options.on_event,
    )
    return S3Storage(settings)


def _parse_memory(text: str) -> Location | None:
    from regstore.storage.memory import parse_memory

    return parse_memory(text)


def _open_memory(location: Any, options: OpenOptions, access: S3Access | None, put: PutOptions | None) -> Storage:
    from regstore.storage.memory import open_memory

    return open_memory(location, options, access, put)


#: What is heavy of a backend is loaded when a store of its is opened. Who has a backend of their own adds it.
BACKENDS: Final[dict[str, Backend]] = {
    "s3": Backend(parse_s3, _open_s3),
    "file": Backend(parse_file, _open_disk),
    "memory": Backend(_parse_memory, _open_memory),
}


def parse_location(text: str) -> Location:
    """InputError where the text is neither a path nor a URL of a backend. Looks at nothing but the text."""
    if not text.strip():
        raise InputError(f"no store is named; expected {EXPECTED}")
    if "\0" in text:
        raise InputError(f"{text!r} has a NUL in it; expected {EXPECTED}")
    scheme = _SCHEME.match(text)
    name = scheme[1].lower() if scheme else ""
    if scheme and name not in BACKENDS and "@" in text[scheme.end() :].lstrip("/").partition("/")[0]:
        # Not echoed: what stands before the @ may be a secret.
        raise InputError(f"a {name} URL is no location that regstore knows; expected {EXPECTED}")
    if name in BACKENDS and (location := BACKENDS[name].parse(text)) is not None:
        return location
    is_url = scheme is not None and text[scheme.end() :].startswith("/")
    if is_url or text.lower().startswith(tuple(f"{known}:" for known in BACKENDS)):
        raise InputError(f"{text!r} is no location that regstore knows; expected {EXPECTED}")
    return DiskLocation(Path(text))


def open_location(
    location: Location,
    options: OpenOptions | None = None,
    access: S3Access | None = None,
    put: PutOptions | None = None,
) -> Storage:
    """`access`: what a registry's configuration says about reaching the bucket; the options come before it. `put`:
    how what is put without options of its own is stored in a bucket."""
    return BACKENDS[location.scheme].open(location, options or OpenOptions(), access, put)
