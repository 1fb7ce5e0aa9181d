"""Whose registry a store is, as far as it decides whether the links in it are the whole truth.

GitLab's registry can keep its metadata in PostgreSQL. Then a push writes its blobs into the store and nothing else: its
tags, manifests and layer links are in the database only. To whoever goes by links such a blob is garbage, and a copy of
what links reach lacks every image that was pushed since. Two things say so:

- the key `docker/registry/lockfiles/database-in-use` in the store; GitLab's own garbage-collect refuses where it stands
  (docs.gitlab.com, "offline garbage collection is no longer possible"). The registry writes it when it starts or
  imports, not with each push. `filesystem-in-use` beside it says the opposite, and is normal. Both at once is a state
  that GitLab's registry does not start in; it counts as the database here.
- `database.enabled: true` or `prefer` in the registry's configuration (`storage.registry_config`).

What is removed by links is refused then, and so is what is copied or written by links. Who only looks says so first.
The key sorts before the blobs, so the listing of these shows it, and no request is spent on it (`inventory.scan`). It
may come later, while somebody reads the plan or a long run is under way: so gc asks again, by one LIST, before the
first link goes, and with each look at all links before blobs go.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from typing import Final

from regstore.errors import Refused
from regstore.layout import DATABASE_IN_USE, LOCKFILES
from regstore.storage.base import Storage
from regstore.storage.registry_config import RegistryConfig

_BY_KEY: Final = f"the key {DATABASE_IN_USE}"
_ONLINE: Final = "GitLab's online garbage collection removes what its database does not know"


class Use(Enum):
    """What links are needed for: why that can't be, and what to do instead."""

    REMOVE = "what no link reaches may be a live image", _ONLINE
    REPAIR = (
        "what looks broken or lost by them may be whole",
        "`regstore verify` without a repair still reads blobs, and says which are damaged",
    )
    BACK_UP = (
        "a backup, which holds what links reach, would lack every image pushed since",
        "`regstore migrate --all` copies every blob whatever links say; the database is backed up by its own tools",
    )
    MIGRATE = (
        "what they reach is not all that lives",
        "say --all, without --repo, to copy every blob whatever links say; the database moves by its own tools",
    )
    WRITE = (
        "what is written there by links, the registry does not see",
        "write to an empty place and let GitLab's importer read that, or push",
    )


async def database_in_use(storage: Storage) -> str:
    """What in the store says that a database holds the metadata; "" where nothing does. One LIST."""
    async for page in storage.list(LOCKFILES):
        if found := database_told_by(page.keys):
            return found
    return ""


def database_told_by(keys: Collection[str]) -> str:
    """The same of keys that a listing has shown."""
    return _BY_KEY if DATABASE_IN_USE in keys else ""


def database_told(config: RegistryConfig | None) -> str:
    """The same of the registry's configuration."""
    if config is None or not config.database:
        return ""
    return f"database.enabled: {config.database} in the registry's configuration"


def notice(url: str, evidence: str) -> str:
    """For who only looks. evidence: as the two above give it."""
    return (
        f"{url} belongs to a registry that keeps tags and manifests in a database ({evidence} says so): the links in "
        "the store are not the whole truth, and what none reaches may be live"
    )


def refusal(url: str, evidence: str, use: Use) -> Refused:
    why, instead = use.value
    undo = "remove the key" if evidence == _BY_KEY else "correct the configuration"
    return Refused(
        f"{url} belongs to a registry that keeps tags and manifests in a database ({evidence} says so), so links are "
        f"not the whole truth: {why}. {instead}; if the database is no longer used, {undo}"
    )


def refuse_database(url: str, evidence: str, use: Use) -> None:
    """Refused where there is evidence."""
    if evidence:
        raise refusal(url, evidence, use)
