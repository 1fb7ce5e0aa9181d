"""What is asked for, made of the command line, of what was asked before, and of answers on a terminal."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from regstore.cli.init.asking import Terminal
from regstore.cli.init.options import Asked, InitStore
from regstore.cli.settings import StoreSettings
from regstore.deployment.wanted import (
    REGISTRY_PROGRAM,
    REGSTORE_ENV,
    REGSTORE_PROGRAM,
    STORE_CA,
    Cache,
    Deployment,
    Form,
    parse_host,
)
from regstore.errors import InputError

if TYPE_CHECKING:
    from regstore.deployment.environment_files import StoreKeys
    from regstore.deployment.record import Record
    from regstore.storage.base import PutOptions, Storage
    from regstore.storage.registry_config import S3Access

_NO_BACKUP: Final = "none"
#: What is recorded as the command line says it.
_PLAIN: Final = (
    "port",
    "debug_port",
    "tls",
    "registry",
    "cache",
    "redis",
    "with_serve",
    "serve_port",
    "registry_program",
    "registry_image",
    "regstore_image",
)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """open: a storage on the store, each time. put: how the registry is to store its objects. keys: of the store, where
    a registry's configuration, or regstore.toml, said them. store_ca: what is to be trusted of the store, where that
    is not the system's business."""

    deployment: Deployment
    open: Callable[[], Storage]
    profile: str | None
    put: PutOptions | None
    keys: StoreKeys | None
    store_ca: bytes | None


def choose(
    folder: Path, store: InitStore, asked: Asked, put: PutOptions, before: Record | None, terminal: Terminal
) -> Chosen:
    """InputError where something is missing that nobody can be asked for, or is not as it can be."""
    known = before.deployment if before is not None else None
    host = known.host if known is not None else ""
    if asked.host is not None or not host:
        host = _needed(asked.host, "--host", "What do clients call the registry", parse_host, terminal, _own_name())
    said = store.store
    if said is None and store.registry_config is None and known is None:
        said = _needed(
            None, "--store", "Where are its images to be (s3://bucket[/path] or a folder)", str, terminal
        )
    settings: StoreSettings = replace(store, store=said)
    if said is not None:
        settings = settings.placed()
    own = recorded_keys(folder, settings) if known is not None else {}
    storage, put_found, access = open_store(folder, settings, known, put, keys=own)
    changes = _changes(asked, known, terminal)
    section = _driver_section(storage, put_found)
    ca = _store_ca(folder, settings, known) if _has_tls(section) else None
    names = tuple(map(parse_host, asked.name)) if asked.name is not None else known.names if known else ()
    fixed: dict[str, Any] = {
        "host": host,
        "names": names,
        "store": storage.url,
        "storage": section,
        "store_ca": ca is not None,
        "folder": PurePosixPath(folder),
    }
    if known is not None:
        deployment = replace(known, **fixed, **changes)
    else:
        fixed["regstore_program"] = _regstore_program()
        deployment = Deployment(
            **{"user": _own_user(), "registry_program": _registry_program(), **fixed, **changes}
        )
    deployment = replace(deployment, user=_user_of(deployment))
    return Chosen(
        deployment=deployment,
        open=lambda: open_store(folder, settings, known, put, keys=own)[0],
        profile=settings.profile,
        put=put_found,
        keys=_keys_said(settings, access),
        store_ca=ca,
    )


def _changes(asked: Asked, known: Deployment | None, terminal: Terminal) -> dict[str, Any]:
    """Of what is not about names and the store: what the command line says, else on a first run the answers."""
    found = {name: getattr(asked, name) for name in _PLAIN if getattr(asked, name) is not None}
    if asked.cache is not None and asked.cache is not Cache.REDIS:
        found["redis"] = ""
    if asked.run_as is not None:
        found["user"] = asked.run_as
    if asked.nightly is not None:
        found["nightly"] = parse_nightly(asked.nightly)
    if asked.form is not None:
        found["form"] = asked.form
    elif known is None and terminal.asks:
        found["form"] = terminal.ask(f"What is to run it ({', '.join(Form)})", _form, default=Form.SYSTEMD)
    if asked.backup is not None:
        found["backup"] = _backup(asked.backup)
    elif known is None and terminal.asks:
        question = "Where are backups to go every night (s3://bucket[/path], a folder, or none)"
        found["backup"] = terminal.ask(question, _backup, default=_NO_BACKUP)
    return found


def whole_path(path: Path) -> Path:
    """Absolute, and without `..`; a symbolic link stays the name that people gave it."""
    return Path(os.path.normpath(path.absolute()))


def parse_nightly(text: str) -> time:
    try:
        hour, minute = map(int, text.split(":"))
        return time(hour, minute)
    except ValueError as error:
        raise InputError(f"{text!r} is no time of a day, such as 02:30") from error


def _needed(
    said: str | None, option: str, question: str, parse: Callable[[str], str], terminal: Terminal, default: str = ""
) -> str:
    if said is not None:
        return parse(said)
    if not terminal.asks:
        raise InputError(f"{option} is missing, and there is nobody to ask: give it")

    def answered(text: str) -> str:
        if not text:
            raise InputError("this is needed")
        return parse(text)

    return terminal.ask(question, answered, default=default)


def _form(text: str) -> Form:
    try:
        return Form(text.lower())
    except ValueError as error:
        raise InputError(f"{text!r} is none of {', '.join(Form)}") from error


