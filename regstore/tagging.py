"""Writing a tag's link where somebody may push at the same moment, and no store says so.

A registry that is pushed to writes a tag's index link, then its current/link, and asks nobody. Only some stores write
on the condition that nothing is there, fewer on the condition that nothing changed. But the index link tells: one that
is new, or has another time, is a push, and what it names is what current/link names in the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from regstore import layout
from regstore.digest import Digest
from regstore.errors import AlreadyExists, NotFound
from regstore.layout import LitterKey, MarkerKey, TagCurrentKey, TagIndexKey
from regstore.storage.base import ObjectInfo, PutOptions, Storage

#: A registry writes a tag's two links one right after the other. What is older (microseconds) was cut short, or copied
#: in another order: in a copied store every index link may be newer than its current/link.
UNDER_WAY: Final = 600 * 1_000_000


async def put_missing(
    storage: Storage, key: str, body: bytes, *, since: int | None = None, options: PutOptions | None = None
) -> bool:
    """Write a link unless one is there; whether it was written. Atomic where the store can do that.

    Elsewhere a tag's current/link that a registry writes at the same moment may be written over. Then its index link
    says so: the newest one is what current/link names in the end. since: the time of the index link that `body` was
    taken from, in microseconds; without it, one counts that was written while this goes on.
    """
    if (await storage.capabilities()).conditional_put:
        try:
            await storage.put(key, body, if_absent=True, options=options)
        except AlreadyExists:
            return False
        return True
    tag = layout.decode(key)
    if not isinstance(tag, TagCurrentKey):
        try:
            await storage.stat(key)
        except NotFound:
            await storage.put(key, body, options=options)
            return True
        return False
    before = await list_tag(storage, tag)
    if tag in before:
        return False

    def is_pushed(index: TagIndexKey, mtime: int) -> bool:
        return mtime > since if since is not None else mtime != _time(before, index)

    await _put_and_look(storage, tag, body, is_pushed, options)
    return True


async def replace_tag(
    storage: Storage,
    tag: TagCurrentKey,
    body: bytes,
    *,
    expected: Collection[bytes | None],
    known: Mapping[Digest, int],
    ours: Collection[Digest],
    options: PutOptions | None = None,
) -> bytes | None:
    """Point a tag elsewhere, or set one that is not there, unless somebody else sets it: what it holds then, which is
    not written over, else None.

    expected: what may stand there (None: nothing). known: the times of its index links in an earlier listing, in
    microseconds. ours: digests whose index links we may have written since. Two LISTs of the tag, and a GET where its
    ETag does not tell what it holds.
    """
    before = await list_tag(storage, tag)
    found = await _body_of(storage, before.get(tag), {body, *expected})
    if found == body:
        return None
    pushed = {
        key: info.mtime
        for key, info in before.items()
        if isinstance(key, TagIndexKey) and key.digest not in ours and info.mtime != known.get(key.digest)
    }
    if found not in expected or pushed:
        newest = max(pushed, key=lambda key: pushed[key]) if pushed else None
        return found if newest is None or found not in expected else layout.link_body(newest.digest)

    def is_pushed(index: TagIndexKey, mtime: int) -> bool:
        return mtime != _time(before, index)

    written = await _put_and_look(storage, tag, body, is_pushed, options)
    return None if written == body else written


async def _put_and_look(
    storage: Storage,
    tag: TagCurrentKey,
    body: bytes,
    is_pushed: Callable[[TagIndexKey, int], bool],
    options: PutOptions | None,
) -> bytes:
    """Write current/link, and what the newest index link of a push names, until that is what was written."""
    while True:
        await storage.put(layout.encode(tag), body, options=options)
        pushed = {
            key: info.mtime
            for key, info in (await list_tag(storage, tag)).items()
            if isinstance(key, TagIndexKey) and is_pushed(key, info.mtime)
        }
        newest = layout.link_body(max(pushed, key=lambda key: pushed[key]).digest) if pushed else body
        if newest == body:
            return body
        body = newest


async def list_tag(storage: Storage, tag: TagCurrentKey) -> dict[layout.Key, ObjectInfo]:
    """All links of the tag."""
    return {
        layout.decode(info.key): info
        async for page in storage.list(f"{layout.tags_prefix(tag.name)}{tag.tag}/")
        for info in page.objects()
    }


async def _body_of(storage: Storage, info: ObjectInfo | None, bodies: Collection[bytes | None]) -> bytes | None:
    if info is None:
        return None
    for body in bodies:
        if body is not None and hashlib.md5(body, usedforsecurity=False).hexdigest() == info.etag:
            return body
    try:
        return await storage.get(info.key)
    except NotFound:
        return None


def _time(links: Mapping[layout.Key, ObjectInfo], key: layout.Key) -> int | None:
    return links[key].mtime if key in links else None


async def remove_tag_folders(storage: Storage, keys: Iterable[str]) -> None:
    """Of the tags whose links, markers or litter these were: see `tag_folders`."""
    if (await storage.capabilities()).folders:
        for folders in tag_folders(keys):
            await storage.remove_folders(folders)


@dataclass(slots=True)
class _Held:
    """Below a tag's folder: digests of its index, and folders that only litter had."""

    digests: set[str] = field(default_factory=set)
    litter: set[str] = field(default_factory=set)


def tag_folders(keys: Iterable[str]) -> list[list[str]]:
    """On a disk a tag's folder without a link would still list as a tag. For each tag the folders that held these keys,
    and those above them up to its own, in the order in which they go: up to the first that still holds something. All
    others a push may just have made.

    A push comes to current/ when it has written its link below index/: so current/ goes only when index/ went.
    """
    tags: dict[str, _Held] = {}
    for text in keys:
        key = layout.decode(text)
        if isinstance(key, TagCurrentKey | TagIndexKey):
            held = tags.setdefault(f"{layout.tags_prefix(key.name)}{key.tag}", _Held())
            if isinstance(key, TagIndexKey):
                held.digests.add(f"{key.digest.algorithm}/{key.digest.encoded}")
        elif isinstance(key, MarkerKey | LitterKey) and (name := layout.repository_around(text)):
            _note_litter(tags, layout.tags_prefix(name), text)
    return [_in_order(tag, held) for tag, held in sorted(tags.items())]


def _note_litter(tags: dict[str, _Held], prefix: str, text: str) -> None:
    tag, *below = text.removeprefix(prefix).split("/")[:-1] if text.startswith(prefix) else [""]
    if not tag:
        return
    held = tags.setdefault(prefix + tag, _Held())
    for depth in range(1, len(below) + 1):
        folder = "/".join(below[:depth])
        if below[0] == "index" and depth == 3:
            held.digests.add("/".join(below[1:3]))
        elif not (folder in ("index", "current") or (below[0] == "index" and depth == 2)):
            held.litter.add(folder)


def _in_order(tag: str, held: _Held) -> list[str]:
    # Its sub-folders sort behind a folder: they go first.
    litter = [f"{tag}/{folder}" for folder in sorted(held.litter, reverse=True)]
    algorithms = sorted({"sha256", *(digest.partition("/")[0] for digest in held.digests)})
    index = [f"{tag}/index/{name}" for name in [*sorted(held.digests), *algorithms]]
    return [*litter, *index, f"{tag}/index", f"{tag}/current", tag]
