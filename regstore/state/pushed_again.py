"""Tags that are pushed again while a run takes them away: gc, migrate --delete, verify --drop-broken-tags.

A registry writes a tag's index link, then its current/link, and a push by the same digest writes the very keys that
go; no store deletes on the condition that a key did not change. So that no tag is lost of which a client was told that
it is there:

- where a listing shows an index link newer than its current/link, a push stands between the two: the tag is left alone;
- current/link goes first. Then the tags are listed, and only then index links go. A push that wrote both links before
  our delete shows by its index link, and gets its current/link back (`give_back`); one that wrote only the index link,
  or nothing yet, writes a current/link that stays.

A tag that a client deletes takes its index links with it, so it does not come back.
"""

from __future__ import annotations

from collections.abc import Mapping

from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.layout import TagCurrentKey, TagIndexKey, decode, encode, link_body, tags_prefix
from regstore.state.lock import Leave
from regstore.storage.base import Storage
from regstore.tagging import UNDER_WAY, put_missing


async def give_back(
    storage: Storage, lock: Leave, removed: Mapping[TagCurrentKey, int], *, now: int, concurrency: int
) -> tuple[set[TagCurrentKey], list[str]]:
    """Look at tags whose current/link was just deleted (with its time, in microseconds), their index links not yet.

    `now`: when the run began, by the store's clock.

    Returns the tags that were pushed meanwhile, of which nothing more must go, and the keys that were written again.
    One LIST a thousand keys of each repository's tags, or of its one tag.
    """
    busy: set[TagCurrentKey] = set()
    back: list[str] = []
    tags: dict[str, list[TagCurrentKey]] = {}
    for tag in removed:
        tags.setdefault(tag.name, []).append(tag)
    prefixes = [
        f"{tags_prefix(name)}{some[0].tag}/" if len(some) == 1 else tags_prefix(name)
        for name, some in sorted(tags.items())
    ]

    async def look(prefix: str) -> None:
        newest: dict[TagCurrentKey, tuple[int, Digest]] = {}
        standing: set[TagCurrentKey] = set()
        async for page in storage.list(prefix):
            for text, mtime in zip(page.keys, page.mtimes, strict=True):
                key = decode(text)
                if isinstance(key, TagCurrentKey) and key in removed:
                    standing.add(key)
                elif isinstance(key, TagIndexKey):
                    tag = TagCurrentKey(key.name, key.tag)
                    if tag in removed and mtime > max(removed[tag], now - UNDER_WAY):
                        newest[tag] = max(newest.get(tag, (0, key.digest)), (mtime, key.digest), key=_time)
        busy.update(standing, newest)
        for tag in sorted(newest.keys() - standing, key=encode):
            mtime, digest = newest[tag]
            async with lock.batch():
                if await put_missing(storage, encode(tag), link_body(digest), since=mtime):
                    back.append(encode(tag))

    await for_each(prefixes, look, concurrency=concurrency)
    return busy, sorted(back)


def _time(entry: tuple[int, Digest]) -> int:
    return entry[0]
