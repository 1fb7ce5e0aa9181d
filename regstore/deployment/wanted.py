"""What a deployment is asked to be, and what a file of it is. Pure.

The folder (DIR) of a deployment, as it stands on its host:

    deployment.json           the `Deployment`, and the hash of each file as it was written
    config.yml                the registry's
    auth/htpasswd             users and their bcrypt hashes: 0600
    tls/server.crt, .key      what the registry shows, with its chain; the key is 0600
    tls/ca.crt                whom clients must trust, where that is the deployment's own authority
    tls/store-ca.crt          whom the store's own certificate is trusted by, where it is not a public authority
    authority/ca.key          the key of the deployment's own authority, needed to renew only: 0600
    secrets/registry.env      NAME=value of what the registry must have and nobody may see: 0600
    secrets/regstore.env      the same for regstore's own jobs: 0600
    ...                       what the deployment's form adds

What runs needs config.yml, auth/ and tls/, read-only. A container must have the two as whole folders: files are
replaced, not written over, and of a file that was mounted alone it would keep the old one.

A `Deployment` holds no secret, so any file that is made of it may be read by all; what is secret is in the files named
here, which the others refer to.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import time
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any, Final

from regstore.errors import InputError
from regstore.hosts import bracketed

CONFIG: Final = "config.yml"
AUTH_FOLDER: Final = "auth"
HTPASSWD: Final = "auth/htpasswd"
RECORD: Final = "deployment.json"
TLS_FOLDER: Final = "tls"
CA_CERT: Final = "tls/ca.crt"
SERVER_CERT: Final = "tls/server.crt"
SERVER_KEY: Final = "tls/server.key"
STORE_CA: Final = "tls/store-ca.crt"
CA_KEY: Final = "authority/ca.key"
SECRETS_FOLDER: Final = "secrets"
#: REGISTRY_HTTP_SECRET; REGISTRY_STORAGE_S3_ACCESSKEY and _SECRETKEY, unless a role gives them; the password of Redis.
REGISTRY_ENV: Final = "secrets/registry.env"
#: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, unless a role gives them; the password of Redis.
REGSTORE_ENV: Final = "secrets/regstore.env"

#: Where a container has the files of DIR, and the store where that is a folder.
CONTAINER_FOLDER: Final = PurePosixPath("/etc/registry")
CONTAINER_STORE: Final = PurePosixPath("/var/lib/registry")
#: Debian's, and where pip puts ours.
REGISTRY_PROGRAM: Final = "/usr/bin/docker-registry"
REGSTORE_PROGRAM: Final = "/usr/local/bin/regstore"

READABLE: Final = 0o644
PRIVATE: Final = 0o600

#: RFC 1123, and what a resolver takes: at least one letter in the last label, or it would be a number.
_LABEL: Final = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*(?=[a-z0-9-]*[a-z]){_LABEL}")
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}|\d{1,10}")
_REDIS: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")


class Form(StrEnum):
    COMPOSE = "compose"
    SYSTEMD = "systemd"
    KUBERNETES = "kubernetes"


class Tls(StrEnum):
    OWN_CA = "own-ca"  # an authority in DIR signs the server's certificate
    FILES = "files"  # given, and copied to SERVER_CERT and SERVER_KEY
    NONE = "none"  # whatever stands before the registry ends TLS: it listens on loopback only


class RegistryVersion(StrEnum):
    V2 = "v2"  # Distribution 2.8
    V3 = "v3"  # Distribution 3.x


class Cache(StrEnum):
    """The registry's cache of blob descriptors. With one, a registry may believe in a blob that gc took away."""

    NONE = "none"
    MEMORY = "memory"  # of each process: gone with a restart
    REDIS = "redis"


