"""What is in a snapshot, and what differs between two. Reads packs only, and none that both share."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from regstore.backup.format import Pack, Snapshot
from regstore.backup.opening import read_packs
from regstore.digest import Digest
from regstore.errors import IntegrityError
from regstore.storage.base import Storage
from regstore.words import Moment


@dataclass(frozen=True, kw_only=True, order=True)
class TagShown:
    """A tag of a snapshot. size: bytes of all it reaches; new: that the snapshot before did not have it so. time: when
    it was set, in microseconds."""

    repository: str
    tag: str
    digest: str
    size: int
    time: Moment
    new: bool


@dataclass(frozen=True, kw_only=True, order=True)
class TagChange:
    """A tag that came (before is ""), went (after is "") or moved."""

    repository: str
    tag: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Tags that changed; blobs, and their bytes, that only the later or only the earlier snapshot needs, among
    the repositories that changed."""

    tags: tuple[TagChange, ...]
    new_blobs: int
    new_bytes: int
    gone_blobs: int
    gone_bytes: int


async def show_tags(
    storage: Storage, snapshot: Snapshot, before: Snapshot | None, *, concurrency: int = 16
) -> list[TagShown]:
    """Every tag, sorted. IntegrityError where a pack is damaged (`check` says what that touches)."""
    names = sorted(snapshot.repositories)
    packs = await _packs(storage, snapshot, names, concurrency)
    earlier = {}
    if before is not None:
        same = {name for name in names if _pack(before, name) == _pack(snapshot, name)}
        earlier = await _packs(
            storage,
            before,
            [name for name in names if name not in same and name in before.repositories],
            concurrency,
        )
        earlier |= {name: packs[name] for name in same}
    shown = []
    for name, pack in packs.items():
        old = earlier[name].tags if name in earlier else {}
        for tag, packed in pack.tags.items():
            reached = pack.reached([packed.digest])
            shown.append(
                TagShown(
                    repository=name,
                    tag=tag,
                    digest=str(packed.digest),
                    size=sum(pack.blobs[digest] for digest in reached),
                    time=packed.time,
                    new=tag not in old or old[tag].digest != packed.digest,
                )
            )
    return sorted(shown)


async def compare(storage: Storage, one: Snapshot, other: Snapshot, *, concurrency: int = 16) -> Difference:
    """From `one` to `other`."""
    names = {*one.repositories, *other.repositories}
    changed = sorted(name for name in names if _pack(one, name) != _pack(other, name))
    before = await _packs(storage, one, [name for name in changed if name in one.repositories], concurrency)
    after = await _packs(storage, other, [name for name in changed if name in other.repositories], concurrency)
    changes = []
    had: dict[Digest, int] = {}
    has: dict[Digest, int] = {}
    for name in changed:
        old, new = before.get(name, Pack(name=name)), after.get(name, Pack(name=name))
        had.update(old.blobs)
        has.update(new.blobs)
        for tag in sorted({*old.tags, *new.tags}):
            was = str(old.tags[tag].digest) if tag in old.tags else ""
            now = str(new.tags[tag].digest) if tag in new.tags else ""
            if was != now:
                changes.append(TagChange(repository=name, tag=tag, before=was, after=now))
    fresh, gone = has.keys() - had.keys(), had.keys() - has.keys()
    return Difference(
        tags=tuple(changes),
        new_blobs=len(fresh),
        new_bytes=sum(has[digest] for digest in fresh),
        gone_blobs=len(gone),
        gone_bytes=sum(had[digest] for digest in gone),
    )


def _pack(snapshot: Snapshot, name: str) -> str:
    known = snapshot.repositories.get(name)
    return known.pack if known else ""


async def _packs(storage: Storage, snapshot: Snapshot, names: Collection[str], concurrency: int) -> dict[str, Pack]:
    by_pack: dict[str, Pack] = {}
    damaged = await read_packs(
        storage, {_pack(snapshot, name) for name in names}, by_pack.__setitem__, concurrency=concurrency
    )
    if damaged:
        raise IntegrityError(next(iter(damaged.values())))
    return {name: by_pack[_pack(snapshot, name)] for name in sorted(names)}
