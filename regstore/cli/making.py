"""The place that a command is to fill: whether it is there, and who makes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regstore import layout
from regstore.errors import NoSuchBucket

if TYPE_CHECKING:
    from regstore.storage.base import Storage


async def is_there(storage: Storage) -> bool:
    """Whether the bucket or folder is there. NoSuchBucket where a file is, of which no folder can be made."""
    from regstore.storage.optional import IsFolder

    try:
        await anext(storage.list(layout.PREFIX), None)
    except NoSuchBucket:
        if isinstance(storage, IsFolder) and storage.folder.exists():
            raise
        return False
    return True


async def refuse_missing(storage: Storage, *, made: str) -> None:
    """NoSuchBucket, with the word that makes it. made: what --create does."""
    try:
        await anext(storage.list(layout.PREFIX), None)
    except NoSuchBucket as error:
        raise NoSuchBucket(f"{error}: --create {made}") from error
