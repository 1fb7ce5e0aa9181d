"""The registry's own descriptor cache, which answers for blobs that are gone.

While it does, a push of a removed layer is not stored, and not even a removed manifest's blob is (seen with 2.8.3 and
3.1.1). The in-memory cache of 2.x never forgets until the process ends; Redis keys have no expiry, and are removed
here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class RegistryCache(Protocol):
    async def forget_links(self, links: Iterable[tuple[str, str]]) -> None:
        """(repository, digest) of layer links that were removed."""
        ...

    async def forget_blobs(self, digests: Iterable[str]) -> None:
        """Digests of blobs that were removed."""
        ...


class NoCache:
    """No cache, or one that can't be reached from outside (in memory)."""

    async def forget_links(self, links: Iterable[tuple[str, str]]) -> None:
        return

    async def forget_blobs(self, digests: Iterable[str]) -> None:
        return
