"""skopeo, as people use it: push, pull, delete, list."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

from tests.servers.process import ServerError, clean_environment, which

PROGRAM = "skopeo"
Format = Literal["", "oci", "v2s1", "v2s2"]


class SkopeoError(ServerError):
    """The message has the command and all that skopeo said."""


def run(*arguments: str, timeout: float = 120.0) -> str:
    """`skopeo ARGUMENTS`; its standard output, or SkopeoError."""
    program = which(PROGRAM)
    if program is None:
        raise ServerError(f"{PROGRAM} is not installed")
    with tempfile.TemporaryDirectory(prefix="regstore-skopeo-") as home:
        result = subprocess.run(
            [program, "--insecure-policy", "--tmpdir", home, *arguments],
            env=clean_environment(Path(home), XDG_RUNTIME_DIR=home, REGISTRY_AUTH_FILE=f"{home}/auth.json"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    if result.returncode != 0:
        raise SkopeoError(f"skopeo {' '.join(arguments)} gave {result.returncode}:\n{result.stderr.strip()}")
    return result.stdout


def push(
    layout: Path,
    tag: str,
    host: str,
    repository: str,
    as_tag: str = "",
    *,
    all_platforms: bool = True,
    format: Format = "",
) -> None:
    """Copy `tag` of an OCI layout folder to `host/repository:as_tag` (as `tag` when empty)."""
    options = ["--dest-tls-verify=false"]
    if all_platforms:
        options.append("--all")
    if format:
        options += ["--format", format]
    run("copy", *options, f"oci:{layout}:{tag}", f"docker://{host}/{repository}:{as_tag or tag}")


def pull(host: str, repository: str, reference: str, *, all_platforms: bool = True) -> None:
    """Copy to a folder that is then thrown away; SkopeoError unless every part of it is there and verifies.

    reference: a tag, or a digest.
    """
    with tempfile.TemporaryDirectory(prefix="regstore-pull-") as folder:
        pull_to(Path(folder), host, repository, reference, all_platforms=all_platforms)


def pull_to(folder: Path, host: str, repository: str, reference: str, *, all_platforms: bool = True) -> None:
    """Copy to a `dir:` folder: `manifest.json` and one file a blob."""
    options = ["--src-tls-verify=false"]
    if all_platforms:
        options.append("--all")
    separator = "@" if ":" in reference else ":"
    run("copy", *options, f"docker://{host}/{repository}{separator}{reference}", f"dir:{folder}")


def delete(host: str, repository: str, tag: str) -> None:
    run("delete", "--tls-verify=false", f"docker://{host}/{repository}:{tag}")


def list_tags(host: str, repository: str) -> list[str]:
    answer = json.loads(run("list-tags", "--tls-verify=false", f"docker://{host}/{repository}"))
    return sorted(answer["Tags"] or [])
