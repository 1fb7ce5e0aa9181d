"""When images were made, as their configs say: read for the tags that a rule asks it of, and remembered.

One GET a config that no earlier run has read. Nothing that fails here stops a run: what can't be read and verified is
'unreadable', and the tag stays.
"""

from __future__ import annotations

from typing import Final

from regstore import layout
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import StorageError
from regstore.events import OnEvent, Progress, ignore
from regstore.gc.policy import Policy
from regstore.gc.retention import Retention
from regstore.inventory.cache import ManifestCache
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import ScanOptions
from regstore.storage.base import Storage

#: A config is a page of JSON; what is larger is none.
CONFIG_MAX: Final = 8 * 1024 * 1024


async def read_created(
    storage: Storage, inventory: Inventory, policy: Policy, options: ScanOptions, *, on_event: OnEvent = ignore
) -> None:
    """Fill main.config_created for the tags of the inventory. See `gc.retention`."""
    if not policy.needs_created:
        return
    retention = Retention(inventory, policy, now=0, grace=0)
    retention.sort()
    wanted = {bytes(digest): size for digest, size in retention.configs()}
    if not wanted:
        return
    cache = ManifestCache(options.cache_dir)
    try:
        known = cache.load_created(list(wanted))
        fresh: dict[bytes, int | None] = {}
        unreadable: list[bytes] = []

        async def read(raw: bytes) -> None:
            digest = Digest.from_raw(raw)
            data = await _read(storage, layout.blob_key(digest), wanted[raw])
            if data is not None and digest.matches(data):
                fresh[raw] = created_of(data)
            else:
                unreadable.append(raw)
            done = len(fresh) + len(unreadable)
            on_event(Progress(phase="reading configs", done=done, total=len(wanted) - len(known), unit="configs"))

        await for_each([raw for raw in wanted if raw not in known], read, concurrency=options.concurrency)
        cache.save_created(fresh.items())
    finally:
        cache.close()
    times = [*known.items(), *fresh.items()]
    inventory.insert(
        "main.config_created",
        {
            "digest": ("binary", [raw for raw, _ in times] + unreadable),
            "time": ("int64", [time for _, time in times] + [None] * len(unreadable)),
            "state": (
                "utf8",
                ["none" if time is None else "ok" for _, time in times] + ["unreadable"] * len(unreadable),
            ),
        },
    )


async def _read(storage: Storage, key: str, size: int | None) -> bytes | None:
    """size: in bytes, where it is known."""
    try:
        if size is None:
            size = (await storage.stat(key)).size
        return await storage.get(key) if size <= CONFIG_MAX else None
    except StorageError:
        return None


def created_of(config: bytes) -> int | None:
    """`created` of a config in microseconds since 1970, None where it does not say."""
    import orjson

    from regstore.registry.uploads import parse_time

    try:
        document = orjson.loads(config)
    except orjson.JSONDecodeError:
        return None
    created = document.get("created") if isinstance(document, dict) else None
    return parse_time(created) if isinstance(created, str) else None
