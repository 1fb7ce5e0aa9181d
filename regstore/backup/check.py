"""`backup check`: is every listed snapshot complete, and, where it is asked to read, are the bytes right?

Without reading: every snapshot and pack is read and matches its name, and every blob is there with its size.
What is lost or damaged can be written anew from another copy (`repair`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from regstore.backup import format as form
from regstore.backup.format import Pack, Snapshot
from regstore.backup.opening import check_marker, choose, list_snapshots, read_packs
from regstore.backup.read_data import ReadData
from regstore.backup.repair import Copy
from regstore.backup.transfer import in_lanes
from regstore.digest import Digest
from regstore.errors import StorageError
from regstore.events import OnEvent, Progress, ignore
from regstore.storage.base import PutOptions, Storage
from regstore.storage.streams import is_fatal, verified_size


@dataclass(frozen=True, kw_only=True, order=True)
class Touched:
    """What damage touches: a tag of a repository in snapshots (their runs). tag is "" where it touches no tag."""

    repository: str
    tag: str
    snapshots: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}" if self.tag else f"{self.repository} (untagged)"


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One thing that is lost or damaged. kind: marker, snapshot, pack or blob; subject: its key or digest."""

    kind: str
    subject: str
    reason: str
    touches: tuple[Touched, ...] = ()
    repaired: bool = False


@dataclass(kw_only=True)
class CheckResult:
    """What was found. read_…: blobs whose bytes were hashed. unneeded: blobs that no snapshot needs. Sizes in bytes."""

    snapshots: int = 0
    packs: int = 0
    blobs: int = 0
    bytes: int = 0
    read_blobs: int = 0
    read_bytes: int = 0
    unneeded_blobs: int = 0
    unneeded_bytes: int = 0
    seconds: float = 0.0
    damage: list[Damage] = field(default_factory=list)

    @property
    def damaged(self) -> bool:
        """Whether damage is left."""
        return any(not one.repaired for one in self.damage)


async def check(
    storage: Storage,
    *,
    snapshot: str | None = None,
    read_data: ReadData | None = None,
    repair_from: Storage | None = None,
    put: PutOptions | None = None,
    concurrency: int = 128,
    on_event: OnEvent = ignore,
) -> CheckResult:
    """Check the backup, or one snapshot. With `repair_from`, what is lost or damaged is written anew: blobs from a
    registry's store; blobs, packs and damaged snapshots from another backup that has them. Damage is in the result; an
    error that is none of one object's raises."""
    began = time.monotonic()
    result = CheckResult()
    listed = await list_snapshots(storage, concurrency=concurrency)
    copy = None if repair_from is None else await Copy.of(repair_from, put)
    if not await check_marker(storage):
        repaired = copy is not None and await copy.write_marker(storage)
        why = "is lost; prune refuses without it"
        result.damage.append(Damage(kind="marker", subject=form.MARKER, reason=why, repaired=repaired))
    if snapshot is None:
        mended = set() if copy is None else await copy.mend(storage, listed.damaged)
        result.damage += (
            Damage(kind="snapshot", subject=key, reason=why, repaired=key in mended)
            for key, why in sorted(listed.damaged.items())
        )
        if mended:
            listed = await list_snapshots(storage, concurrency=concurrency)
        chosen: tuple[Snapshot, ...] = listed.snapshots
    else:
        chosen = (choose(listed, snapshot, storage.url),)
    result.snapshots = len(chosen)

    users: dict[str, list[tuple[str, str]]] = {}
    for one in chosen:
        for name, known in one.repositories.items():
            users.setdefault(known.pack, []).append((one.run, name))
    needed: dict[Digest, int] = {}

    strange: dict[str, str] = {}

    def take(encoded: str, pack: Pack) -> None:
        others = {name for _, name in users[encoded]} - {pack.name}
        if others:
            strange[encoded] = f"is of {pack.name}, not of {', '.join(sorted(others))}"
        needed.update(pack.blobs)
        result.packs += 1
        on_event(Progress(phase="reading packs", done=result.packs, total=len(users), unit="packs"))

    unreadable = await read_packs(storage, sorted(users), take, concurrency=concurrency)
    mended = set() if copy is None else await copy.mend(storage, map(form.pack_key, unreadable))
    again = [encoded for encoded in unreadable if form.pack_key(encoded) in mended]
    damaged = unreadable | strange
    unreadable = {encoded: why for encoded, why in unreadable.items() if encoded not in again}
    unreadable |= await read_packs(storage, again, take, concurrency=concurrency)
    unreadable |= strange
    for encoded, why in sorted((damaged | unreadable).items()):
        touches = tuple(
            Touched(repository=name, tag="", snapshots=tuple(run for run, other in users[encoded] if other == name))
            for name in sorted({name for _, name in users[encoded]})
        )
        key, repaired = form.pack_key(encoded), encoded not in unreadable
        result.damage.append(Damage(kind="pack", subject=key, reason=why, touches=touches, repaired=repaired))

    bad = await _list_blobs(storage, needed, result, on_event)
    sound = {digest: size for digest, size in needed.items() if digest not in bad}
    result.blobs, result.bytes = len(needed), sum(needed.values())
    if read_data is not None:
        bad |= await _read(storage, read_data.choose(sound, random.SystemRandom()), result, concurrency, on_event)
    copied: set[Digest] = set()
    if copy is not None:
        copied = await copy.blobs(storage, {digest: needed[digest] for digest in bad}, concurrency)
    if bad:
        touched = await _touched(storage, users, unreadable, bad, concurrency)
        result.damage += (
            Damage(
                kind="blob",
                subject=str(digest),
                reason=why,
                touches=tuple(touched.get(digest, ())),
                repaired=digest in copied,
            )
            for digest, why in sorted(bad.items())
        )
    result.seconds = time.monotonic() - began
    return result


