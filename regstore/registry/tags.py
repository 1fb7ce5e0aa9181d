"""The tags of a repository."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial

from regstore import layout
from regstore.digest import Digest
from regstore.errors import IntegrityError, ManifestUnknown, NotFound, StorageError, TagUnknown
from regstore.reference import parse_name, parse_tag
from regstore.registry import links
from regstore.registry.blobs import as_digest
from regstore.registry.paging import first_names
from regstore.registry.workers import run_all
from regstore.storage.base import ObjectInfo, Page, Storage
from regstore.storage.streams import is_fatal


@dataclass(frozen=True, slots=True)
class Tag:
    """digest is None when the tag's link is damaged; `Tags.get` says how."""

    name: str
    digest: Digest | None


@dataclass(slots=True)
class _TagFolder:
    """What a listing shows of one tag."""

    name: str
    current: ObjectInfo | None = None
    index: list[Digest] = field(default_factory=list)


class Tags:
    """Iterating gives each tag with its digest, in byte order of the keys (`1-alpine` before `1`).

    That costs one LIST per 1,000 keys: what a tag names shows from the ETag of its link and the tag's own index.
    Only where that fails (encrypted buckets, other servers) is the link read. A folder that has no current link
    is no tag here, though registries list it.

        async for tag in repository.tags:
            print(tag.name, tag.digest)
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage = storage
        self._name = name

    async def __aiter__(self) -> AsyncGenerator[Tag, None]:
        empty = True
        async with aclosing(self._batches()) as batches:
            async for folders in batches:
                current = [folder for folder in folders if folder.current is not None]
                for tag in await run_all(self._tag, current):
                    empty = False
                    yield tag
        if empty:
            await links.require_repository(self._storage, self._name)

    async def page(self, *, after: str = "", most: int | None = None) -> tuple[list[str], bool]:
        """Names of tags after one, which need not be there, in byte order, at most so many, and whether there are
        more. Lists from there on, no more than it gives, and reads no link. NameUnknown as iterating."""

        async def listed() -> AsyncGenerator[str, None]:
            async with aclosing(self._batches(after)) as batches:
                async for folders in batches:
                    for folder in folders:
                        if folder.current is not None:
                            yield folder.name

        async def exists(name: str) -> bool:
            try:
                await self._storage.stat(_key(self._name, name) + "current/link")
            except NotFound:
                return False
            return True

        found = await first_names(listed(), after=after, most=most, key=partial(_key, self._name), exists=exists)
        if not found[0]:
            await links.require_repository(self._storage, self._name)
        return found

    async def get(self, tag: str) -> Digest:
        """The digest that the tag names. TagUnknown; IntegrityError when its link is damaged."""
        try:
            return await links.read_link(self._storage, layout.TagCurrentKey(self._name, parse_tag(tag)))
        except NotFound as error:
            await links.require_repository(self._storage, self._name)
            raise TagUnknown(f"no tag {self._name}:{tag} in {self._storage.url}") from error

    async def set(self, tag: str, digest: Digest | str) -> None:
        """Point the tag at a manifest of this repository, new or moved. ManifestUnknown when it is not one.

        A registry that keeps its tags elsewhere does not see it (`inventory.whose`); the same is true of `delete`.
        """
        parse_name(self._name)
        parse_tag(tag)
        digest = as_digest(digest)
        try:
            linked = await links.read_link(self._storage, layout.RevisionLinkKey(self._name, digest))
        except NotFound as error:
            raise ManifestUnknown(
                f"{self._name} has no manifest {digest} in {self._storage.url}: put it before its tag"
            ) from error
        if linked != digest:
            key = layout.encode(layout.RevisionLinkKey(self._name, digest))
            raise IntegrityError(f"the link {key} names {linked}, not its own digest")
        await links.write_link(self._storage, layout.TagIndexKey(self._name, tag, digest), digest)
        await links.write_link(self._storage, layout.TagCurrentKey(self._name, tag), digest)

    async def delete(self, tag: str) -> None:
        """Untag. The manifest stays, as a revision without this tag. TagUnknown."""
        prefix = f"{layout.tags_prefix(self._name)}{parse_tag(tag)}/"
        folder = _TagFolder(tag)
        async with aclosing(links.iter_keys(self._storage, prefix)) as keys:
            async for info in keys:
                _add(folder, info)
        if folder.current is None and not folder.index:
            await links.require_repository(self._storage, self._name)
            raise TagUnknown(f"no tag {self._name}:{tag} in {self._storage.url}")
        await self._remove([folder])

    async def delete_all(self, digest: Digest) -> list[str]:
        """Untag every tag that names the digest, and forget it in the index of the others; returns the tags.

        IntegrityError, with nothing deleted, when a tag's link is damaged: it may name the digest too.
        """
        doomed: list[_TagFolder] = []
        entries: list[str] = []
        async with aclosing(self._batches()) as batches:
            async for folders in batches:
                current = [folder for folder in folders if folder.current is not None]
                targets = {tag.name: tag for tag in await run_all(self._tag, current)}
                for folder in folders:
                    tag = targets.get(folder.name)
                    if tag is not None and tag.digest is None:
                        with suppress(TagUnknown):  # removed meanwhile
                            await self.get(folder.name)
                    if tag is not None and tag.digest == digest:
                        doomed.append(folder)
                    elif digest in folder.index:
                        entries.append(layout.encode(layout.TagIndexKey(self._name, folder.name, digest)))
        await self._remove(doomed, entries)
        return [folder.name for folder in doomed]

    async def _remove(self, folders: list[_TagFolder], entries: list[str] | None = None) -> None:
        await links.delete_in_order(
            self._storage,
            [layout.encode(layout.TagCurrentKey(self._name, folder.name)) for folder in folders],
            [
                layout.encode(layout.TagIndexKey(self._name, folder.name, digest))
                for folder in folders
                for digest in folder.index
            ]
            + (entries or []),
        )
        tags = layout.tags_prefix(self._name)
        emptied = [entry.removesuffix("link") for entry in entries or ()]
        await links.remove_folders(self._storage, *(f"{tags}{folder.name}/" for folder in folders), *emptied)

    async def _tag(self, folder: _TagFolder) -> Tag:
        info = folder.current
        assert info is not None
        for digest in folder.index:
            if links.says(digest, info.size, info.etag):
                return Tag(folder.name, digest)
        try:
            return Tag(folder.name, await links.read_link(self._storage, layout.decode(info.key)))
        except StorageError as error:
            if is_fatal(error):
                raise
            return Tag(folder.name, None)  # damaged, gone, or not given

    async def _batches(self, after: str = "") -> AsyncGenerator[list[_TagFolder], None]:
        """Tag folders whose keys sort after this beginning of a name, those of one page together; each is whole, though
        its keys may span pages."""
        open_folder: _TagFolder | None = None
        prefix = layout.tags_prefix(self._name)
        start_after = prefix + after if after else ""
        async with aclosing(links.list_pages(self._storage, prefix, start_after=start_after)) as pages:
            async for page in pages:
                folders = [] if open_folder is None else [open_folder]
                self._gather(page, folders)
                open_folder = folders.pop() if folders else None
                if folders:
                    yield folders
        if open_folder is not None:
            yield [open_folder]

    def _gather(self, page: Page, folders: list[_TagFolder]) -> None:
        for info in page.objects():
            key = layout.decode(info.key)
            if not isinstance(key, layout.TagCurrentKey | layout.TagIndexKey) or key.name != self._name:
                continue
            if not folders or folders[-1].name != key.tag:
                folders.append(_TagFolder(key.tag))
            _add(folders[-1], info)


def _key(repository: str, tag: str) -> str:
    return f"{layout.tags_prefix(repository)}{tag}/"


def _add(folder: _TagFolder, info: ObjectInfo) -> None:
    key = layout.decode(info.key)
    if isinstance(key, layout.TagCurrentKey):
        folder.current = info
    elif isinstance(key, layout.TagIndexKey):
        folder.index.append(key.digest)
