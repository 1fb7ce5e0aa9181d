"""Referrers for the API: what a manifest says of its subject is read once, by digest, and remembered."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from regstore.digest import Digest
from regstore.errors import NameUnknown
from regstore.registry import Repository
from regstore.registry.referrers import KnownManifest, read_subjects

#: Manifests that are remembered, at some 2 KB each.
_KEPT: Final = 50_000


class ReferrersMemory:
    """Manifests that were read and verified, of all repositories."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._known: OrderedDict[Digest, KnownManifest] = OrderedDict()
        self._kept = kept

    async def of(self, repository: Repository, digest: Digest) -> list[dict[str, Any]]:
        """Descriptors of the referrers, as the specification wants them, in the order of their digests."""
        try:
            subjects = await read_subjects(repository.manifests, repository.tags, known=self._known)
        except NameUnknown:
            return []
        self._known.update(subjects.manifests)
        while len(self._known) > self._kept:
            self._known.popitem(last=False)
        found = []
        for referrer in sorted(subjects.of(digest), key=lambda each: each.digest):
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
