"""Tags that are pushed again while gc takes them away.

A registry writes a tag's index link, then its current/link, and a push by the same digest writes the very keys that
go; no store deletes on the condition that a key did not change. So that no tag is lost of which a client was told that
it is there:

- where a listing shows an index link newer than its current/link, a push stands between the two: the repository is
  left for the next run (`half_pushed`);
- current/link goes first. Then the tags are listed, and only then index links go. A push that wrote both links before
  our delete shows by its index link, and gets its current/link back (`give_back`); one that wrote only the index link,
  or nothing yet, writes a current/link that stays.

A tag that a client deletes takes its index links with it, so it does not come back.
"""

from __future__ import annotations

from collections.abc import Mapping

from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.gc.heal import UNDER_WAY, put_missing
from regstore.inventory.inventory import Inventory
from regstore.layout import TagCurrentKey, TagIndexKey, decode, encode, link_body, tags_prefix
from regstore.runs.lock import Lock
from regstore.storage.base import Storage


def half_pushed(look: Inventory, *, now: int) -> set[str]:
    """Names of repositories in which a tag's index link is newer than its current/link. `now` in microseconds."""
    rows = look.all(
        """
        select distinct r.name from tag_index i
        join tag t on t.repository = i.repository and t.name = i.name
        join repository r on r.id = i.repository
        where i.mtime > t.mtime and i.mtime >= ?
        """,
        [now - UNDER_WAY],
    )
    return {name for (name,) in rows}


async def give_back(
    storage: Storage, lock: Lock, removed: Mapping[TagCurrentKey, int], *, now: int, concurrency: int
) -> tuple[set[str], list[str]]:
    """Look at tags whose current/link was just deleted (with its time, in microseconds), their index links not yet.

    `now`: when gc began, by the store's clock.

    Returns the names of repositories in which one was pushed meanwhile, where nothing more must go, and the keys that
    were written again. One LIST a thousand keys of each repository's tags.
    """
    busy: set[str] = set()
    back: list[str] = []
    tags: dict[str, dict[str, int]] = {}
    for key, mtime in removed.items():
        tags.setdefault(key.name, {})[key.tag] = mtime

    async def look(name: str) -> None:
        newest: dict[str, tuple[int, Digest]] = {}
        standing: set[str] = set()
        async for page in storage.list(tags_prefix(name)):
            for text, mtime in zip(page.keys, page.mtimes, strict=True):
                key = decode(text)
                if isinstance(key, TagCurrentKey) and key.tag in tags[name]:
                    standing.add(key.tag)
                elif isinstance(key, TagIndexKey) and mtime > max(tags[name].get(key.tag, mtime), now - UNDER_WAY):
                    newest[key.tag] = max(newest.get(key.tag, (0, key.digest)), (mtime, key.digest), key=_time)
        if standing or newest:
            busy.add(name)
        for tag in sorted(newest.keys() - standing):
            current = encode(TagCurrentKey(name, tag))
            async with lock.batch():
                mtime, digest = newest[tag]
                if await put_missing(storage, current, link_body(digest), since=mtime):
                    back.append(current)

    await for_each(sorted(tags), look, concurrency=concurrency)
    return busy, sorted(back)


def _time(entry: tuple[int, Digest]) -> int:
    return entry[0]
