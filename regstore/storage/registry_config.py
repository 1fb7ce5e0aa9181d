"""A registry's own configuration file, read for what it says about its storage, cache and mode.

Distribution's `version: 0.1` YAML with its `REGISTRY_*` overrides, as its `configuration/parser.go` applies them:
sorted by name, so that `REGISTRY_STORAGE` (which replaces the section) comes before
`REGISTRY_STORAGE_S3_BUCKET`; each value is YAML; each part of the name is a key in upper case.
GitLab's registry reads the same file, with a `database` section of its own and more names for its S3 drivers.
Pure: the text and the environment are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from regstore.errors import InputError
from regstore.storage.base import PutOptions
from regstore.storage.location import DiskLocation, S3Location, normalize_root

#: Where the filesystem driver keeps things when it is not told.
DEFAULT_ROOT: Final = "/var/lib/registry"

_PREFIX: Final = "REGISTRY_"
#: What lies in the storage section and is no driver.
_NOT_DRIVERS: Final = frozenset(("maintenance", "cache", "delete", "redirect", "tag"))
#: `s3_v2` and `s3_v1` are GitLab's, by the AWS SDK that they use. Of the options that are read here theirs differ in
#: one: `pathstyle`, where Distribution has `forcepathstyle` (registry/storage/driver/s3-aws/common of GitLab's).
_S3_DRIVERS: Final = frozenset(("s3", "s3aws", "s3goamz", "s3_v1", "s3_v2"))
_PATH_STYLE: Final = ("forcepathstyle", "pathstyle")
# As Go's strconv.ParseBool, which the driver uses for text.
_TRUE: Final = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE: Final = frozenset(("0", "f", "F", "FALSE", "false", "False"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """The registry's Redis: `redis.addr` in 2.x (one), `redis.addrs` in 3.x. Addresses are `host:port`.

    master_name: the sentinels' name of the master; the addresses are then the sentinels'.
    """

    addrs: tuple[str, ...]
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    master_name: str | None = None
    tls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Access:
    """How the registry reaches its bucket; None where its configuration leaves it open."""

    region: str | None = None
    endpoint_url: str | None = None
    path_style: bool | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    verify_tls: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryConfig:
    """What regstore needs to know of a registry.

    kind: "s3" or "filesystem". version: the configuration's own, usually "0.1".
    proxy_remote_url: set for a pull-through cache. read_only: `storage.maintenance.readonly.enabled`.
    cache: where blob descriptors are cached: "none", "inmemory", "redis", or "unknown" (named, but not known here).
    put: how the registry stores its objects; ours are stored alike.
    database: `database.enabled` of GitLab's registry, "true" or "prefer": new tags and manifests are in PostgreSQL.
    tags_in: who keeps tags elsewhere than in the store: "Harbor", "OpenShift", or "".
    """

    kind: str
    version: str
    location: DiskLocation | S3Location
    s3: S3Access | None = None
    put: PutOptions = field(default_factory=PutOptions)
    proxy_remote_url: str | None = None
    read_only: bool = False
    delete_enabled: bool = False
    cache: str = "none"
    redis: RedisSettings | None = None
    database: str = ""
    tags_in: str = ""


def parse_registry_config(
    text: str | bytes, environ: Mapping[str, str] | None = None, *, where: str = "the registry's configuration"
) -> RegistryConfig:
    """InputError where it is not such a configuration, or names storage that regstore does not know.

    environ: for the `REGISTRY_*` overrides. where: how messages name the text.
    """
    config = _load(text, where)
    if not isinstance(config, dict):
        raise InputError(f"{where} is not a registry's configuration: YAML with a storage section is expected")
    config = _with_lower_keys(config)
    for name, value in sorted((environ or {}).items()):
        path = name.removeprefix(_PREFIX).split("_")
        # Only these sections are read, and others hold lists and the like that need their own types.
        if name.startswith(_PREFIX) and _is_read(path) and all(path):
            _override(config, path, _load(value, f"the environment's {name}"), name)
    storage = config.get("storage")
    if isinstance(storage, str):
        storage = {storage: {}}
    if not isinstance(storage, dict):
        raise InputError(f"{where} has no storage section, so it does not say where the registry keeps its data")
    drivers = sorted(set(storage) - _NOT_DRIVERS)
    if not drivers:
        raise InputError(f"{where}: the storage section names no driver, such as s3 or filesystem")
    if len(drivers) > 1:
        raise InputError(
            f"{where}: the storage section and REGISTRY_STORAGE_* name several drivers ({', '.join(drivers)}), with "
            f"which no registry starts; leave one, or choose with REGISTRY_STORAGE=NAME"
        )
    driver = drivers[0]
    location, access, put = _location(driver, _section(storage, driver, where), where)
    proxy = _section(config, "proxy", where)
    maintenance = _section(storage, "maintenance", where)
    return RegistryConfig(
        kind="filesystem" if driver == "filesystem" else "s3",
        version=_text(config, "version") or "",
        location=location,
        s3=access,
        put=put,
        proxy_remote_url=_text(proxy, "remoteurl"),
        read_only=_flag(_section(maintenance, "readonly", where), "enabled", where),
        delete_enabled=_flag(_section(storage, "delete", where), "enabled", where),
        cache=_cache(_section(storage, "cache", where)),
        redis=_redis(_section(config, "redis", where), where),
        database=_database(_section(config, "database", where), where),
        tags_in=_tags_in(config),
    )


def _location(
    driver: str, parameters: Mapping[str, Any], where: str
) -> tuple[DiskLocation | S3Location, S3Access | None, PutOptions]:
    """Where the registry keeps its data, how it reaches that, and how it stores its objects."""
    if driver == "filesystem":
        root = Path(_text(parameters, "rootdirectory") or DEFAULT_ROOT)
        if not root.is_absolute():
            raise InputError(f"{where}: storage.filesystem.rootdirectory {str(root)!r} must be an absolute path")
        return DiskLocation(root), None, PutOptions()
    if driver in _S3_DRIVERS:
        bucket = _text(parameters, "bucket")
        if not bucket:
            raise InputError(f"{where}: storage.{driver} has no bucket (REGISTRY_STORAGE_S3_BUCKET sets it too)")
        location = S3Location(bucket, normalize_root(_text(parameters, "rootdirectory") or ""))
        return location, _s3_access(parameters, where), _put_options(parameters, where)
    raise InputError(
        f"{where}: the registry's storage is {driver!r}; regstore works on s3 and filesystem storage only"
    )


def _is_read(path: list[str]) -> bool:
    return path[0] in ("STORAGE", "REDIS", "PROXY") or path in (["DATABASE"], ["DATABASE", "ENABLED"])


def _load(text: str | bytes, where: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f" at line {mark.line + 1}" if mark is not None else ""
        raise InputError(f"{where} is not valid YAML{at}") from error


def _with_lower_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key).lower(): _with_lower_keys(below) for key, below in value.items()}
    return value


def _override(section: dict[str, Any], path: list[str], value: Any, name: str) -> None:
    key = path[0].lower()
    if len(path) == 1:
        section[key] = _with_lower_keys(value)
        return
    below = section.get(key)
    if isinstance(below, list):
        index = int(path[1]) if path[1].isdecimal() else -1
        if len(path) != 2 or not 0 <= index <= len(below):
            raise InputError(f"the environment's {name} does not name an entry of the configuration's list")
        below[index : index + 1] = [value]
        return
    if isinstance(below, str) and section.keys() >= {key} and path[0] == "STORAGE":
        below = section[key] = {below: {}}
    if not isinstance(below, dict):
        if len(path) == 2 and path[1] == "0":
            section[key] = [value]
            return
        below = section[key] = {}
    _override(below, path[1:], value, name)


def _section(parent: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    section = parent.get(name)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise InputError(f"{where}: {name} must be a section of settings, not a {type(section).__name__}")
    return section


def _text(section: Mapping[str, Any], name: str) -> str | None:
    """A setting as text, as the registry's own `fmt.Sprint` makes it; None when absent or empty."""
    value = section.get(name)
    if value is None or isinstance(value, dict | list):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) or None


