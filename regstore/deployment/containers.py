"""What the forms that run containers share: images, who runs, and what is asked for health. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, Final

from regstore.deployment import nightly
from regstore.deployment.wanted import (
    CONFIG,
    CONTAINER_STORE,
    HTPASSWD,
    SERVER_CERT,
    SERVER_KEY,
    Deployment,
    RegistryVersion,
    Tls,
)
from regstore.storage import registry_yaml

_REGISTRY_IMAGES: Final = {
    RegistryVersion.V2: "docker.io/library/registry:2.8.3",
    RegistryVersion.V3: "docker.io/library/registry:3.1.1",
}
#: No image of regstore is published: this one is built where it runs, and `localhost` can't be taken for a place to
#: pull it from.
_LOCAL: Final = "localhost/regstore"

#: Ports below need a right that no container has here; a network of its own can do without.
FIRST_FREE_PORT: Final = 1024
LOW_PORTS: Final = "net.ipv4.ip_unprivileged_port_start"

#: Whether the process answers is asked, on loopback, not who it is.
_SERVE_ANSWERS: Final = (
    "import ssl, urllib.request as r; "
    "r.urlopen('{scheme}://127.0.0.1:{port}/healthz', timeout=5, context={context})"
)


def registry_image(deployment: Deployment) -> str:
    return deployment.registry_image or _REGISTRY_IMAGES[deployment.registry]


def regstore_image(deployment: Deployment) -> str:
    from regstore import __version__

    return deployment.regstore_image or f"{_LOCAL}:{__version__}"


def is_built_here(image: str) -> bool:
    """Whether no registry can be asked for it."""
    return image.partition("/")[0] == "localhost"


def registry_arguments(deployment: Deployment) -> list[str]:
    """Of the image: that of 2.8 starts its registry for `serve` too."""
    return ["serve", deployment.seen(CONFIG)]


def serve_arguments(deployment: Deployment) -> list[str]:
    """Of regstore. What is published of a container's port says on which addresses of the host."""
    bind = "" if deployment.in_containers else deployment.bind
    found = ["serve", "--registry-config", deployment.seen(CONFIG), "--listen", f"{bind}:{deployment.serve_port}"]
    found += ["--htpasswd", deployment.seen(HTPASSWD), "--registry-url", deployment.url]
    if deployment.tls is not Tls.NONE:
        found += ["--tls-cert", deployment.seen(SERVER_CERT), "--tls-key", deployment.seen(SERVER_KEY)]
    return found


def debug_url(deployment: Deployment, path: str) -> str:
    return f"http://127.0.0.1:{deployment.debug_port}{path}"


def asks_registry(deployment: Deployment, path: str) -> list[str]:
    """A command within the registry's container that fails unless its debug server answers with success. `wget` is
    busybox's, in the images of 2.8 and of 3.x."""
    return ["wget", "-q", "-O", "/dev/null", "-T", "5", debug_url(deployment, path)]


def asks_serve(deployment: Deployment) -> list[str]:
    has_tls = deployment.tls is not Tls.NONE
    code = _SERVE_ANSWERS.format(
        scheme="https" if has_tls else "http",
        port=deployment.serve_port,
        context="ssl._create_unverified_context()" if has_tls else "None",
    )
    return ["python", "-c", code]


def store_folder(deployment: Deployment) -> PurePosixPath | None:
    """The folder of the host that is the store, where it is one."""
    return PurePosixPath(deployment.storage[deployment.driver]["rootdirectory"]) if deployment.on_disk else None


def folders(deployment: Deployment) -> dict[str, tuple[PurePosixPath, PurePosixPath]]:
    """Of the store and of the backup, where these are folders: on the host, and where containers have them."""
    found = {}
    store, backup = store_folder(deployment), nightly.backup_folder(deployment)
    if store is not None:
        found["store"] = (store, CONTAINER_STORE)
    if backup is not None:
        found["backup"] = (backup, nightly.CONTAINER_BACKUP)
    return found


def render(documents: list[dict[str, Any]], comment: str) -> bytes:
    """As YAML, headed by a comment."""
    text = registry_yaml.dump(documents, width=1_000_000)
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    return f"{head}{text}".encode()