def _backup(text: str) -> str | None:
    from regstore.storage.opening import DiskLocation, parse_location

    if text == _NO_BACKUP:
        return None
    location = parse_location(text)
    return str(whole_path(location.root) if isinstance(location, DiskLocation) else location)


def open_store(
    folder: Path,
    store: StoreSettings,
    known: Deployment | None,
    put: PutOptions,
    *,
    keys: Mapping[str, str] | None = None,
    read_only: bool = False,
) -> tuple[Storage, PutOptions | None, S3Access | None]:
    """The store as said; one that was recorded, as it was recorded, but for what is said otherwise. keys: of a recorded
    one, as variables of the registry's environment."""
    from regstore.storage.backends import OpenOptions, open_location
    from regstore.storage.opening import DiskLocation, parse_location
    from regstore.storage.registry_config import parse_registry_config

    if store.registry_config is not None:
        storage, config = store.open_with_config()
        assert config is not None
        return storage, put.over(config.put), config.s3
    ca = store.ca_bundle
    if ca is None and known is not None and known.store_ca:
        ca = folder / STORE_CA
    options = OpenOptions(
        endpoint_url=store.endpoint_url,
        region=store.region,
        profile=store.profile,
        path_style=store.path_style,
        ca_bundle=ca,
        concurrency=store.concurrency,
        read_only=read_only,
        **store.keys_to_sign(),
    )
    location = parse_location(store.store) if store.store is not None else None
    if isinstance(location, DiskLocation):
        location = DiskLocation(whole_path(location.root))
    if known is None or (location is not None and known.driver != _driver_of(location.scheme)):
        assert location is not None
        return open_location(location, options), put, None
    import yaml

    recorded = yaml.safe_dump({"version": 0.1, "storage": dict(known.storage)}).encode()
    config = parse_registry_config(recorded, keys or {}, where="what was recorded")
    chosen = put.over(config.put)
    return open_location(location or config.location, options, config.s3, chosen), chosen, None


def recorded_keys(folder: Path, store: StoreSettings) -> dict[str, str]:
    """Those of regstore's own jobs, as variables of the registry's environment: none where the command line or the
    environment has some."""
    from regstore.deployment import applying
    from regstore.deployment.environment_files import variables

    if store.profile is not None or "AWS_ACCESS_KEY_ID" in os.environ or "AWS_PROFILE" in os.environ:
        return {}
    standing = applying.read_standing(folder, [REGSTORE_ENV])
    known = variables(standing[REGSTORE_ENV].content) if standing else {}
    names = {"AWS_ACCESS_KEY_ID": "ACCESSKEY", "AWS_SECRET_ACCESS_KEY": "SECRETKEY"}
    return {f"REGISTRY_STORAGE_S3_{names[name]}": known[name] for name in names if name in known}


def _keys_said(settings: StoreSettings, access: S3Access | None) -> StoreKeys | None:
    from regstore.deployment.environment_files import StoreKeys

    said = settings.keys_to_sign()
    access_key = said.get("access_key") or (access.access_key if access is not None else None)
    secret_key = said.get("secret_key") or (access.secret_key if access is not None else None)
    if said.get("session_token") or not (access_key and secret_key):
        return None
    return StoreKeys(access_key=access_key, secret_key=secret_key)


def _driver_of(scheme: str) -> str:
    return {"file": "filesystem"}.get(scheme, scheme)


def _driver_section(storage: Storage, put: PutOptions | None) -> dict[str, Any]:
    from regstore.seed.configuration import registry_configuration

    section = dict(registry_configuration(storage, put).get("storage", {}))
    section.pop("delete", None)
    return {name: dict(parameters) for name, parameters in section.items()}


def _has_tls(section: Mapping[str, Mapping[str, Any]]) -> bool:
    return "s3" in section and not str(section["s3"].get("regionendpoint", "")).startswith("http://")


def _store_ca(folder: Path, store: StoreSettings, known: Deployment | None) -> bytes | None:
    said = store.ca_bundle or os.environ.get("AWS_CA_BUNDLE")
    if said is None and known is not None and known.store_ca:
        said = folder / STORE_CA
    if said is None:
        return None
    try:
        return Path(said).read_bytes()
    except OSError as error:
        raise InputError(f"the CA bundle {said} can't be read: {(error.strerror or str(error)).lower()}") from error


def _own_user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # in a container
        return str(os.geteuid())


def _user_of(deployment: Deployment) -> str:
    """Containers know users by number."""
    name = deployment.user
    if not deployment.in_containers or name.isdigit():
        return name
    try:
        return str(pwd.getpwnam(name).pw_uid)
    except KeyError as error:
        raise InputError(f"there is no user {name} on this computer: say the number with --run-as") from error


def _own_name() -> str:
    """A guess for the question; what clients call it is for people to say."""
    name = socket.getfqdn()
    try:
        return parse_host(name)
    except InputError:
        return ""


def _registry_program() -> str:
    return shutil.which("docker-registry") or shutil.which("registry") or REGISTRY_PROGRAM


def _regstore_program() -> str:
    """That which runs now, where it is one; else beside the Python that runs it, or on the PATH."""
    for path in (Path(sys.argv[0]).absolute(), Path(sys.executable).with_name("regstore")):
        if path.name == "regstore" and os.access(path, os.X_OK):
            return str(path)
    return shutil.which("regstore") or REGSTORE_PROGRAM
