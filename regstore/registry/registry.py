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
from regstore.registry.paging import first_names
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

    async def repositories(self, *, after: str = "") -> AsyncGenerator[Repository, None]:
        """Every repository that has a layer link, a revision, a tag or an upload, in byte order of the keys.

        after: those only whose keys sort after this beginning of a name; `page` gives them in the order of names.
        At most one LIST per 1,000 keys, and fewer in large repositories, whose further pages are skipped.
        NotARegistry when there is nothing of a registry in the store.
        """
        last, complete = "", False
        start_after = layout.REPOSITORIES + after if after else ""
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

    async def page(self, *, after: str = "", most: int | None = None) -> tuple[list[str], bool]:
        """Names of repositories after one, which need not be there, in byte order, at most so many, and whether there
        are more. Lists from there on, no more than it gives. NotARegistry as `repositories`."""

        async def listed() -> AsyncGenerator[str, None]:
            async with aclosing(self.repositories(after=after)) as found:
                async for repository in found:
                    yield repository.name

        async def exists(name: str) -> bool:
            return await links.repository_exists(self.storage, name)

        return await first_names(listed(), after=after, most=most, key=_key, exists=exists)

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


def _key(name: str) -> str:
    return layout.repository_prefix(name) + "_"


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
