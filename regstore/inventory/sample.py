"""Other objects of a store, to tell damage from outage (`storage.outage`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from regstore import layout
from regstore.digest import Digest
from regstore.inventory.inventory import Inventory
from regstore.storage.outage import Sample


def blob_key(digest: Digest) -> str:
    return layout.encode(layout.BlobKey(digest))


def other_blobs(inventory: Inventory, key_of: Callable[[Digest], str] = blob_key) -> Sample:
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
