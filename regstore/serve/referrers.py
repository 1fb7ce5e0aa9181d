"""Referrers for the API: what a manifest says of its subject is read once, by digest, and remembered."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import replace
from typing import Any, Final
from weakref import WeakValueDictionary

from regstore.digest import Digest
from regstore.errors import NameUnknown
from regstore.manifest import EdgeKind
from regstore.registry import Repository
from regstore.registry.referrers import KnownManifest, read_subjects

#: Bytes of what is remembered: annotations as long as they are, and for each manifest `_EACH` more.
_ROOM: Final = 64 * 1024 * 1024
_EACH: Final = 1000
#: A manifest that is larger than this has its annotations left out of answers: clients fetch it for them.
_LARGE: Final = 64 * 1024


class ReferrersMemory:
    """What is needed of manifests that were read and verified, of all repositories.

    Requests for the referrers in one repository wait for each other, so that its manifests are read once however many
    ask at a time; what was read stays known when a client goes away before all of it was.
    """

    def __init__(self, room: int = _ROOM) -> None:
        self._known: OrderedDict[Digest, KnownManifest] = OrderedDict()
        self._room = room
        self._taken = 0
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def of(self, repository: Repository, digest: Digest) -> list[dict[str, Any]]:
        """Descriptors of the referrers, as the specification wants them, in the order of their digests."""
        place = f"{repository.storage.url} {repository.name}"
        lock = self._locks.get(place)
        if lock is None:
            self._locks[place] = lock = asyncio.Lock()
        try:
            async with lock:
                subjects = await read_subjects(
                    repository.manifests, repository.tags, known=self._known, keep=self._keep
                )
        except NameUnknown:
            return []
        found = []
        for referrer in sorted(subjects.of(digest), key=lambda each: str(each.digest)):
            known = subjects.manifests.get(referrer.digest)
            if known is None or referrer.tag is not None:
                continue  # a tag such as cosign's says it, no subject: that is not the specification's relation
            descriptor: dict[str, Any] = {
                "mediaType": known.manifest.media_type,
                "digest": str(referrer.digest),
                "size": known.size,
            }
            if referrer.artifact_type:
                descriptor["artifactType"] = referrer.artifact_type
            if known.annotations:
                descriptor["annotations"] = known.annotations
            found.append(descriptor)
        return found

    def _keep(self, digest: Digest, read: KnownManifest) -> KnownManifest:
        manifest = read.manifest
        annotations = read.annotations if manifest.subject is not None and read.size <= _LARGE else {}
        edges = tuple(edge for edge in manifest.edges if edge.kind is EdgeKind.CONFIG)
        kept = KnownManifest(replace(manifest, edges=edges), read.size, annotations)
        if digest not in self._known:
            self._taken += _weight(kept)
        self._known[digest] = kept
        while self._taken > self._room and len(self._known) > 1:
            self._taken -= _weight(self._known.popitem(last=False)[1])
        return kept


def _weight(kept: KnownManifest) -> int:
    return _EACH + (kept.size if kept.annotations else 0)
