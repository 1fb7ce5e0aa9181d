"""Which of a manifest's forms a client takes, by its `Accept` headers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from regstore.manifest import DOCKER_LIST, DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED, Descriptor, Manifest, Platform

#: What a registry gives a client that knows no lists of images (`docker pull` before 1.10), as Distribution 2.8 does.
_DEFAULT: Final = Platform("linux", "amd64")
#: Registries hand these out whatever is asked for.
_ANYWAY: Final = frozenset({DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED})


class Accepts:
    """The media types of all `Accept` headers of a request. None at all takes everything."""

    def __init__(self, headers: Iterable[str]) -> None:
        self._types = {
            media_type
            for header in headers
            for part in header.split(",")
            if (media_type := part.partition(";")[0].strip().lower())
        }

    def takes(self, media_type: str) -> bool:
        if not self._types or media_type in self._types or media_type in _ANYWAY:
            return True
        return "*/*" in self._types or f"{media_type.partition('/')[0]}/*" in self._types


def default_image(index: Manifest) -> Descriptor | None:
    """The image of an index that stands for all of them, where the client knows no index. Only of a Docker list:
    who knows OCI images knows OCI indexes."""
    if index.media_type != DOCKER_LIST:
        return None
    for entry in index.manifests:
        platform = entry.platform
        if platform and (platform.os, platform.architecture) == (_DEFAULT.os, _DEFAULT.architecture):
            return entry
    return None