class Kind(StrEnum):
    GENERATED = "generated"  # follows from the Deployment: written again when that changes
    SECRET = "secret"  # made once, and kept: a key, a password, a credential
    CERTIFICATE = "certificate"  # in use by clients: replaced only with consent, or to renew
    USERS = "users"  # kept; a line is added or taken away


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedFile:
    """path: relative to DIR, with slashes. content: of a SECRET only used where the file is not there yet."""

    path: str
    content: bytes = field(repr=False)
    mode: int = READABLE
    kind: Kind = Kind.GENERATED

    def __post_init__(self) -> None:
        if not is_within(self.path):
            raise ValueError(f"{self.path!r} is not within the deployment's folder")
        if self.kind in (Kind.SECRET, Kind.USERS) and self.mode != PRIVATE:
            raise ValueError(f"{self.path} must be private")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """host: what clients call the registry: a DNS name in lower case or an IP address, without brackets. names: more of
    these, which its certificate has, too. port: of the registry, for clients and on its host. debug_port: of its health
    and metrics, on loopback only (of its container, where it is in one).

    store: its URL. storage: the driver's part of the registry's `storage` section, as seeding gives it: one key, "s3"
    or "filesystem". store_ca: STORE_CA is there. cache, redis: `host:port` of Redis; its password is a secret.

    serve_port: of `regstore serve`, when with_serve. backup: where `regstore backup` writes to: a URL of a bucket, or
    a folder of the host; None for no backups. nightly: local time at which backup, gc and verify run, in this order:
    one job, for two would meet at the store's lock.

    folder: DIR as its host has it, absolute. user: the host's user that all runs as and that owns DIR, by name or
    number. registry_program, regstore_program: absolute paths on the host (systemd). registry_image, regstore_image: of
    containers.
    """

    host: str
    names: tuple[str, ...] = ()
    port: int = 5000
    debug_port: int = 5001
    store: str
    storage: Mapping[str, Any]
    store_ca: bool = False
    form: Form = Form.SYSTEMD
    tls: Tls = Tls.OWN_CA
    registry: RegistryVersion = RegistryVersion.V2
    cache: Cache = Cache.NONE
    redis: str = ""
    with_serve: bool = False
    serve_port: int = 5002
    backup: str | None = None
    nightly: time = time(2, 30)
    folder: PurePosixPath
    user: str = "root"
    registry_program: str = REGISTRY_PROGRAM
    regstore_program: str = REGSTORE_PROGRAM
    registry_image: str = ""
    regstore_image: str = ""

    def __post_init__(self) -> None:
        for host in (self.host, *self.names):
            if host != parse_host(host):
                raise InputError(f"{host!r} is not written as it is used: {parse_host(host)}")
        for port in (self.port, self.debug_port, self.serve_port):
            if not 1 <= port <= 65535:
                raise InputError(f"{port} is no port: 1 to 65535")
        taken = [self.debug_port, self.port, *([self.serve_port] if self.with_serve else [])]
        if len(set(taken)) < len(taken):
            raise InputError(
                f"two things can't listen on one port: {', '.join(map(str, taken))} (debug, registry, serve)"
            )
        if (self.cache is Cache.REDIS) != bool(self.redis):
            raise InputError("a cache in Redis needs the address of Redis, and no other cache has one")
        if self.redis and not _REDIS.fullmatch(self.redis):  # not shown: a URL has the password in it
            raise InputError(
                "the address of Redis is HOST:PORT, such as cache.example.org:6379; its password is apart"
            )
        if not self.folder.is_absolute():
            raise InputError(f"the deployment's folder must be absolute, not {self.folder}")
        if not _USER.fullmatch(self.user):
            raise InputError(f"{self.user!r} is no name of a user")
        if len(self.storage) != 1:
            raise InputError(f"a registry has no driver for the store {self.store}")
        self._refuse_one_in_another()

    def _refuse_one_in_another(self) -> None:
        """A store is all of its folder, or of its prefix: what else lies there it would take for its own."""
        if self.on_disk:
            root = PurePosixPath(self.storage[self.driver]["rootdirectory"])
            if self.folder.is_relative_to(root):
                raise InputError(f"the deployment's folder {self.folder} lies in the store {root}: use another one")
        if self.backup is not None:
            store, backup = (_as_folder(place) for place in (self.store, self.backup))
            if store.is_relative_to(backup) or backup.is_relative_to(store):
                raise InputError(
                    f"the backup {self.backup} and the store {self.store} lie in one another: use another place"
                )
            if self.folder.is_relative_to(backup):
                raise InputError(f"the deployment's folder lies in the backup {self.backup}: use another place")

    @property
    def driver(self) -> str:
        return next(iter(self.storage))

    @property
    def on_disk(self) -> bool:
        return self.driver == "filesystem"

    @property
    def in_containers(self) -> bool:
        return self.form is not Form.SYSTEMD

    @property
    def all_names(self) -> tuple[str, ...]:
        """host and names, each once."""
        return tuple(dict.fromkeys((self.host, *self.names)))

    @property
    def address(self) -> str:
        """`host:port` as it stands in a reference and a URL: an IPv6 address is in brackets."""
        return f"{bracketed(self.host)}:{self.port}"

    @property
    def url(self) -> str:
        """Of the registry, for clients. Without TLS of its own: where whatever stands before it listens."""
        return f"http://{self.address}" if self.tls is Tls.NONE else f"https://{self.address}"

    @property
    def bind(self) -> str:
        """The address of the host to listen at, "" for all: what can't be read on the way must not be sent in clear."""
        return "127.0.0.1" if self.tls is Tls.NONE else ""

    def seen(self, path: str) -> str:
        """Where what runs has a file of DIR."""
        return str((CONTAINER_FOLDER if self.in_containers else self.folder) / path)

    @property
    def seen_storage(self) -> dict[str, Any]:
        """`storage`, as what runs sees it."""
        if self.on_disk and self.in_containers:
            return {self.driver: {**self.storage[self.driver], "rootdirectory": str(CONTAINER_STORE)}}
        return dict(self.storage)

    @property
    def seen_store(self) -> str:
        """`store`, as what runs sees it: for regstore's own command lines."""
        return str(CONTAINER_STORE) if self.on_disk and self.in_containers else self.store


def is_within(path: str) -> bool:
    """Whether a path is that of something in DIR."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts


def parse_host(text: str) -> str:
    """A DNS name or an IP address, in its one form: lower case, no brackets, no dot at the end, IDNA. InputError."""
    word = text.strip()
    bare = word[1:-1] if word.startswith("[") and word.endswith("]") else word
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        pass
    else:
        if getattr(address, "scope_id", None):
            raise InputError(f"{text!r} names an interface, which no certificate can: give the address without it")
        if address.is_unspecified or address.is_multicast:
            raise InputError(f"{text!r} is no address of one computer")
        return str(address)
    if "/" in word or ":" in word:
        raise InputError(f"{text!r} is not a host's name or address alone: no https://, and the port is --port")
    try:
        name = word.removesuffix(".").encode("idna").decode().lower()
    except UnicodeError:
        name = ""
    if not _NAME.fullmatch(name):
        raise InputError(f"{text!r} is neither the name of a host, such as registry.example.org, nor an IP address")
    return name


def _as_folder(place: str) -> PurePosixPath:
    """A store's URL, to be compared with others."""
    return PurePosixPath(place.removeprefix("file://").replace("://", ":/"))
