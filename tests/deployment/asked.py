"""Deployments that differ in all that the forms depend on, with odd values, for the tests of each form."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, Final

from regstore.deployment.wanted import Cache, Deployment, RegistryVersion, Tls
from tests.deployment.test_wanted import deployment

#: Of what compose, a shell, cron, YAML and systemd each take for their own.
ODD: Final = "/srv/a $b ${c} 100% 'd' \"e\" #f: ü\\"

S3: Final = {
    "bucket": "images.example.org",
    "rootdirectory": "/a b/$x",
    "region": "eu-central-1",
    "regionendpoint": "https://s3.example.org:7480",
    "secure": True,
    "v4auth": True,
    "forcepathstyle": True,
    "encrypt": True,
    "keyid": "no$key",
}

CASES: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "everything": {
        "store": "s3://images.example.org/a b/$x",
        "storage": {"s3": S3},
        "store_ca": True,
        "registry": RegistryVersion.V3,
        "cache": Cache.MEMORY,
        "with_serve": True,
        "backup": "s3://backup.example.org/of/it",
        "folder": PurePosixPath(ODD),
        "host": "2001:db8::1",
        "names": ("registry.example.org", "192.0.2.7"),
        "port": 443,
        "user": "1000",
    },
    "folders": {
        "store": f"{ODD}/store",
        "storage": {"filesystem": {"rootdirectory": f"{ODD}/store"}},
        "backup": f"{ODD}/backup",
        "host": "192.0.2.7",
        "with_serve": True,
    },
    "behind a proxy": {
        "tls": Tls.NONE,
        "with_serve": True,
        "cache": Cache.REDIS,
        "redis": "cache:6379",
        "registry_image": "mirror.example.org/registry@sha256:" + "0" * 64,
        "regstore_image": "mirror.example.org/regstore:1",
    },
}


def case(name: str, **changed: Any) -> Deployment:
    return deployment(**{**CASES[name], **changed})
