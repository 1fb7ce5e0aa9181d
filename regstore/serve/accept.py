"""Which of a manifest's forms a client takes, by its `Accept` headers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from regstore.manifest import DOCKER_LIST, DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED, Descriptor, Manifest, Platform

#: What a registry gives a client that knows no lists of images (`docker pull` before 1.10), as Distribution 2.8 does.
_DEFAULT: Final = Platform("linux", "amd64")
_REFUSED: Final = re.compile(r"(?:^|;)\s*q\s*=\s*0(?:\.0{0,3})?\s*(?:$|;)", re.IGNORECASE)
#: Registries hand these out whatever is asked for.
_ANYWAY: Final = frozenset({DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED})


class Accepts:
    """The media types of all `Accept` headers of a request, those with `q=0` as not taken (RFC 9110, section 12.4.2).
    None at all takes everything. Which a client likes best counts for nothing: a tag names one manifest."""

    def __init__(self, headers: Iterable[str]) -> None:
        self._types: dict[str, bool] = {}
        for entry in ",".join(headers).split(","):
            media_type, _, parameters = entry.partition(";")
            if media_type := media_type.strip().lower():
                self._types[media_type] = _REFUSED.search(parameters) is None

    def takes(self, media_type: str) -> bool:
        if not self._types or media_type in _ANYWAY:
            return True
        # The closest of what fits counts.
        fitting = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        return next((self._types[each] for each in fitting if each in self._types), False)


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
