"""What manifests are, remembered by digest, for it never changes: its type, and the image that stands for a list.

To parse an index of 100,000 entries takes seconds, so it is done once, however often it is asked for; and its bytes are
streamed from the store, so that no slow client keeps them in memory.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from regstore.digest import Digest
from regstore.manifest import Descriptor
from regstore.registry import Repository
from regstore.serve.accept import default_image

#: How many are remembered, at some 500 bytes each.
_REMEMBERED: Final = 50_000
#: Bytes of a manifest that is sent from memory.
_SMALL: Final = 1024 * 1024
#: Manifests that are looked at for the first time, at a time: each may have 32 MiB.
_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Facts:
    """size in bytes. image: what is given in place of a list where the client knows none, None where nothing is."""

    media_type: str
    size: int
    image: Descriptor | None


class ManifestFacts:
    """Of all repositories."""

    def __init__(self) -> None:
        self._known: OrderedDict[Digest, Facts] = OrderedDict()
        self._first = asyncio.Semaphore(_AT_ONCE)

    async def of(self, repository: Repository, digest: Digest) -> tuple[Facts, bytes | None]:
        """Of a revision of this repository, with its bytes, verified; None for bytes that are many. Errors as
        `manifests.read`."""
        facts = self._known.get(digest)
        if facts is None:
            async with self._first:
                facts, data = await self._learn(repository, digest)
        elif facts.size <= _SMALL:
            self._known.move_to_end(digest)
            data = await repository.manifests.data(digest)
        else:
            data = None
        return facts, data

    async def _learn(self, repository: Repository, digest: Digest) -> tuple[Facts, bytes | None]:
        facts = self._known.get(digest)
        if facts is not None and facts.size > _SMALL:  # another was first
            return facts, None
        stored = await repository.manifests.read(digest)
        facts = Facts(stored.media_type, len(stored.data), default_image(stored.manifest))
        self._known[digest] = facts
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return facts, stored.data if facts.size <= _SMALL else None
