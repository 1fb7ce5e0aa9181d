"""Blobs that came after the newest link of the whole store, and that no link names: does a registry write none?

A registry with a metadata database writes blobs and no links (`inventory.whose`), and its mark may be missing: it is
written at start-up, and a copy of the store may have left it out. What it leaves is a store whose links are old, and
whose unlinked blobs come steadily. Distribution does not leave that: it writes a blob's layer link in the request that
ends the upload, so unlinked blobs are those of single requests that were cut off between the two.

Repositories that somebody removed as folders leave it, too, where only those were pushed to. But then their manifests
are among the blobs, one an image; GitLab's database holds manifests itself (its table `manifests`, column `payload`),
and none of them is a blob. So small blobs are read, in the order of their digests, which is none, and only where no
manifest is among them is it called suspicious. Where one small blob of thirty is a manifest, 256 of them show it but
for one case in 5,000. That makes false alarms rare enough for gc to stop.

A few blobs are no sign yet: it takes `_BLOBS`, on `_DAYS` days (UTC), an hour or more after the newest link.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import InvalidManifest, StorageError
from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import Statements
from regstore.layout import blob_key
from regstore.manifest import parse_manifest
from regstore.storage.base import Storage
from regstore.storage.streams import is_fatal
from regstore.words import Moment

_SQL: Final = Statements("regstore.inventory", "unlinked.sql")
#: SQL: the digests that links name.
LINKED: Final = _SQL.text("linked")
_HOUR: Final = 3600 * 1_000_000
_DAY: Final = 24 * _HOUR
_BLOBS: Final = 10
_DAYS: Final = 3
#: Blobs that are read, and the sizes between which nearly all manifests lie.
READ: Final = 256
_SIZES: Final = 100, 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Unlinked:
    """newest_link: in microseconds; None where there are no links. days: on which the blobs came. manifests: whether
    one of those that were read is a manifest. unseen_days: days since then of whose blobs nothing is known,
    for these are an older report's."""

    newest_link: Moment | None = None
    blobs: int = 0
    blob_bytes: int = 0
    days: int = 0
    manifests: bool = False
    unseen_days: int = 0

    @property
    def untold(self) -> bool:
        """Whether blobs may have come steadily, for all that a report shows."""
        return not self.steady and self.unseen_days > 0 and self.days + self.unseen_days >= _DAYS

    @property
    def steady(self) -> bool:
        return self.blobs >= _BLOBS and self.days >= _DAYS

    @property
    def suspicious(self) -> bool:
        return self.steady and not self.manifests

    def __str__(self) -> str:
        newest = datetime.fromtimestamp((self.newest_link or 0) // 1_000_000, UTC)
        return (
            f"{self.blobs:,} blobs ({self.blob_bytes:,} bytes) came on {self.days} days after the newest link of the "
            f"store ({newest:%Y-%m-%d}), and no link names them"
        )


@dataclass(frozen=True, kw_only=True)
class UnlinkedBlobs:
    """Of a store, or of a part of its blobs. days: on which they came, by number since 1970, UTC."""

    blobs: int = 0
    blob_bytes: int = 0
    days: frozenset[int] = frozenset()


def newest_link(inventory: Inventory) -> int | None:
    """When the newest link was written, in microseconds; None where there is none."""
    [(newest,)] = _SQL.run(inventory, "newest_link").fetchall()
    return None if newest is None else int(newest)


def find_unlinked(inventory: Inventory, *, since: int | None, linked: str = LINKED) -> UnlinkedBlobs:
    """unlinked_blob. since: when the newest link of the store was written. linked: SQL for what digests links name."""
    if since is None:
        return UnlinkedBlobs()
    _SQL.run(inventory, "unlinked", {"since": since + _HOUR}, linked=linked)
    [(blobs, blob_bytes, days)] = _SQL.run(inventory, "sums", {"day": _DAY}).fetchall()
    return UnlinkedBlobs(blobs=blobs, blob_bytes=blob_bytes, days=frozenset(days))


def add_unlinked(newest: int | None, parts: Sequence[UnlinkedBlobs]) -> Unlinked:
    """Of all parts together; `manifests` is not looked for."""
    return Unlinked(
        newest_link=newest,
        blobs=sum(part.blobs for part in parts),
        blob_bytes=sum(part.blob_bytes for part in parts),
        days=len(frozenset[int]().union(*(part.days for part in parts))),
    )


def small_unlinked(inventory: Inventory) -> list[bytes]:
    """Of unlinked_blob, the digests of some that may be manifests: so many as are read, the first ones."""
    given = {"least": _SIZES[0], "most": _SIZES[1], "number": READ}
    return [bytes(raw) for (raw,) in _SQL.run(inventory, "small", given).fetchall()]


def unseen_days(inventory: Inventory, newest: int | None) -> int:
    """Days, any part of them, that came an hour after the newest link, and after the report that the blobs are from."""
    if inventory.reported is None or newest is None:
        return 0
    begin = max(newest + _HOUR, inventory.reported.created)
    return inventory.scanned_at // _DAY - begin // _DAY + 1 if begin < inventory.scanned_at else 0


async def look_for_manifests(
    storage: Storage, digests: Callable[[], Sequence[bytes]], unlinked: Unlinked, *, concurrency: int
) -> Unlinked:
    """Read small blobs, where they came steadily. One that can't be read is no manifest. digests: as `small_unlinked`
    gives them."""
    if not unlinked.steady:
        return unlinked
    found = False

    async def look(raw: bytes) -> None:
        nonlocal found
        try:
            parse_manifest(await storage.get(blob_key(Digest.from_raw(raw))))
        except InvalidManifest:
            return
        except StorageError as error:
            if is_fatal(error):
                raise
            return
        found = True

    await for_each(digests(), look, concurrency=concurrency)
    return replace(unlinked, manifests=found)


class KeysOnly:
    """The same by keys and their times alone, without an inventory: for a quick look, which reads no link. A blob that
    is newer than every link is named by none that a registry wrote."""

    def __init__(self) -> None:
        self._blobs: Counter[int] = Counter()
        self._bytes: Counter[int] = Counter()
        self._newest = 0

    def blob(self, size: int, mtime: int) -> None:
        self._blobs[mtime // _HOUR] += 1
        self._bytes[mtime // _HOUR] += size

    def link(self, mtime: int) -> None:
        self._newest = max(self._newest, mtime)

    def result(self) -> Unlinked:
        if not self._newest:
            return Unlinked()
        hours = [hour for hour in self._blobs if hour > self._newest // _HOUR + 1]
        return Unlinked(
            newest_link=self._newest,
            blobs=sum(self._blobs[hour] for hour in hours),
            blob_bytes=sum(self._bytes[hour] for hour in hours),
            days=len({hour // 24 for hour in hours}),
        )
