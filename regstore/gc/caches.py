"""The registry's own descriptor cache, which answers for blobs that are gone.

While it does, a push of a removed layer is not stored, and not even a removed manifest's blob is (seen with 2.8.3 and
3.1.1). The in-memory cache of 2.x never forgets until the process ends; Redis keys have no expiry, and are removed
here. What a stale answer let through is given back from the trash, so the trash of a run may go only once no cache
answers for what the run removed.

Keys in Redis, the same in 2.x and 3.x (registry/storage/cache/redis/redis.go):

    blobs::<digest>                         hash: the descriptor of a blob or manifest, whatever the repository
    repository::<name>::blobs               set: digests that the repository links
    repository::<name>::blobs::<digest>     hash: the media type there
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from regstore.errors import InputError, Unreachable
from regstore.state.known_cache import KnownCache
from regstore.state.registry_state import CacheKind
from regstore.storage.registry_config import RedisSettings

_BATCH: Final = 1000
_TIMEOUT: Final = 30.0


class RegistryCache(Protocol):
    """known: what the registry uses, and what that allows. in_reach: `forget_links` and `forget_blobs` reach it."""

    known: KnownCache
    in_reach: bool

    async def forget_links(self, links: Iterable[tuple[str, str]]) -> int:
        """(repository, digest) of layer and revision links that were removed; how many entries there were."""
        ...

    async def forget_blobs(self, digests: Iterable[str]) -> int:
        """Digests of blobs that were removed; how many entries there were."""
        ...

    async def close(self) -> None: ...


class NoCache:
    """No cache at all, or one that is out of reach: in the registry's own memory, or a Redis at an unknown address."""

    in_reach = False

    def __init__(self, kind: CacheKind = "none", *, known: KnownCache | None = None) -> None:
        self.known = known or KnownCache(kind=kind)

    async def forget_links(self, links: Iterable[tuple[str, str]]) -> int:
        return 0

    async def forget_blobs(self, digests: Iterable[str]) -> int:
        return 0

    async def close(self) -> None:
        return


class RedisCache:
    """The registry's Redis: one server, a cluster (several addresses), or sentinels. Made by `open_redis`."""

    in_reach = True

    def __init__(self, client: Any, where: str, known: KnownCache) -> None:
        self.known = known
        self._client = client
        self._where = where

    async def forget_links(self, links: Iterable[tuple[str, str]]) -> int:
        return await self._send(_link_commands(links))

    async def forget_blobs(self, digests: Iterable[str]) -> int:
        return await self._send(("DEL", f"blobs::{digest}") for digest in digests)

    async def close(self) -> None:
        await self._client.aclose()

    async def check(self) -> None:
        """Unreachable unless it answers."""
        from redis.exceptions import RedisError

        try:
            await self._client.ping()
        except (RedisError, OSError) as error:
            raise self._unreachable(error) from error

    async def _send(self, commands: Iterator[tuple[str, ...]]) -> int:
        from redis.exceptions import RedisError

        removed = 0
        while batch := list(islice(commands, _BATCH)):
            pipeline = self._client.pipeline(transaction=False)
            for command in batch:
                pipeline.execute_command(*command)
            try:
                removed += sum(await pipeline.execute())
            except (RedisError, OSError) as error:
                raise self._unreachable(error) from error
        return removed

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(
            f"the registry's Redis at {self._where} can't be used ({error}); its cache still answers for blobs that "
            "are gone until the command is run again with it"
        )


def _link_commands(links: Iterable[tuple[str, str]]) -> Iterator[tuple[str, ...]]:
    for name, digest in links:
        yield "SREM", f"repository::{name}::blobs", digest
        yield "DEL", f"repository::{name}::blobs::{digest}"
        # A layer linked by its sha512 has a descriptor under that digest, too, and no blob of that name ever goes.
        if not digest.startswith("sha256:"):
            yield "DEL", f"blobs::{digest}"


async def open_redis(settings: RedisSettings | str, *, known: KnownCache | None = None) -> RedisCache:
    """The Redis of a registry's configuration, or at a URL (redis:// or rediss://); it is asked for a sign of life.

    InputError where the `redis` package is not installed or the URL is none. Close it.
    """
    try:
        import redis.asyncio
        from redis.asyncio.cluster import ClusterNode, RedisCluster
        from redis.asyncio.sentinel import Sentinel
    except ImportError as error:
        raise InputError(
            "the registry's Redis can't be reached without the package redis: pip install 'regstore[redis]'"
        ) from error
    limits = {"socket_timeout": _TIMEOUT, "socket_connect_timeout": _TIMEOUT}
    client: Any
    if isinstance(settings, str):
        try:
            parts = urlsplit(settings)
            where = f"{parts.hostname}:{parts.port or 6379}"
            client = redis.asyncio.Redis.from_url(settings, **limits)
        except ValueError as error:
            raise InputError("the Redis URL must look like redis://[user:password@]host:6379/0") from error
    else:
        where = ", ".join(settings.addrs)
        addresses = [_address(address) for address in settings.addrs]
        access = {"username": settings.username, "password": settings.password, "ssl": settings.tls, **limits}
        if settings.master_name:
            sentinel = Sentinel(addresses, sentinel_kwargs=limits, **access, db=settings.db)
            client = sentinel.master_for(settings.master_name)
        elif len(addresses) > 1:
            client = RedisCluster(startup_nodes=[ClusterNode(*address) for address in addresses], **access)
        else:
            client = redis.asyncio.Redis(host=addresses[0][0], port=addresses[0][1], db=settings.db, **access)
    cache = RedisCache(client, where, known or KnownCache(kind="redis"))
    try:
        await cache.check()
    except BaseException:
        await cache.close()
        raise
    return cache


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    try:
        return (host.strip("[]"), int(port)) if host else (text, 6379)
    except ValueError as error:
        raise InputError(f"{text!r} is no address of a Redis server, such as cache:6379") from error
