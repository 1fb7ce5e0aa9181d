"""What runs every night: a backup, then gc, then reading a share of all that is kept. Pure.

It is a job of a regstore.toml in DIR, `regstore run nightly`, which the timer, the CronJob or cron starts; one job, for
two would meet at the store's lock. The file names the store and the backup, too, for who works on these by hand.

- First the backup, so that what gc takes away is in a snapshot. A backup that fails ends the job.
- gc with its defaults: untagged manifests stay, what is younger than a day stays, and what goes lies in the trash for
  a week. More (`delete_untagged`, a policy) is for people to decide, after a dry run.
- `verify`, and `backup check`: each night a share, what was never read or was read longest ago first, so that every
  byte is read about once a month.

Nothing here deletes a snapshot of a backup.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from regstore.deployment.wanted import CONFIG, STORE_CA, Cache, Deployment, Form, WantedFile
from regstore.errors import InputError
from regstore.storage.location import parse_file, parse_s3

#: The configuration of regstore itself.
REGSTORE_TOML: Final = "regstore.toml"
#: As it says where that is.
CONFIG_VARIABLE: Final = "REGSTORE_CONFIG"
#: Of its job, its store and its backup.
JOB: Final = "nightly"
STORE: Final = "registry"
BACKUP: Final = "backup"
#: Where containers have a backup that is a folder of the host (a volume, in Kubernetes).
CONTAINER_BACKUP: Final = PurePosixPath("/var/lib/regstore-backup")
#: Its subfolder `regstore` remembers what was read and right. It can be lost, and should not be every night.
CACHE_HOME: Final = PurePosixPath("/var/cache")
CACHE_FOLDER: Final = CACHE_HOME / "regstore"

#: Of the blobs, each night; and for how long at most.
_READING: Final = {"read_data": "4%", "time_limit": "2h"}

_HEAD: Final = """\
# What regstore works on here, and what it does every night. Made by `regstore init`: run that again to change it.
# README.txt says how it is run; `regstore run nightly --dry-run` shows the steps as command lines.
"""

Table = Mapping[str, Any]


def files(deployment: Deployment) -> list[WantedFile]:
    return [WantedFile(path=REGSTORE_TOML, content=render(deployment).encode())]


def arguments() -> list[str]:
    """Of regstore, where CONFIG_VARIABLE says where the file is."""
    return ["run", JOB]


def job_environment(deployment: Deployment) -> dict[str, str]:
    """For the job, and for who runs regstore by hand as it does."""
    return {CONFIG_VARIABLE: deployment.seen(REGSTORE_TOML), **environment(deployment)}


def environment(deployment: Deployment) -> dict[str, str]:
    """What regstore must have in its environment that is no secret."""
    found = {"XDG_CACHE_HOME": str(CACHE_HOME)}
    if deployment.store_ca:
        found["AWS_CA_BUNDLE"] = deployment.seen(STORE_CA)
    return found


def steps(deployment: Deployment) -> list[dict[str, Any]]:
    """In their order, each as it stands in the file."""
    has_backup = deployment.backup is not None
    found: list[dict[str, Any]] = []
    if has_backup:
        found.append({"command": "backup create", "store": STORE, "backup": BACKUP})
    found += [
        {"command": "gc", "store": STORE, "yes": True, "on_failure": "continue"},
        {"command": "verify", "store": STORE, **_READING, "on_failure": "continue"},
    ]
    if has_backup:
        found.append({"command": "backup check", "backup": BACKUP, **_READING})
    return found


def render(deployment: Deployment) -> str:
    parts = [_HEAD, _table(f"[stores.{STORE}]", _store(deployment))]
    if deployment.backup is not None:
        parts.append(_table(f"[stores.{BACKUP}]", _backup(deployment)))
        parts.append(f"# A backup that fails ends the job: what gc takes away is in a snapshot.\n[jobs.{JOB}]\n")
    else:
        parts.append(f"[jobs.{JOB}]\n")
    parts += [_table(f"[[jobs.{JOB}.step]]", step) for step in steps(deployment)]
    return "\n".join(parts)


def backup_folder(deployment: Deployment) -> PurePosixPath | None:
    """The folder of the host that backups go to, where it is one. InputError where that is not absolute."""
    backup = deployment.backup
    if backup is None or _is_bucket(backup):
        return None
    location = parse_file(backup) if backup.startswith("file:") else None
    folder = PurePosixPath(location.root if location is not None else backup)
    if not folder.is_absolute():
        raise InputError(f"the backup's folder must be absolute, not {backup}: jobs run elsewhere")
    return folder


def seen_backup(deployment: Deployment) -> str | None:
    """The target of backups, as what runs sees it."""
    folder = backup_folder(deployment)
    if folder is None:
        return deployment.backup
    return str(CONTAINER_BACKUP if deployment.in_containers else folder)


def _is_bucket(backup: str) -> bool:
    return backup.startswith("s3:") and parse_s3(backup) is not None


def _store(deployment: Deployment) -> Table:
    found = {"registry_config": deployment.seen(CONFIG)}
    if deployment.cache is Cache.MEMORY and deployment.form is not Form.KUBERNETES:
        # The registry's start says what its memory has forgotten. In Kubernetes no other pod can ask.
        found["registry_debug_url"] = f"http://127.0.0.1:{deployment.debug_port}"
    return found


def _backup(deployment: Deployment) -> Table:
    """A bucket is reached as that of the store is, which a registry's configuration says of its own bucket only."""
    found: dict[str, Any] = {"url": seen_backup(deployment)}
    if _is_bucket(found["url"]) and not deployment.on_disk:
        driver = deployment.storage[deployment.driver]
        if driver.get("region"):
            found["region"] = str(driver["region"])
        if driver.get("regionendpoint"):
            found |= {
                "endpoint_url": str(driver["regionendpoint"]),
                "path_style": bool(driver.get("forcepathstyle")),
            }
    return found


def _table(head: str, values: Table) -> str:
    return "\n".join([head, *(f"{name} = {_value(value)}" for name, value in values.items()), ""])


def _value(value: str | bool) -> str:
    """A string is TOML's as it is JSON's, but for surrogates and for DEL."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
