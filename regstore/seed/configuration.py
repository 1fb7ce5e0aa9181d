"""The registry's own configuration for a store: the tree of its config.yml, and the same as REGISTRY_* variables.

No secret is in either. The S3 driver takes its keys from REGISTRY_STORAGE_S3_ACCESSKEY and _SECRETKEY, else from the
AWS environment (variables, shared files, instance role), so the file does without.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from regstore.storage.base import PutOptions

#: Where no endpoint is configured the driver reaches AWS by the region alone.
_HEALTH: Final = {"storagedriver": {"enabled": True, "interval": "10s", "threshold": 3}}


def s3_configuration(
    *,
    bucket: str,
    root: str,
    region: str,
    endpoint: str | None,
    path_style: bool,
    verify_tls: bool = True,
    put: PutOptions | None = None,
) -> dict[str, Any]:
    """endpoint: None on AWS. root: without slashes at its ends. put: how the registry is to store its objects, as far
    as its driver can (a key without an encryption says nothing to it)."""
    driver: dict[str, Any] = {"region": region, "bucket": bucket}
    if root:
        driver["rootdirectory"] = f"/{root}"
    if endpoint is not None:
        driver["regionendpoint"] = endpoint
        driver["secure"] = endpoint.startswith("https://")
        driver["v4auth"] = True
    if endpoint is not None and path_style:
        # Known from 2.8 on; earlier versions ignore it, and use path style with any regionendpoint.
        driver["forcepathstyle"] = True
    if not verify_tls:
        driver["skipverify"] = True
    if put is not None:
        if put.sse:
            driver["encrypt"] = True
            if put.sse_kms_key_id:
                driver["keyid"] = put.sse_kms_key_id
        if put.storage_class:
            driver["storageclass"] = put.storage_class
        if put.acl:
            driver["objectacl"] = put.acl
    return _registry({"s3": driver})


def disk_configuration(folder: Path) -> dict[str, Any]:
    return _registry({"filesystem": {"rootdirectory": str(folder)}})


def _registry(storage: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": 0.1,
        "storage": storage | {"delete": {"enabled": True}},
        "http": {"addr": ":5000"},
        "health": _HEALTH,
    }


def as_environment(configuration: Mapping[str, Any]) -> dict[str, str]:
    """`REGISTRY_A_B: value` for each leaf, to be laid over the configuration that an image brings.

    `REGISTRY_STORAGE` names the driver, and so takes away the one that the image's own configuration has. The S3
    keys are references, for the compose file's own substitution.
    """
    storage = dict(configuration["storage"])
    driver = next(name for name in storage if name in ("s3", "filesystem"))
    environment = {"REGISTRY_STORAGE": driver}
    for section in ("storage", "health"):
        _flatten(f"REGISTRY_{section.upper()}", configuration[section], environment)
    if driver == "s3":
        environment["REGISTRY_STORAGE_S3_ACCESSKEY"] = "${AWS_ACCESS_KEY_ID}"
        environment["REGISTRY_STORAGE_S3_SECRETKEY"] = "${AWS_SECRET_ACCESS_KEY}"
    return environment


def _flatten(name: str, value: Any, into: dict[str, str]) -> None:
    if isinstance(value, Mapping):
        for key, each in value.items():
            _flatten(f"{name}_{key.upper()}", each, into)
    else:
        into[name] = str(value).lower() if isinstance(value, bool) else str(value)
