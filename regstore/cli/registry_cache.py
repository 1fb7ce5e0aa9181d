"""Which descriptor cache the registry has: told by options, or read from its own configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from regstore.errors import InputError

if TYPE_CHECKING:
    from regstore.gc.caches import CacheKind, RegistryCache
    from regstore.storage.registry_config import RegistryConfig

CacheOption = Annotated[
    str | None,
    typer.Option(
        "--registry-cache",
        metavar="none|inmemory|redis",
        show_default="as --registry-config says, else as inmemory",
        help="The registry's blob descriptor cache.",
    ),
]
RedisUrl = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        metavar="URL",
        show_default=False,
        help="The registry's Redis, such as redis://:password@cache:6379/0.",
    ),
]


def cache_kind(told: str | None, redis_url: str | None, config: RegistryConfig | None) -> CacheKind:
    """What the options and the configuration say together. InputError where they contradict each other."""
    if told not in (None, "none", "inmemory", "redis"):
        raise InputError(f"--registry-cache is none, inmemory or redis, not {told}")
    if redis_url is not None and told not in (None, "redis"):
        raise InputError(f"--redis-url and --registry-cache {told} exclude each other")
    wanted = told or ("redis" if redis_url is not None else None)
    known = config.cache if config is not None else "unknown"
    if wanted is not None and known not in ("unknown", wanted):
        raise InputError(
            f"the registry's configuration says that its cache is {known}, and the options say {wanted}"
        )
    kinds: dict[str, CacheKind] = {"none": "none", "inmemory": "inmemory", "redis": "redis"}
    return kinds.get(wanted or known, "unknown")


@asynccontextmanager
async def open_cache(
    told: str | None, redis_url: str | None, config: RegistryConfig | None
) -> AsyncIterator[RegistryCache]:
    """The cache as the library takes it; a Redis is asked for a sign of life first."""
    from regstore.gc.caches import NoCache, open_redis

    kind = cache_kind(told, redis_url, config)
    if kind != "redis":
        yield NoCache(kind)
        return
    settings = redis_url or (config.redis if config is not None else None)
    if settings is None:
        raise InputError("where is the registry's Redis? Say --redis-url, or --registry-config")
    cache = await open_redis(settings)
    try:
        yield cache
    finally:
        await cache.close()
