"""One repository of a store."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from regstore.digest import Digest
from regstore.registry import links
from regstore.registry.blobs import Blobs
from regstore.registry.describe import Description, describe, describe_tags
from regstore.registry.manifests import Manifests
from regstore.registry.referrers import Referrers, read_subjects
from regstore.registry.tags import Tags
from regstore.registry.uploads import Uploads
from regstore.storage.base import Storage


class Repository:
    """A repository by name, whether or not the store has it yet: the first write makes it.

    config = await repository.blobs.put(b"{}")
    await repository.manifests.put(document, tag="latest")
    digest = await repository.tags.get("latest")
    stored = await repository.manifests.get("latest")
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self.storage = storage
        self.name = name
        self.tags = Tags(storage, name)
        self.blobs = Blobs(storage, name)
        self.manifests = Manifests(storage, name, self.tags, self.blobs)
        self.uploads = Uploads(storage, name)

    def __repr__(self) -> str:
        return f"<Repository {self.name} in {self.storage.url}>"

    async def exists(self) -> bool:
        return await links.repository_exists(self.storage, self.name)

    async def referrers(self, digest: Digest | str) -> Referrers:
        """The manifests that name this one as their subject, or that a tag `sha256-<hex>…` gives to it.

        Reads every manifest of the repository once: no registry keeps an index of them.
        """
        digest = await self.manifests.resolve(digest)
        return (await read_subjects(self.manifests, self.tags)).of(digest)

    async def describe(self, reference: Digest | str, *, referrers: bool = True) -> Description:
        """Size, platforms, age and layers of a manifest; errors as `manifests.get`.

        Finding referrers reads every manifest of the repository; say `referrers=False` where they don't matter.
        """
        return await describe(self, reference, referrers=referrers)

    def describe_tags(self, *, referrers: bool = True) -> AsyncGenerator[tuple[str, Description | None], None]:
        """Each tag with the description of its manifest; None where that is damaged or gone."""
        return describe_tags(self, referrers=referrers)
