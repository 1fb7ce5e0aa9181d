"""The files of NAME=value that hold what is secret: one for the registry, one for regstore's jobs.

A line is written once and then the operator's: what is there stays, what lacks is added. systemd, compose and
Kubernetes read such files each in a way of its own, and the registry reads a value once more as YAML; so a value is
refused that they would not all understand alike.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from regstore.deployment.config_yml import redis_password_variable
from regstore.deployment.wanted import (
    PRIVATE,
    REGISTRY_ENV,
    REGSTORE_ENV,
    Cache,
    Deployment,
    Kind,
    RegistryVersion,
    WantedFile,
)
from regstore.errors import InputError
from regstore.storage.registry_yaml import GO_READS_OTHERWISE

#: What each file calls the access key of the store.
ACCESS_KEYS: Final = {REGISTRY_ENV: "REGISTRY_STORAGE_S3_ACCESSKEY", REGSTORE_ENV: "AWS_ACCESS_KEY_ID"}
HTTP_SECRET: Final = "REGISTRY_HTTP_SECRET"
#: Printable ASCII without space, quotes, backslash, `$`, `#` and the backquote.
_ALIKE: Final = re.compile(r"[!%&()*+,\-./0-9:;<=>?@A-Z\[\]^_a-z{|}~]+")
_LINE: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")

_HEAD: Final = """\
# Secret: mode 0600. Made by `regstore init`, which adds lines that lack and changes none. {whose}
# NAME=value, no quotes, no spaces. What is changed here counts after a restart.
"""
_WHOSE: Final = {REGISTRY_ENV: "For the registry.", REGSTORE_ENV: "For regstore's own jobs."}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreKeys:
    """Lasting keys of S3."""

    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """registry, regstore: the keys of each; None where a role gives them, or where the store is a folder."""

    registry: StoreKeys | None = None
    regstore: StoreKeys | None = None
    redis_password: str | None = field(default=None, repr=False)


def files(deployment: Deployment, given: Secrets, standing: Mapping[str, bytes]) -> list[WantedFile]:
    """standing: what these files have now. InputError, which never shows a value, where one can't be written."""
    registry: dict[str, str] = {HTTP_SECRET: secrets.token_hex(32)}
    regstore: dict[str, str] = {}
    if given.registry is not None:
        registry[ACCESS_KEYS[REGISTRY_ENV]] = given.registry.access_key
        registry["REGISTRY_STORAGE_S3_SECRETKEY"] = given.registry.secret_key
    if given.regstore is not None:
        regstore[ACCESS_KEYS[REGSTORE_ENV]] = given.regstore.access_key
        regstore["AWS_SECRET_ACCESS_KEY"] = given.regstore.secret_key
    if deployment.cache is Cache.REDIS:
        password = given.redis_password or _redis_password(standing.get(REGISTRY_ENV, b""))
        if password is not None:
            registry[redis_password_variable(deployment.registry)] = password
            # As regstore reads it beside the registry's configuration.
            regstore[redis_password_variable(RegistryVersion.V2)] = password
    return [
        _file(REGISTRY_ENV, registry, standing.get(REGISTRY_ENV)),
        _file(REGSTORE_ENV, regstore, standing.get(REGSTORE_ENV)),
    ]


def overrides(content: bytes) -> list[str]:
    """Names of what the registry's file says about its storage that is no secret: regstore's jobs, which go by
    config.yml, do not see it. A cache that gc knows nothing of answers for blobs that gc took away."""
    secret = tuple(f"REGISTRY_STORAGE_S3_{name}" for name in ("ACCESSKEY", "SECRETKEY", "SESSIONTOKEN"))
    return sorted(name for name in variables(content) if name.startswith("REGISTRY_STORAGE") and name not in secret)


def variables(content: bytes) -> dict[str, str]:
    """What such a file says. Lines that say nothing are passed over."""
    found = (_LINE.fullmatch(line.strip()) for line in content.decode(errors="replace").splitlines())
    return {match[1]: match[2] for match in found if match is not None}


def _redis_password(content: bytes) -> str | None:
    """As the registry's file has it, under the name of either version."""
    known = variables(content)
    names = (redis_password_variable(version) for version in RegistryVersion)
    return next((known[name] for name in names if name in known), None)


def _file(path: str, needed: Mapping[str, str], standing: bytes | None) -> WantedFile:
    content = standing if standing is not None else _HEAD.format(whose=_WHOSE[path]).encode()
    known = variables(content)
    for name, value in needed.items():
        if name in known:
            continue
        _check(name, value)
        if content and not content.endswith(b"\n"):
            content += b"\n"
        content += f"{name}={value}\n".encode()
    return WantedFile(path=path, content=content, mode=PRIVATE, kind=Kind.USERS)


def _check(name: str, value: str) -> None:
    import yaml

    if not _ALIKE.fullmatch(value):
        raise InputError(
            f"the value of {name} has a space, a quote, one of \\ $ # ` or no ASCII in it, which systemd, compose and "
            "Kubernetes read each in another way: use another one"
        )
    if name == HTTP_SECRET:
        return
    try:
        read = yaml.safe_load(value)
    except yaml.YAMLError:
        read = None
    if read != value or GO_READS_OTHERWISE.fullmatch(value):
        raise InputError(
            f"the registry reads the value of {name} as YAML, and this one would be something else than its text (a "
            "number, a date, a list): use another one"
        )
