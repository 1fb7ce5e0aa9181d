"""Other objects of a store, to tell damage from outage (`storage.outage`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from regstore import layout
from regstore.digest import Digest
from regstore.errors import Archived, StorageError
from regstore.inventory.inventory import Inventory
from regstore.storage.outage import OutageWatch, Sample


def other_blobs(inventory: Inventory, key_of: Callable[[Digest], str] = layout.blob_key) -> Sample:
    """Blobs of the inventory from all over the store, none that is known to be archived."""

    def sample(most: int, failed: Sequence[str]) -> list[str]:
        bad = set(failed)
        rows = inventory.connection.cursor()
        try:
            rows.execute(
                "select digest from blob where size > 0 and digest not in (select digest from archived_blob)"
                " order by hash(digest) limit ?",
                [most + len(bad)],
            )
            keys = [key_of(Digest.from_raw(bytes(raw))) for (raw,) in rows.fetchall()]
        finally:
            rows.close()
        return [key for key in keys if key not in bad][:most]

    return sample


async def note_not_given(inventory: Inventory, watch: OutageWatch, key: str, error: StorageError) -> None:
    """One object could not be read. Raises where that is no damage of the one object."""
    await watch.bad(key, error)
    if isinstance(error, Archived):
        inventory.note_archived(key)