def _flag(section: Mapping[str, Any], name: str, where: str, default: bool = False) -> bool:
    value = section.get(name)
    if value is None or value == "":
        return default
    if isinstance(value, bool):
        return value
    if str(value) in _TRUE:
        return True
    if str(value) in _FALSE:
        return False
    raise InputError(f"{where}: {name} must be true or false, not {value!r}")


def _s3_access(parameters: Mapping[str, Any], where: str) -> S3Access:
    endpoint = _text(parameters, "regionendpoint")
    if endpoint and "://" not in endpoint:
        secure = _flag(parameters, "secure", where, True)
        endpoint = f"{'https' if secure else 'http'}://{endpoint}"
    access_key, secret_key = _text(parameters, "accesskey"), _text(parameters, "secretkey")
    known = bool(access_key and secret_key)  # with only one of them the registry looks elsewhere, too
    return S3Access(
        region=_text(parameters, "region"),
        endpoint_url=endpoint,
        # 2.x takes path style as the default with an endpoint, 3.x does not; unless it is said, S3Settings decides.
        path_style=next((_flag(parameters, name, where) for name in _PATH_STYLE if name in parameters), None),
        access_key=access_key if known else None,
        secret_key=secret_key if known else None,
        session_token=_text(parameters, "sessiontoken") if known else None,
        verify_tls=not _flag(parameters, "skipverify", where),
    )


