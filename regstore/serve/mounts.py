"""Which repositories there are under which names, and in what store each lies.

A store, or one snapshot of a backup, is served under the names it has. A whole backup is served with every snapshot
under a prefix of its own: `20261124t031500z-1a2b3c4d/team/app`, and `latest/team/app` for the newest.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from regstore.backup import choose, list_snapshots
from regstore.backup.as_store import SnapshotStorage
from regstore.backup.format import SNAPSHOTS
from regstore.backup.opening import check_marker
from regstore.errors import InputError, NameUnknown
from regstore.reference import parse_name
from regstore.registry import Registry, Repository
from regstore.storage.base import Storage

LATEST: Final = "latest"
#: Snapshots that keep in memory what they have read of their packs, some 100 MB each at most.
_READ: Final = 4


class Mounts(Protocol):
    """Repositories by the name that a client uses."""

    async def find(self, name: str) -> Repository:
        """The repository under this name, which need not be there. InvalidReference; NameUnknown."""
        ...

    async def names(self, after: str, most: int) -> tuple[Sequence[str], bool]:
        """Names after one, which need not be there, in byte order, at most so many, and whether there are more."""
        ...


@dataclass(frozen=True, slots=True)
class StoreMount:
    """One store under the names it has."""

    registry: Registry

    async def find(self, name: str) -> Repository:
        return self.registry.repository(parse_name(name))

    async def names(self, after: str, most: int) -> tuple[Sequence[str], bool]:
        storage = self.registry.storage
        if isinstance(storage, SnapshotStorage):  # it knows them without a listing
            return _part(sorted(storage.snapshot.repositories), after, most)
        return await self.registry.page(after=after, most=most)


class BackupMount:
    """Every snapshot of a backup, each under its ID in lower case, and the newest under `latest` too.

    Their keys are listed anew when a name is asked for that is not known, or `latest`; only when these have changed are
    the snapshots read again.
    """

    def __init__(self, backup: Storage) -> None:
        self._backup = backup
        self._snapshots: dict[str, SnapshotStorage] = {}
        self._keys: tuple[str, ...] | None = None
        #: Those that were asked last, the newest at the end.
        self._used: dict[str, SnapshotStorage] = {}

    async def find(self, name: str) -> Repository:
        prefix, _, rest = parse_name(name).partition("/")
        if prefix not in self._snapshots or prefix == LATEST:
            await self.refresh()
        snapshot = self._snapshots.get(prefix)
        if snapshot is None or not rest:
            raise NameUnknown(
                f"{self._backup.url} has no snapshot {prefix}: a name here begins with a snapshot's ID"
            )
        await self.touch(snapshot)
        return Registry(snapshot).repository(rest)

    async def touch(self, snapshot: SnapshotStorage) -> None:
        """Say that it is read now: of those that were longest not, what they have read is forgotten."""
        self._used.pop(snapshot.url, None)
        self._used[snapshot.url] = snapshot
        while len(self._used) > _READ:
            oldest = self._used.pop(next(iter(self._used)))
            await oldest.close()  # asked again, it reads again

    async def names(self, after: str, most: int) -> tuple[Sequence[str], bool]:
        snapshots = await self.refresh()
        names = sorted(
            f"{prefix}/{name}" for prefix, one in snapshots.items() for name in one.snapshot.repositories
        )
        return _part(names, after, most)

    async def refresh(self) -> Mapping[str, SnapshotStorage]:
        """The snapshots that are there now, by prefix."""
        keys = tuple([key async for page in self._backup.list(SNAPSHOTS) for key in page.keys])
        if keys == self._keys:
            return self._snapshots
        listed = await list_snapshots(self._backup)
        found: dict[str, SnapshotStorage] = {}
        for snapshot in listed.snapshots:
            prefix = snapshot.run.lower()
            known = self._snapshots.get(prefix)
            found[prefix] = known if known is not None else SnapshotStorage(self._backup, snapshot)
        try:
            found[LATEST] = found[choose(listed, LATEST, self._backup.url).run.lower()]
        except InputError:  # several sources, none of which is the one that is meant
            pass
        self._snapshots, self._keys = found, keys
        return found


def _part(names: Sequence[str], after: str, most: int) -> tuple[Sequence[str], bool]:
    start = bisect_right(names, after)
    return names[start : start + most], start + most < len(names)


def _as_id(text: str) -> str:
    """A snapshot's ID as it is stored, where it is written in lower case, as in names that are pulled."""
    return (
        text[:8] + text[8:].replace("t", "T").replace("z", "Z") if text[:8].isdigit() and text[8:9] == "t" else text
    )


async def open_mounts(storage: Storage, snapshot: str = "") -> Mounts:
    """What is served of a place: a registry's store, a backup, or the snapshot of one that an ID, the beginning of
    one, `latest` or a time names. NotARegistry where it is neither; InputError where there is no such snapshot."""
    if await check_marker(storage):
        if not snapshot:
            return BackupMount(storage)
        chosen = choose(await list_snapshots(storage), _as_id(snapshot), storage.url)
        return StoreMount(Registry(SnapshotStorage(storage, chosen)))
    if snapshot:
        raise InputError(f"{storage.url} is no backup, so it has no snapshot {snapshot!r}: leave --snapshot out")
    registry = Registry(storage)
    await registry.require()
    return StoreMount(registry)
