"""Links: reading and writing the 71-byte objects that make a blob part of a repository."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Final

from regstore import layout
from regstore.digest import Digest
from regstore.errors import IntegrityError, NameUnknown
from regstore.storage.base import ObjectInfo, Page, Storage

#: Sorts after every key that a repository's own areas (`_layers`, `_manifests`, `_uploads`) can hold, and before
#: every repository nested in it: a component that begins with `_` ends a name.
AREAS_END: Final = "_\U0010ffff"


_ANY_AGE: Final = 2**62
#: Pauses, in seconds, between reads of a link that seems to be just being written.
_WRITING: Final = (0.01, 0.04, 0.0)
#: A link with fewer bytes is cut.
_SHORTEST: Final = len("sha256:") + 64


async def read_link(storage: Storage, key: layout.Key) -> Digest:
    """The digest that a link names.

    NotFound when there is no link; IntegrityError, which names the key, when its body is not one digest.
    """
    text = layout.encode(key)
    for pause in _WRITING:
        body = await storage.get(text)
        digest = layout.parse_link(body)
        if digest is not None:
            return digest
        if not is_begun(body):
            break
        await asyncio.sleep(pause)
    raise IntegrityError(f"the link {text} holds {body[:80]!r}, which is not a digest")


def is_begun(body: bytes) -> bool:
    """Whether a link may be just being written: on a disk a registry empties the file first, then writes."""
    return len(body) < _SHORTEST


async def write_link(storage: Storage, key: layout.Key, digest: Digest) -> None:
    await storage.put(layout.encode(key), layout.link_body(digest))


def says(digest: Digest, size: int, etag: str) -> bool:
    """Whether a listing alone shows that a link names this digest: the ETag of a small object is its MD5.

    False only means that the body has to be read.
    """
    body = layout.link_body(digest)
    return size == len(body) and etag == hashlib.md5(body, usedforsecurity=False).hexdigest()


def repository_of(key: str) -> str | None:
    """The repository that a key belongs to; None for blobs, seeds and unknown keys."""
    decoded = layout.decode(key)
    if isinstance(decoded, layout.NOBODYS):
        return None
    return decoded.name


async def iter_keys(storage: Storage, prefix: str) -> AsyncGenerator[ObjectInfo, None]:
    async with aclosing(list_pages(storage, prefix)) as pages:
        async for page in pages:
            for info in page.objects():
                yield info


async def list_pages(storage: Storage, prefix: str, *, start_after: str = "") -> AsyncGenerator[Page, None]:
    """`Storage.list`, as a generator that can be closed early."""
    pages = storage.list(prefix, start_after=start_after)
    try:
        async for page in pages:
            yield page
    finally:
        if isinstance(pages, AsyncGenerator):
            await pages.aclose()


async def repository_exists(storage: Storage, name: str) -> bool:
    """Whether any key belongs to the repository itself, not to one nested in it."""
    async with aclosing(iter_keys(storage, layout.repository_prefix(name) + "_")) as keys:
        async for info in keys:
            if repository_of(info.key) == name:
                return True
    return False


async def require_repository(storage: Storage, name: str) -> None:
    """NameUnknown unless the store has the repository."""
    if not await repository_exists(storage, name):
        raise NameUnknown(f"no repository {name} in {storage.url}")


async def delete_in_order(storage: Storage, *steps: Iterable[str]) -> None:
    """Delete the keys of each step before any of the next. A key that can't be deleted stops it, and raises."""
    for step in steps:
        keys = list(dict.fromkeys(step))
        outcomes = await storage.delete_many(keys) if keys else {}
        for error in outcomes.values():
            if error is not None:
                raise error


async def remove_folders(storage: Storage, *prefixes: str) -> None:
    """Remove the empty folders that deletes left, however new: on a disk a registry lists an empty one as a tag."""
    for prefix in prefixes:
        await storage.remove_empty_folders(prefix, older_than=_ANY_AGE)
