"""systemd units: the registry, `regstore serve` beside it, and the nightly job with its timer. Pure.

They run as the user who owns the deployment's folder, see the file system read-only but for what they are for, and get
what is secret from files that only that user reads. Two deployments on one host have units of different names, for
these have the folder's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

from regstore.deployment import nightly
from regstore.deployment.config_yml import registry_environment
from regstore.deployment.containers import serve_arguments, store_folder
from regstore.deployment.wanted import CONFIG, REGISTRY_ENV, REGSTORE_ENV, Deployment, WantedFile
from regstore.errors import InputError

FOLDER: Final = "systemd"
#: Ports below need a right of their own.
_FIRST_FREE_PORT: Final = 1024
_HARDENING: Final = (
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "PrivateDevices=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectControlGroups=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "SystemCallArchitectures=native",
)
#: A service with temporary folders of its own sees nothing of these.
_TEMPORARY: Final = (PurePosixPath("/tmp"), PurePosixPath("/var/tmp"))
_MADE: Final = "# Made by `regstore init`: run that again to change it."


def files(deployment: Deployment) -> list[WantedFile]:
    """InputError where a path has control characters, such as the end of a line: no unit can have them."""
    programs = (deployment.registry_program, deployment.regstore_program)
    for path in (str(deployment.folder), deployment.store, deployment.backup or "", *programs):
        if not path.isprintable():
            raise InputError(f"{path!r} has control characters, which no unit can have")
    prefix = unit_prefix(deployment)
    found = {
        f"{prefix}.service": _registry(deployment),
        f"{prefix}-nightly.service": _nightly(deployment),
        f"{prefix}-nightly.timer": _timer(deployment),
    }
    if deployment.with_serve:
        found[f"{prefix}-serve.service"] = _serve(deployment)
    units = [WantedFile(path=f"{FOLDER}/{name}", content=text.encode()) for name, text in found.items()]
    return [*units, *nightly.files(deployment)]


def unit_prefix(deployment: Deployment) -> str:
    """How the names of all units begin: not as those of distributions do, which would be replaced."""
    folder = re.sub(r"[^a-z0-9]+", "-", deployment.folder.name.lower()).strip("-")
    return f"regstore-{folder or 'registry'}"


def quoted(words: Sequence[str]) -> str:
    """A command line as systemd reads it."""
    return " ".join(_word(word).replace("$", "$$") for word in words)


def _word(text: object) -> str:
    """One of several in a setting."""
    escaped = str(text).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if not escaped or re.search(r"[\s'\";\\]", escaped) else escaped


def _pattern(path: str) -> str:
    """A file where systemd reads a pattern, as glob(3) has it; it takes all to the end of the line, quotes too."""
    return re.sub(r"[\\*?\[]", r"\\\g<0>", path).replace("%", "%%")


def _registry(deployment: Deployment) -> str:
    store = store_folder(deployment)
    return _unit(
        f"Registry at {deployment.address}",
        [
            f"ExecStart={quoted([deployment.registry_program, 'serve', deployment.seen(CONFIG)])}",
            "Restart=always",
            "RestartSec=5s",
            "LimitNOFILE=65536",
            *_as_who(deployment, REGISTRY_ENV, registry_environment(deployment), [deployment.port]),
            *([f"ReadWritePaths={_word(store)}"] if store is not None else []),
        ],
        mounts=[store] if store is not None else [],
        is_started=True,
    )


def _serve(deployment: Deployment) -> str:
    line = [deployment.regstore_program, *serve_arguments(deployment)]
    return _unit(
        f"Pages of the registry at {deployment.address}",
        [
            f"ExecStart={quoted(line)}",
            "Restart=always",
            "RestartSec=5s",
            f"CacheDirectory={nightly.CACHE_FOLDER.name}",
            *_as_who(deployment, REGSTORE_ENV, nightly.environment(deployment), [deployment.serve_port]),
        ],
        is_started=True,
    )


def _nightly(deployment: Deployment) -> str:
    writable = [folder for folder in (store_folder(deployment), nightly.backup_folder(deployment)) if folder]
    return _unit(
        f"Backup, garbage collection and verification of the registry at {deployment.address}",
        [
            "Type=oneshot",
            # The job passes a stop on to its step; a second one would end that before it has put its house in order.
            "KillMode=mixed",
            f"ExecStart={quoted([deployment.regstore_program, *nightly.arguments()])}",
            "Nice=10",
            "IOSchedulingClass=idle",
            f"CacheDirectory={nightly.CACHE_FOLDER.name}",
            *_as_who(deployment, REGSTORE_ENV, nightly.job_environment(deployment), []),
            *(f"ReadWritePaths={_word(folder)}" for folder in writable),
        ],
        mounts=writable,
    )


def _timer(deployment: Deployment) -> str:
    lines = [
        _MADE,
        "[Unit]",
        f"Description=Every night: {unit_prefix(deployment)}-nightly.service",
        "",
        "[Timer]",
        f"OnCalendar=*-*-* {deployment.nightly:%H:%M}:00",
        "RandomizedDelaySec=10min",
        "Persistent=true",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]
    return "\n".join(lines) + "\n"


def _unit(
    description: str,
    service: Sequence[str],
    *,
    mounts: Sequence[PurePosixPath] = (),
    is_started: bool = False,
) -> str:
    lines = [
        _MADE,
        "[Unit]",
        f"Description={description.replace('%', '%%')}",
        "Wants=network-online.target",
        "After=network-online.target",
        *(f"RequiresMountsFor={_word(mount)}" for mount in mounts),
        "",
        "[Service]",
        *service,
        *_HARDENING,
    ]
    if is_started:
        lines += ["", "[Install]", "WantedBy=multi-user.target"]
    return "\n".join(lines) + "\n"


def _as_who(
    deployment: Deployment, secrets: str, environment: Mapping[str, str], ports: Sequence[int]
) -> list[str]:
    rights = []
    if deployment.user in ("root", "0"):
        rights.append("CAP_DAC_OVERRIDE")  # root owns the files, and maybe not the store
    if any(port < _FIRST_FREE_PORT for port in ports):
        rights.append("CAP_NET_BIND_SERVICE")
    used = (deployment.folder, *filter(None, (store_folder(deployment), nightly.backup_folder(deployment))))
    is_there = any(path.is_relative_to(place) for path in used for place in _TEMPORARY)
    lines = [
        f"User={deployment.user}",
        f"PrivateTmp={'no' if is_there else 'yes'}",
        f"EnvironmentFile={_pattern(deployment.seen(secrets))}",
        *(f"Environment={_word(f'{name}={value}')}" for name, value in sorted(environment.items())),
        f"CapabilityBoundingSet={' '.join(rights)}",
    ]
    if rights and deployment.user not in ("root", "0"):
        lines.append(f"AmbientCapabilities={' '.join(rights)}")
    return lines