async def _list_blobs(
    storage: Storage, needed: Mapping[Digest, int], result: CheckResult, on_event: OnEvent
) -> dict[Digest, str]:
    """Needed blobs that are not listed with their size, and why."""
    bad = dict.fromkeys(needed, "is lost")
    done = 0
    async for page in storage.list(form.BLOBS):
        for key, size in zip(page.keys, page.sizes, strict=True):
            digest = form.parse_blob_key(key)
            if digest is None:
                continue
            wanted = needed.get(digest)
            if wanted is None:
                result.unneeded_blobs += 1
                result.unneeded_bytes += size
            elif size == wanted:
                bad.pop(digest, None)
            else:
                bad[digest] = f"has {size:,} bytes, not {wanted:,}"
        done += len(page)
        on_event(Progress(phase="listing blobs", done=done, unit="blobs"))
    return bad


async def _read(
    storage: Storage, chosen: Mapping[Digest, int], result: CheckResult, concurrency: int, on_event: OnEvent
) -> dict[Digest, str]:
    bad: dict[Digest, str] = {}
    total = sum(chosen.values())

    async def one(blob: tuple[Digest, int]) -> None:
        digest, size = blob
        try:
            found = await verified_size(storage, form.blob_key(digest), digest)
        except StorageError as error:
            if is_fatal(error):
                raise
            bad[digest] = f"can't be read: {error}"
        else:
            if found is None:
                bad[digest] = "does not match its digest"
        result.read_blobs += 1
        result.read_bytes += size
        on_event(Progress(phase="reading blobs", done=result.read_bytes, total=total, unit="B"))

    await in_lanes(chosen.items(), one, concurrency=concurrency)
    return bad


async def _touched(
    storage: Storage,
    users: Mapping[str, list[tuple[str, str]]],
    unreadable: Mapping[str, str],
    bad: Mapping[Digest, str],
    concurrency: int,
) -> dict[Digest, list[Touched]]:
    """Of each bad blob, the tags that reach it. Reads the packs a second time, so that none is held."""
    found: dict[Digest, dict[tuple[str, str], set[str]]] = {}

    def take(encoded: str, pack: Pack) -> None:
        for digest in bad.keys() & pack.blobs.keys():
            places = found.setdefault(digest, {})
            for tag in pack.tags_touched({digest}) or [""]:
                places.setdefault((pack.name, tag), set()).update(run for run, _ in users[encoded])

    await read_packs(storage, sorted(users.keys() - unreadable.keys()), take, concurrency=concurrency)
    return {
        digest: [
            Touched(repository=name, tag=tag, snapshots=tuple(sorted(runs)))
            for (name, tag), runs in sorted(places.items())
        ]
        for digest, places in found.items()
    }
