"""Repositories whose names begin with another's: `team/app/cache` within `team/app`."""

from __future__ import annotations

from regstore import layout
from regstore.registry.links import AREAS_END
from regstore.storage.base import Storage


async def find_nested(storage: Storage, name: str) -> list[str]:
    """In the order of their keys. About one LIST each: what a repository holds is jumped over."""
    prefix = layout.repository_prefix(name)
    found: dict[str, None] = {}
    key = await _first_key(storage, prefix, "")
    while key is not None:
        around = layout.repository_around(key)
        if around and around != name:
            found[around] = None
        behind = layout.repository_prefix(around) + AREAS_END if around else key
        key = await _first_key(storage, prefix, max(key, behind))
    return list(found)


async def _first_key(storage: Storage, prefix: str, after: str) -> str | None:
    async for page in storage.list(prefix, start_after=after):
        if page.keys:
            return page.keys[0]
    return None
