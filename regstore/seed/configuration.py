"""The registry's own configuration for a store: the tree of its config.yml, and the same as REGISTRY_* variables.

No secret is in either. The S3 driver takes its keys from REGISTRY_STORAGE_S3_ACCESSKEY and _SECRETKEY, else from the
AWS environment (variables, shared files, instance role), so the file does without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from regstore.storage.base import PutOptions, Storage
from regstore.storage.optional import ServesRegistries

_HEALTH: Final = {"storagedriver": {"enabled": True, "interval": "10s", "threshold": 3}}


def registry_configuration(storage: Storage, put: PutOptions | None = None) -> dict[str, Any]:
    """As `ServesRegistries` says of the storage section; nothing where no registry has a driver for such a store."""
    if not isinstance(storage, ServesRegistries):
        return {}
    return {
        "version": 0.1,
        "storage": {**storage.registry_configuration(put), "delete": {"enabled": True}},
        "http": {"addr": ":5000"},
        "health": _HEALTH,
    }


def as_environment(configuration: Mapping[str, Any]) -> dict[str, str]:
    """`REGISTRY_A_B: value` for each leaf, to be laid over the configuration that an image brings.

    `REGISTRY_STORAGE` names the driver, and so takes away the one that the image's own configuration has. The S3
    keys are references, for the compose file's own substitution.
    """
    driver = next(name for name in configuration["storage"] if name != "delete")
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
