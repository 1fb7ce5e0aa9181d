"""`backup check`: is every listed snapshot complete, and, where it is asked to read, are the bytes right?

Without reading: every snapshot and pack is read and matches its name, and every blob is there with its size.
What is lost or damaged can be written anew from another copy (`repair`).
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from regstore.backup import format as form
from regstore.backup.format import Pack, Snapshot
from regstore.backup.opening import check_marker, choose, list_snapshots, read_packs
from regstore.backup.repair import Copy
from regstore.backup.transfer import in_lanes
from regstore.digest import Digest
from regstore.errors import StorageError
from regstore.events import Notice, OnEvent, Progress, ignore
from regstore.reading.proofs import Proof, Proofs
from regstore.reading.read_data import ReadData
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
    """What was found. read_…: blobs whose bytes were hashed; known_…: not read, for they were proved within max_age;
    left_…: chosen, but the time was over. unneeded: blobs that no snapshot needs. Sizes in bytes."""

    snapshots: int = 0
    packs: int = 0
    blobs: int = 0
    bytes: int = 0
    read_blobs: int = 0
    read_bytes: int = 0
    known_blobs: int = 0
    known_bytes: int = 0
    left_blobs: int = 0
    left_bytes: int = 0
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
    max_age: int | None = None,
    time_limit: float | None = None,
    proofs: Path | None = None,
    repair_from: Storage | None = None,
    put: PutOptions | None = None,
    concurrency: int = 128,
    on_event: OnEvent = ignore,
) -> CheckResult:
    """Check the backup, or one snapshot. With `repair_from`, what is lost or damaged is written anew: blobs from a
    registry's store; blobs, packs and damaged snapshots from another backup that has them. Damage is in the result; an
    error that is none of one object's raises.

    proofs: the folder where it is remembered what was read and right; None: nowhere. max_age: microseconds; what was
    proved since is not read again. time_limit: seconds, for reading.
    """
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

    bad, sound = await _list_blobs(storage, needed, result, on_event)
    result.blobs, result.bytes = len(needed), sum(needed.values())
    if read_data is not None:
        memory = Proofs(proofs, storage.url)
        try:
            chosen_blobs = _choose(read_data, sound, memory, result, max_age, await storage.now())
            reading = _Reading(storage, memory, result, time_limit, on_event)
            bad |= await reading.run(chosen_blobs, concurrency)
        finally:
            memory.close()
        if memory.trouble:
            on_event(Notice(message=memory.trouble))
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
) -> tuple[dict[Digest, str], list[_Listed]]:
    """Needed blobs that are not listed with their size, and why; and those that are."""
    bad = dict.fromkeys(needed, "is lost")
    sound: list[_Listed] = []
    done = 0
    async for page in storage.list(form.BLOBS):
        for key, size, mtime in zip(page.keys, page.sizes, page.mtimes, strict=True):
            digest = form.parse_blob_key(key)
            if digest is None:
                continue
            wanted = needed.get(digest)
            if wanted is None:
                result.unneeded_blobs += 1
                result.unneeded_bytes += size
            elif size == wanted:
                bad.pop(digest, None)
                sound.append(_Listed(digest, size, mtime))
            else:
                bad[digest] = f"has {size:,} bytes, not {wanted:,}"
        done += len(page)
        on_event(Progress(phase="listing blobs", done=done, unit="blobs"))
    return bad, sound


class _Listed(NamedTuple):
    """A blob as the listing shows it: bytes, and microseconds."""

    digest: Digest
    size: int
    mtime: int


def _choose(
    read: ReadData, sound: Sequence[_Listed], memory: Proofs, result: CheckResult, max_age: int | None, now: int
) -> list[_Listed]:
    """Those to read: first what was wrong the last time, then what was never proved, then the longest ago. (A part is
    all of its blobs.) What was proved within max_age is known."""
    proved = {(one.digest, one.size, one.mtime): one.proved for batch in memory.load() for one in batch}
    chance = random.SystemRandom()
    ordered: list[tuple[int, float, _Listed]] = []
    for blob in sound:
        when = proved.get((blob.digest.raw, blob.size, blob.mtime))
        if read.part is not None and int(blob.digest.encoded[:12], 16) % read.part[1] != read.part[0] - 1:
            continue
        if max_age is not None and when and when >= now - max_age:
            result.known_blobs += 1
            result.known_bytes += blob.size
            continue
        ordered.append((-1 if when == 0 else when or 0, chance.random(), blob))
    ordered.sort(key=lambda one: one[:2])
    blobs = [blob for _, _, blob in ordered]
    if read.size is None and read.share in (None, 1.0):
        return blobs
    most = read.size if read.size is not None else math.ceil((read.share or 0) * sum(one.size for one in sound))
    chosen: list[_Listed] = []
    for blob in blobs:
        if most <= 0:
            break
        chosen.append(blob)
        most -= blob.size
    return chosen


class _Reading:
    """Reads blobs, hashes them, and remembers what was proved."""

    _SAVED_AT_ONCE: Final = 1000

    def __init__(
        self, storage: Storage, memory: Proofs, result: CheckResult, time_limit: float | None, on_event: OnEvent
    ) -> None:
        self._storage = storage
        self._memory = memory
        self._result = result
        self._deadline = math.inf if time_limit is None else time.monotonic() + time_limit
        self._on_event = on_event
        self._unsaved: list[Proof] = []

    async def run(self, chosen: Sequence[_Listed], concurrency: int) -> dict[Digest, str]:
        """Of those that are damaged, why."""
        bad: dict[Digest, str] = {}
        result, total = self._result, sum(blob.size for blob in chosen)
        mtimes = {blob.digest: blob.mtime for blob in chosen}
        now = await self._storage.now()

        async def one(blob: tuple[Digest, int]) -> None:
            digest, size = blob
            if time.monotonic() > self._deadline:
                result.left_blobs += 1
                result.left_bytes += size
                return
            try:
                found = await verified_size(self._storage, form.blob_key(digest), digest, size)
            except StorageError as error:
                if is_fatal(error):
                    raise
                bad[digest] = f"can't be read: {error}"
            else:
                if found is None:
                    bad[digest] = "does not match its digest"
                self._remember(Proof(digest.raw, size, mtimes[digest], 0 if found is None else now))
            result.read_blobs += 1
            result.read_bytes += size
            self._on_event(Progress(phase="reading blobs", done=result.read_bytes, total=total, unit="B"))

        try:
            await in_lanes([(blob.digest, blob.size) for blob in chosen], one, concurrency=concurrency)
        finally:
            self._memory.save(self._unsaved)
        return bad

    def _remember(self, proof: Proof) -> None:
        self._unsaved.append(proof)
        if len(self._unsaved) >= self._SAVED_AT_ONCE:
            ready, self._unsaved = self._unsaved, []
            self._memory.save(ready)


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
