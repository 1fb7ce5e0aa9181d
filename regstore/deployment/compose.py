"""The compose file, and the line for cron that runs the nightly job. Pure.

By the compose specification, and such that docker-compose 1.29 reads it, too: no `version`, which is of no meaning
today, and no `name`, which 1.29 does not know (the folder's name is the project's).

- Nothing secret is in it: `env_file` names the files of secrets/, keys and passwords are mounted with their folders.
- A container gets what it needs and no more, read-only: the authority's key and the other's secrets are in none.
- Folders are mounted, not files, so that a file that is replaced is seen; but config.yml and regstore.toml alone, which
  a new start reads anew anyway.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from regstore.deployment import containers, nightly
from regstore.deployment.config_yml import DRAIN, registry_environment
from regstore.deployment.containers import FIRST_FREE_PORT, LOW_PORTS
from regstore.deployment.wanted import (
    AUTH_FOLDER,
    CONFIG,
    REGISTRY_ENV,
    REGSTORE_ENV,
    STORE_CA,
    TLS_FOLDER,
    Cache,
    Deployment,
    Tls,
    WantedFile,
)
from regstore.errors import InputError

COMPOSE: Final = "compose.yaml"
CRON: Final = "nightly.cron"
#: What `docker compose run --rm` runs.
NIGHTLY_SERVICE: Final = "nightly"
#: For pushes that are under way at a stop, and for a run of regstore that puts its house in order.
_GRACE: Final = f"{DRAIN + 10}s"

_COMMENT: Final = """\
The registry, as containers. Made by `regstore init`: run that again to change it, or lay a compose.override.yaml
beside it, which is kept. README.txt says how to start it.
"""
_CRON_COMMENT: Final = """\
# The nightly job, for /etc/cron.d: README.txt says how. Made by `regstore init`: run that again to change it.
# A job of another kind does as well: all it runs is `docker compose run --rm -T {service}` in this folder.
SHELL=/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
"""


def files(deployment: Deployment) -> list[WantedFile]:
    """InputError where the user is named: a container knows users by number."""
    content = containers.render([_escaped(tree(deployment))], _COMMENT)
    return [
        WantedFile(path=COMPOSE, content=content),
        *nightly.files(deployment),
        WantedFile(path=CRON, content=cron(deployment).encode()),
    ]


def tree(deployment: Deployment) -> dict[str, Any]:
    """Of the file, as its reader has it after substitution."""
    services = {"registry": _registry(deployment)}
    if deployment.with_serve:
        services["serve"] = _serve(deployment)
    services[NIGHTLY_SERVICE] = _nightly(deployment)
    return {"services": services, "volumes": {"cache": {}}}


def cron(deployment: Deployment) -> str:
    folder = str(deployment.folder)
    if not folder.isprintable():
        raise InputError(f"cron can't name the folder {folder!r}: choose a path without control characters")
    at = deployment.nightly
    command = f"cd {shlex.quote(folder)} && docker compose run --rm -T {NIGHTLY_SERVICE}"
    # A percent sign ends a command for cron.
    line = f"{at.minute} {at.hour} * * * root {command}".replace("%", "\\%")
    return _CRON_COMMENT.format(service=NIGHTLY_SERVICE) + line + "\n"


def _registry(deployment: Deployment) -> dict[str, Any]:
    environment = registry_environment(deployment)
    return {
        "image": containers.registry_image(deployment),
        "command": containers.registry_arguments(deployment),
        "restart": "unless-stopped",
        **_confined(deployment),
        **_low(deployment.port),
        "env_file": [REGISTRY_ENV],
        **({"environment": environment} if environment else {}),
        "ports": [_published(deployment, deployment.port)],
        "volumes": [*_configuration(deployment), *_folders(deployment, "store")],
        "healthcheck": _health(containers.asks_registry(deployment, "/debug/health")),
    }


def _serve(deployment: Deployment) -> dict[str, Any]:
    return {
        **_regstore(deployment, nightly.environment(deployment)),
        "command": containers.serve_arguments(deployment),
        "restart": "unless-stopped",
        **_low(deployment.serve_port),
        "ports": [_published(deployment, deployment.serve_port)],
        "volumes": [*_configuration(deployment), *_folders(deployment, "store", read_only=True), _CACHE],
        "healthcheck": _health(containers.asks_serve(deployment)),
    }


def _nightly(deployment: Deployment) -> dict[str, Any]:
    # Each run is a new container, so it has all files as they are then.
    wanted = [CONFIG, nightly.REGSTORE_TOML, *([STORE_CA] if deployment.store_ca else [])]
    files = [_bind(path, deployment.seen(path)) for path in wanted]
    return {
        # Not started with the others: something runs it at night.
        "profiles": [NIGHTLY_SERVICE],
        **_regstore(deployment, nightly.job_environment(deployment)),
        "command": nightly.arguments(),
        "restart": "no",
        # When the registry's process was started says what its cache has forgotten; that is asked on its loopback.
        **({"network_mode": "service:registry"} if deployment.cache is Cache.MEMORY else {}),
        "volumes": [*files, *_folders(deployment, "store", "backup"), _CACHE],
    }


def _regstore(deployment: Deployment, environment: Mapping[str, str]) -> dict[str, Any]:
    image = containers.regstore_image(deployment)
    return {
        "image": image,
        **({"pull_policy": "never"} if containers.is_built_here(image) else {}),
        **_confined(deployment),
        "env_file": [REGSTORE_ENV],
        "environment": dict(environment),
        "tmpfs": ["/tmp"],
    }


def _confined(deployment: Deployment) -> dict[str, Any]:
    user = _user(deployment.user)
    return {
        "user": user,
        "read_only": True,
        "cap_drop": ["ALL"],
        # Root owns the files, and maybe not the folders.
        **({"cap_add": ["DAC_OVERRIDE"]} if user == "0:0" and containers.folders(deployment) else {}),
        "security_opt": ["no-new-privileges:true"],
        "stop_grace_period": _GRACE,
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}},
    }


def _low(port: int) -> dict[str, Any]:
    """For a port that only root may listen at, in the container's own network."""
    return {"sysctls": {LOW_PORTS: 0}} if port < FIRST_FREE_PORT else {}


