"""What runs every night: a backup, then gc, then reading a share of all that is kept. Pure.

One script, NIGHTLY, which the timer, the CronJob or cron starts; one job, for two would meet at the store's lock.

- First the backup, so that what gc takes away is in a snapshot. A backup that fails keeps gc from running.
- gc with its defaults: untagged manifests stay, what is younger than a day stays, and what goes lies in the trash for
  a week. More (`--delete-untagged`, a policy) is for people to decide, after a dry run.
- `verify`, and `backup check`: each night a share, what was never read or was read longest ago first, so that every
  byte is read about once a month.

Nothing here deletes a snapshot of a backup.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from regstore.deployment.wanted import CONFIG, STORE_CA, Cache, Deployment, Form, WantedFile
from regstore.errors import InputError
from regstore.storage.location import parse_file

#: The script.
NIGHTLY: Final = "nightly.sh"
#: Where containers have a backup that is a folder of the host (a volume, in Kubernetes).
CONTAINER_BACKUP: Final = PurePosixPath("/var/lib/regstore-backup")
#: Its subfolder `regstore` remembers what was read and right. It can be lost, and should not be every night.
CACHE_HOME: Final = PurePosixPath("/var/cache")
CACHE_FOLDER: Final = CACHE_HOME / "regstore"

#: Of the blobs, each night; and how long at most.
_SHARE: Final = "4%"
_TIME_LIMIT: Final = "2h"

_HEAD: Final = """\
#!/bin/sh
# What runs every night. Made by `regstore init`: run that again to change it.
# Exit code: 0 when all went well, 3 when all was done but for something that is named, else that of the first step that
# failed: 6 damage found, and so on (`regstore --help`). A step that fails ends nothing but what relies on it.
set -u
worst=0 child= stopped=

# A stop reaches the step that runs, which puts its house in order; no other begins.
trap 'stopped=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM INT HUP

# step NAME COMMAND...: its exit code
step() {
  [ -z "$stopped" ] || return 143
  echo "== $1: $(date -u +%Y-%m-%dT%H:%M:%SZ)"
  name=$1
  shift
  "$@" &
  child=$!
  wait "$child"
  code=$?
  # A signal ends the wait before the step has ended.
  while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    code=$?
  done
  child=
  [ "$code" = 0 ] || echo "== $name: exit code $code"
  case "$worst" in 0) worst=$code ;; 3) [ "$code" = 0 ] || worst=$code ;; esac
  return "$code"
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """arguments: of regstore. needed: what follows must not run unless this was done (exit code 0 or 3)."""

    name: str
    arguments: tuple[str, ...]
    needed: bool = False


def files(deployment: Deployment) -> list[WantedFile]:
    return [WantedFile(path=NIGHTLY, content=script(deployment).encode())]


def steps(deployment: Deployment) -> tuple[Step, ...]:
    """In their order."""
    store = ("--registry-config", deployment.seen(CONFIG))
    reading = ("--read-data", _SHARE, "--time-limit", _TIME_LIMIT)
    backup = seen_backup(deployment)
    found = []
    if backup is not None:
        there = _reached(deployment, backup, "--dst-")
        found.append(
            Step(
                name="backup create",
                arguments=("backup", "create", *store, backup, "--create", *there),
                needed=True,
            )
        )
    found.append(Step(name="gc", arguments=("gc", *store, *_cache(deployment), "--yes")))
    found.append(Step(name="verify", arguments=("verify", *store, *reading)))
    if backup is not None:
        where = (backup, *_reached(deployment, backup, "--"))
        found.append(Step(name="backup check", arguments=("backup", "check", *where, *reading)))
    return tuple(found)


def script(deployment: Deployment) -> str:
    program = "regstore" if deployment.in_containers else deployment.regstore_program
    lines = [_HEAD]
    skipped = ""
    for step in steps(deployment):
        call = shlex.join(("step", step.name, program, *step.arguments))
        if step.needed:
            lines += [f"{call}", 'case "$?" in 0 | 3) done=1 ;; *) done= ;; esac', ""]
            skipped = step.name
        elif skipped:
            lines += [
                'if [ -n "$done" ]; then',
                f"  {call}",
                "else",
                f'  echo "== {step.name}: left out, because {skipped} failed"',
                "fi",
                "",
            ]
            skipped = ""
        else:
            lines += [call, ""]
    return "\n".join([*lines, 'exit "$worst"', ""])


def environment(deployment: Deployment) -> dict[str, str]:
    """What regstore must have in its environment that is no secret."""
    found = {"XDG_CACHE_HOME": str(CACHE_HOME)}
    if deployment.store_ca:
        found["AWS_CA_BUNDLE"] = deployment.seen(STORE_CA)
    return found


def backup_folder(deployment: Deployment) -> PurePosixPath | None:
    """The folder of the host that backups go to, where it is one. InputError where that is not absolute."""
    backup = deployment.backup
    if backup is None or backup.startswith("s3://"):
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


def _cache(deployment: Deployment) -> tuple[str, ...]:
    """The registry's start says what its cache in memory has forgotten; in Kubernetes no other pod reaches that."""
    if deployment.cache is Cache.MEMORY and deployment.form is not Form.KUBERNETES:
        return ("--registry-debug-url", f"http://127.0.0.1:{deployment.debug_port}")
    return ()


def _reached(deployment: Deployment, backup: str, option: str) -> tuple[str, ...]:
    """The options that say that a bucket is reached as the store is. A registry's configuration says that of the store
    only. option: how they begin."""
    if not backup.startswith("s3://") or deployment.on_disk:
        return ()
    driver = deployment.storage[deployment.driver]
    found: tuple[str, ...] = (f"{option}region", str(driver["region"])) if driver.get("region") else ()
    if driver.get("regionendpoint"):
        style = "path-style" if driver.get("forcepathstyle") else "virtual-hosted"
        found += (f"{option}endpoint-url", str(driver["regionendpoint"]), f"{option}{style}")
    return found
