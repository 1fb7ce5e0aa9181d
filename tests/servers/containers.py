"""podman and buildah, which unpack what they pull; each in a storage of its own that is thrown away."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.process import ServerError, clean_environment, which


def apart(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Options and environment of the programs over one folder: neither images nor locks are those of others on this
    machine."""
    (folder / "containers.conf").write_text(f'[engine]\nlock_type = "file"\ntmp_dir = "{folder}/engine"\n')
    options = ["--storage-driver", "vfs", "--root", f"{folder}/root", "--runroot", f"{folder}/run"]
    more = {"XDG_RUNTIME_DIR": str(folder), "CONTAINERS_CONF": f"{folder}/containers.conf"}
    return options, clean_environment(folder, **more)


@dataclass(frozen=True)
class Containers:
    """The programs over one folder."""

    folder: Path

    def run(self, program: str, *arguments: str, timeout: float = 120.0) -> str:
        """Its standard output, or ServerError with what it said."""
        path = which(program)
        if path is None:
            raise ServerError(f"{program} is not installed")
        options, environment = apart(self.folder)
        result = subprocess.run(
            [path, *options, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if result.returncode != 0:
            raise ServerError(f"{program} {' '.join(arguments)} gave {result.returncode}:\n{result.stderr.strip()}")
        return result.stdout

    def pull(self, reference: str, *, architecture: str = "amd64") -> Path:
        """With podman; the folder in which the image's files lie, unpacked."""
        image = self.run("podman", "pull", "-q", "--tls-verify=false", "--arch", architecture, reference).strip()
        return Path(self.run("podman", "image", "mount", image).strip())

    def build_from(self, reference: str) -> Path:
        """With buildah; the root folder of a container of the image."""
        container = self.run("buildah", "from", "-q", "--tls-verify=false", reference).strip()
        return Path(self.run("buildah", "mount", container).strip())


@contextmanager
def containers() -> Iterator[Containers]:
    """In a folder with a short name, for podman takes no other; it ends with all that they mounted."""
    with tempfile.TemporaryDirectory(prefix="rs-") as folder:
        made = Containers(Path(folder))
        try:
            yield made
        finally:
            made.run("buildah", "umount", "--all")
            made.run("podman", "image", "umount", "--all", "--force")