def _put_options(parameters: Mapping[str, Any], where: str) -> PutOptions:
    storage_class = (_text(parameters, "storageclass") or "").upper()
    key = _text(parameters, "keyid")
    encrypt = _flag(parameters, "encrypt", where)
    return PutOptions(
        # NONE is Distribution's word for a server that knows no classes.
        storage_class=storage_class if storage_class not in ("", "NONE") else None,
        sse=("aws:kms" if key else "AES256") if encrypt else None,
        sse_kms_key_id=key if encrypt else None,
        acl=_text(parameters, "objectacl"),
    )


def _cache(section: Mapping[str, Any]) -> str:
    # `layerinfo` is the older name; it counts only where the newer is absent.
    name = _text(section, "blobdescriptor" if "blobdescriptor" in section else "layerinfo")
    if name is None:
        return "none"
    return name if name in ("inmemory", "redis") else "unknown"


def _database(section: Mapping[str, Any], where: str) -> str:
    """`prefer` leaves the choice to the registry's start-up, so it may be the database that it chose."""
    value = _text(section, "enabled")
    if value is not None and value.lower() == "prefer":
        return "prefer"
    return "true" if _flag(section, "enabled", f"{where}: database") else ""


def _tags_in(config: Mapping[str, Any]) -> str:
    """By names that only they use: OpenShift's middlewares and its access controller (dockerregistry's example
    configurations), and what Harbor's installer and its chart write: the realm of 2.x, the token issuer of 1.x, and the
    endpoint that tells its core of every push."""
    auth = _inner(config, "auth")
    middleware = _inner(config, "middleware")
    if "openshift" in auth or any("openshift" in _names(found) for found in middleware.values()):
        return "OpenShift"
    told = (
        _text(_inner(auth, "htpasswd"), "realm") == "harbor-registry-basic-realm"
        or _text(_inner(auth, "token"), "issuer") == "harbor-token-issuer"
        or "harbor" in _names(_inner(config, "notifications").get("endpoints"))
    )
    return "Harbor" if told else ""


def _inner(section: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A section that regstore needs nothing else of: whatever is not one counts as empty."""
    found = section.get(name)
    return found if isinstance(found, dict) else {}


def _names(entries: Any) -> set[str]:
    """Of a list of named things."""
    return (
        {str(each.get("name")) for each in entries if isinstance(each, dict)}
        if isinstance(entries, list)
        else set()
    )


def _redis(section: Mapping[str, Any], where: str) -> RedisSettings | None:
    addrs = section.get("addrs")
    if isinstance(addrs, str):
        addrs = [addrs]
    found = [str(addr) for addr in addrs] if isinstance(addrs, list) else []
    single = _text(section, "addr")
    if not found and single:
        found = [single]
    if not found:
        return None
    if any("@" in addr for addr in found):  # not echoed, and the addresses are shown
        raise InputError(f"{where}: redis.addr is host:port; the password belongs in redis.password")
    db = section.get("db") or 0
    if isinstance(db, str) and db.isdecimal():
        db = int(db)
    if not isinstance(db, int):
        raise InputError(f"{where}: redis.db must be a number, not {db!r}")
    tls = section.get("tls")
    return RedisSettings(
        addrs=tuple(found),
        username=_text(section, "username"),
        password=_text(section, "password"),
        db=db,
        master_name=_text(section, "mastername"),
        tls=any(tls.values()) if isinstance(tls, dict) else bool(tls),
    )
