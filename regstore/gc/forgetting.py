"""What went, and the registry's own descriptor cache is to forget (`gc.caches`), where it is in reach."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from regstore import layout
from regstore.gc.caches import RegistryCache
from regstore.inventory.inventory import Inventory, digest_text
from regstore.layout import LayerLinkKey, RevisionLinkKey
from regstore.state import TRASH
from regstore.state.journal import RunRecord, read_parts
from regstore.state.trashed import TrashedRun
from regstore.storage.base import Storage


async def forget_runs(storage: Storage, cache: RegistryCache, runs: Iterable[TrashedRun]) -> int:
    """Make the cache forget what the runs removed; how many entries there were."""
    if not cache.in_reach:
        return 0
    forgotten = 0
    for run in runs:
        for parts in run.record.parts if run.record else ():
            async for entries in read_parts(storage, [parts]):
                keys = [layout.decode(entry.key) for entry in entries]
                forgotten += await cache.forget_links(
                    (key.name, str(key.digest)) for key in keys if isinstance(key, LayerLinkKey | RevisionLinkKey)
                )
                forgotten += await cache.forget_blobs(
                    str(key.digest) for key in keys if isinstance(key, layout.BlobKey)
                )
        async for page in storage.list(f"{TRASH}{run.run}/"):
            keys = [layout.decode(key[len(f"{TRASH}{run.run}/") :]) for key in page.keys]
            forgotten += await cache.forget_blobs(
                str(key.digest) for key in keys if isinstance(key, layout.BlobKey)
            )
    return forgotten


async def forget_past(inventory: Inventory, cache: RegistryCache, runs: Sequence[RunRecord]) -> None:
    """Make the cache forget what earlier runs removed (by `Past`'s relations), but for those that saw to it."""
    if not cache.in_reach:
        return
    clean = [record.run for record in runs if record.done and record.done.get("cache") == cache.known.kind]
    unclean = "run not in (select unnest(?::varchar[]))"
    links = inventory.all(f"select distinct name, digest from removed where {unclean}", [clean])
    await cache.forget_links((name, digest_text(raw)) for name, raw in links)
    blobs = inventory.all(f"select distinct digest from trash where {unclean}", [clean])
    await cache.forget_blobs(digest_text(raw) for (raw,) in blobs)
