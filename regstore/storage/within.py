"""URLs that lie inside a registry's own tree: a store's URL names the root directory, not `docker/registry/v2` in it.

What is written inside the tree is in the registry's way and is read by no registry; what is read there is not all of
the store. But a root directory may be called `docker` or `docker/registry` too (the keys begin with `docker/docker/`
then), so for these it counts what is there. Nothing is asked for a URL that has no such part.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from regstore.errors import AccessDenied, InputError, NoSuchBucket
from regstore.layout import BLOBS, PREFIX, REPOSITORIES
from regstore.storage.base import Storage

_TREE: Final = PREFIX.rstrip("/").split("/")


def outer_roots(path: str) -> dict[str, bool]:
    """The roots, outermost first, in whose registry's tree the path would lie; whether it would lie in
    `docker/registry/v2` itself, or in a folder above that. Pure."""
    parts = path.split("/")
    found = {}
    for start in range(len(parts)):
        rest = parts[start : start + len(_TREE)]
        is_deep = rest == _TREE
        if is_deep or (parts[start:] == rest and rest == _TREE[: len(rest)]):
            found["/".join(parts[:start])] = is_deep
    return found


async def refuse_folder_within(root: Path) -> None:
    """InputError where the folder lies inside a registry's tree, as it is named or behind its symbolic links. root: its
    absolute path."""

    async def is_registry(path: str) -> bool:
        return any([await asyncio.to_thread(os.path.isdir, f"{path}/{part}") for part in (BLOBS, REPOSITORIES)])

    named, real = await asyncio.to_thread(_names_of, root)
    for path in dict.fromkeys((named, real)):
        await _refuse(named, path, is_registry, lambda outer: outer or "/")


def _names_of(folder: Path) -> tuple[str, str]:
    """As it is written, and without symbolic links."""
    return os.path.normpath(folder), os.path.realpath(folder)


async def refuse_bucket_within(url: str, bucket: str, root: str, at: Callable[[str], Storage]) -> None:
    """InputError where the root lies inside a registry's tree. at: the storage of this bucket with another root."""

    async def is_registry(path: str) -> bool:
        storage = at(path)  # not entered, which would ask this again
        try:
            return any([await _has_any(storage, part) for part in (BLOBS, REPOSITORIES)])
        finally:
            await storage.close()

    await _refuse(url, root, is_registry, lambda outer: f"s3://{bucket}" + (f"/{outer}" if outer else ""))


async def _refuse(
    url: str, path: str, is_registry: Callable[[str], Awaitable[bool]], name: Callable[[str], str]
) -> None:
    roots = outer_roots(path)
    if not roots:
        return
    own = await is_registry(path)
    for outer, is_deep in roots.items():
        if (is_deep or not own) and await is_registry(outer):
            raise InputError(
                f"{url} lies inside the tree of the registry at {name(outer)}: a store's URL names its root directory,"
                f" not what lies below {PREFIX}; say {name(outer)}"
            )
    deep = [outer for outer, is_deep in roots.items() if is_deep]
    if deep and not own:
        raise InputError(
            f"{url} would have {PREFIX} twice in its keys: a registry makes these folders itself below its root"
            f" directory; say {name(deep[0])}"
        )


async def _has_any(storage: Storage, prefix: str) -> bool:
    try:
        async for page in storage.list(prefix):
            if page.keys:
                return True
    except (AccessDenied, NoSuchBucket):
        pass  # whatever is asked next tells
    return False