def _user(user: str) -> str:
    if user in ("root", "0"):
        return "0:0"
    if not user.isdecimal():
        raise InputError(f"a container knows users by number: give that of {user} (id -u {user})")
    return f"{user}:{user}"


def _published(deployment: Deployment, port: int) -> str:
    return f"{deployment.bind}:{port}:{port}".lstrip(":")


def _health(command: list[str]) -> dict[str, Any]:
    return {"test": ["CMD", *command], "interval": "30s", "timeout": "10s", "retries": 3, "start_period": "30s"}


#: What verify has read and found right, and manifests: it may be lost.
_CACHE: Final = {"type": "volume", "source": "cache", "target": str(nightly.CACHE_FOLDER)}


def _configuration(deployment: Deployment) -> list[dict[str, Any]]:
    wanted = [CONFIG, AUTH_FOLDER]
    if deployment.tls is not Tls.NONE or deployment.store_ca:
        wanted.append(TLS_FOLDER)
    return [_bind(path, deployment.seen(path)) for path in wanted]


def _folders(deployment: Deployment, *names: str, read_only: bool = False) -> list[dict[str, Any]]:
    found = containers.folders(deployment)
    return [_mount(str(found[name][0]), found[name][1], read_only=read_only) for name in names if name in found]


def _bind(path: str, target: str) -> dict[str, Any]:
    """Of a file or folder of DIR."""
    return _mount(f"./{path}", PurePosixPath(target), read_only=True)


def _mount(source: str, target: PurePosixPath, *, read_only: bool) -> dict[str, Any]:
    """In the long form: a source that is not there is then an error, and not a new folder of root's."""
    mount: dict[str, Any] = {"type": "bind", "source": source, "target": str(target)}
    return {**mount, "read_only": True} if read_only else mount


def _escaped(value: Any) -> Any:
    """A dollar sign begins a variable of compose's, unless it stands twice."""
    if isinstance(value, dict):
        return {key: _escaped(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_escaped(each) for each in value]
    return value.replace("$", "$$") if isinstance(value, str) else value
