"""The registry that a store holds: its repositories and its blobs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncGenerator
from contextlib import aclosing

from regstore import layout
from regstore.errors import NotARegistry
from regstore.reference import parse_name
from regstore.registry import links
from regstore.registry.blobs import StoreBlobs
from regstore.registry.repository import Repository
from regstore.storage.base import Storage


class Registry:
    """What lies under `docker/registry/v2` of a storage. Closing it closes the storage.

    async with regstore.open("s3://bucket/root") as registry:
        async for repository in registry.repositories():
            async for tag in repository.tags:
                print(repository.name, tag.name, tag.digest)
    """

    def __init__(self, storage: Storage) -> None:
        #: The storage itself, for scan, gc and the other operations on whole stores.
        self.storage = storage
        self.blobs = StoreBlobs(storage)

    @property
    def url(self) -> str:
        return self.storage.url

    def repository(self, name: str) -> Repository:
        """The repository of that name, without asking the store. InvalidReference when it can't be a name.

        A folder that a store has but no registry would take as a name can be read, not written.
        """
        key = layout.TagCurrentKey(name, "_")
        if layout.decode(layout.encode(key)) != key:
            parse_name(name)
        return Repository(self.storage, name)

    async def repositories(self) -> AsyncGenerator[Repository, None]:
        """Every repository that has a layer link, a revision, a tag or an upload, in byte order of the keys.

        At most one LIST per 1,000 keys, and fewer in large repositories, whose further pages are skipped.
        NotARegistry when there is nothing of a registry in the store.
        """
        last, start_after, complete = "", "", False
        while not complete:
            complete = True
            async with aclosing(
                links.list_pages(self.storage, layout.REPOSITORIES, start_after=start_after)
            ) as pages:
                async for page in pages:
                    for name in _names(page.keys):
                        if name != last:
                            last = name
                            yield Repository(self.storage, name)
                    own_areas = f"{layout.repository_prefix(last)}_"
                    if not page.complete and last and page.keys and page.keys[-1].startswith(own_areas):
                        start_after = layout.repository_prefix(last) + links.AREAS_END
                        complete = False
                        break
        if not last:
            await self.require()

    async def is_registry(self) -> bool:
        """Whether the store has anything under `docker/registry/v2`."""
        return await _has_any(self.storage, layout.PREFIX)

    async def require(self) -> None:
        """NotARegistry, saying what is there instead, unless `is_registry`."""
        if await self.is_registry():
            return
        url = self.storage.url
        if await _has_any(self.storage, ""):
            raise NotARegistry(
                f"{url} holds no registry: nothing lies under {layout.PREFIX} there; is the root directory right?"
            )
        raise NotARegistry(f"{url} is empty: no registry has stored anything there yet")

    async def close(self) -> None:
        await self.storage.close()

    async def __aenter__(self) -> Registry:
        await self.storage.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


def _names(keys: list[str]) -> list[str]:
    """The repositories that a page of keys shows, each once, jumping over the rest of what it shows of each."""
    names = []
    position = 0
    while position < len(keys):
        name = links.repository_of(keys[position])
        if name is None:
            position += 1
        else:
            names.append(name)
            position = bisect_right(keys, layout.repository_prefix(name) + links.AREAS_END, position)
    return names


async def _has_any(storage: Storage, prefix: str) -> bool:
    async with aclosing(links.list_pages(storage, prefix)) as pages:
        async for page in pages:
            if page.keys:
                return True
    return False
