"""Which descriptor cache the registry has: told by options, read from its own configuration, or remembered; and since
when its processes run."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from regstore.cli.output import counted, emit, iso, size
from regstore.errors import InputError

if TYPE_CHECKING:
    from regstore.gc.caches import RegistryCache
    from regstore.state.known_cache import KnownCache
    from regstore.state.not_freed import NotFreed
    from regstore.state.registry_state import CacheKind, CacheWord
    from regstore.storage.base import Storage
    from regstore.storage.registry_config import RegistryConfig

_NAMES: Final[dict[str, CacheKind]] = {"none": "none", "inmemory": "inmemory", "redis": "redis"}


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """What the command line said of the registry. config_path: of --registry-config."""

    registry_cache: str | None = None
    redis_url: str | None = None
    debug_urls: list[str] = field(default_factory=list)
    restart_command: str | None = None
    config_path: Path | None = None


def told_cache(options: CacheOptions, config: RegistryConfig | None) -> tuple[CacheWord | None, bool]:
    """What the options and the configuration say together, and whether an option said it. InputError where they
    contradict each other."""
    from regstore.state.registry_state import CacheWord

    told, redis_url = options.registry_cache, options.redis_url
    if told not in (None, *_NAMES):
        raise InputError(f"--registry-cache is none, inmemory or redis, not {told}")
    if redis_url is not None and told not in (None, "redis"):
        raise InputError(f"--redis-url and --registry-cache {told} exclude each other")
    wanted = told or ("redis" if redis_url is not None else None)
    known = config.cache if config is not None else "unknown"
    if wanted is not None and known not in ("unknown", wanted):
        raise InputError(
            f"the registry's configuration says that its cache is {known}, and the options say {wanted}"
        )
    now = time.time_ns() // 1000
    if wanted is not None:
        source = "--registry-cache" if told is not None else "--redis-url"
        return CacheWord(kind=_NAMES[wanted], source=source, said=now), True
    if config is not None:
        source = str(options.config_path) if options.config_path is not None else "the registry's configuration"
        return CacheWord(kind=_NAMES.get(known, "unknown"), source=source, said=now), False
    return None, False


async def known_cache(storage: Storage, options: CacheOptions, config: RegistryConfig | None) -> KnownCache:
    """All that is known of the cache. One GET, and the processes are asked at their debug addresses."""
    from regstore.gc.process_start import ask_processes
    from regstore.state.known_cache import SAY_ONCE, judge_cache
    from regstore.state.registry_state import read_state

    word, by_option = told_cache(options, config)
    known = judge_cache(word, await read_state(storage), by_option=by_option)
    if options.restart_command is not None and known.kind == "unknown":
        raise InputError(
            f"--restart-command is for a registry whose cache is in its memory, and this one's is not known: {SAY_ONCE}"
        )
    return await ask_processes(storage, known, options.debug_urls)


@asynccontextmanager
async def open_cache(
    storage: Storage, options: CacheOptions, config: RegistryConfig | None
) -> AsyncIterator[RegistryCache]:
    """The cache as the library takes it; a Redis is asked for a sign of life first."""
    from regstore.gc.caches import NoCache, open_redis

    known = await known_cache(storage, options, config)
    if known.kind != "redis":
        yield NoCache(known=known)
        return
    settings = options.redis_url or (config.redis if config is not None else None)
    if settings is None:
        if options.registry_cache is not None or config is not None:
            raise InputError("where is the registry's Redis? Say --redis-url, or --registry-config")
        yield NoCache(
            known=known.with_doubt(
                f"the registry's cache is {known}, and this run was not told where that is",
                "say --redis-url, or --registry-config",
            )
        )
        return
    cache = await open_redis(settings, known=known)
    try:
        yield cache
    finally:
        await cache.close()


async def remember_cache(storage: Storage, known: KnownCache) -> None:
    """Note in the store what was said, where that is news. With the store's lock held."""
    from dataclasses import replace

    from regstore.state.registry_state import read_state, write_state

    word = known.to_remember()
    if word is not None:
        await write_state(storage, replace(await read_state(storage), cache=word))


@dataclass(frozen=True)
class Left:
    """What the cache is, and what of the trash is not free yet, as every report says it."""

    known: KnownCache
    not_freed: NotFreed

    def show(self) -> None:
        emit(f"cache: {self.known}")
        if self.known.doubt and all(part.because != self.known.doubt for part in self.not_freed.parts):
            emit(f"nothing would be freed: {self.known.doubt}; {self.known.settle}")
        for part in self.not_freed.parts:
            runs = f" in {counted(len(part.runs), 'run')}" if part.runs else ""
            emit(
                f"not freed yet: {size(part.blob_bytes)}{runs}, because {part.because}; to free it: {part.to_free}"
            )

    def json(self) -> dict[str, Any]:
        known, left = self.known, self.not_freed
        return {
            "cache": {
                "kind": known.kind,
                "source": known.word.source if known.word is not None else None,
                "said": iso(known.word.said) if known.word is not None else None,
                "doubt": known.doubt or None,
                "restarted_after": iso(known.restarted_after),
            },
            "not_freed": {
                "blobs": left.blobs,
                "bytes": left.blob_bytes,
                "parts": list(left.parts),
            },
        }


async def find_left(storage: Storage, known: KnownCache, *, versions: tuple[int, int] | None = None) -> Left:
    """Of the whole trash as it is now. versions: blobs and bytes that were deleted in a bucket that keeps them."""
    from regstore.state.not_freed import look_at_trash

    return Left(known, (await look_at_trash(storage, known)).with_versions(versions))
