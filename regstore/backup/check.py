"""`backup check`: is every listed snapshot complete, and, where it is asked to read, are the bytes right?

Without reading: every snapshot and pack is read and matches its name, and every blob is there with its size.
What is lost or damaged can be written anew from another copy (`repair`).

Nothing is damage by one look alone: a snapshot, a pack or a blob that was wrong is read once more. A `prune` may run
meanwhile: what is not there counts only where a snapshot that is still listed needs it. An error that is not about
one blob (no answer, no access) ends the run; a blob that can't be read is neither sound nor damaged.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from regstore.backup import format as form
from regstore.backup.format import Pack, Snapshot
from regstore.backup.intent import live_intents
from regstore.backup.opening import Listed, check_marker, choose, list_snapshots, read_packs
from regstore.backup.repair import Copy
from regstore.backup.touched import Touched, Users, tags_by_blob, tags_of_a_pack
from regstore.digest import Digest
from regstore.events import Notice, OnEvent, Progress, ignore
from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import Statements
from regstore.proving.proofs import Proofs
from regstore.proving.read_data import ReadData, Wanted
from regstore.proving.reader import BlobReader
from regstore.storage.base import PutOptions, Storage
from regstore.storage.optional import HasModes, keep_private
from regstore.tasks.runner import HERE, Runner

_SQL: Final = Statements("regstore.backup", "check.sql")
#: Rows that are put into a table at once.
_ROWS: Final = 20_000
#: Looks at what is left, while snapshots are being forgotten.
_LOOKS: Final = 4


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
    left_…: chosen, but the time was over. unneeded: blobs that no snapshot needs, where that is known. unread: what
    can't be read, which is no damage. unstable: read wrong once, and right the second time. notes: what is odd, and no
    damage. Sizes in bytes."""

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
    unread: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unstable: list[str] = field(default_factory=list)

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
    runner: Runner = HERE,
    on_event: OnEvent = ignore,
) -> CheckResult:
    """Check the backup, or one snapshot. With `repair_from`, what is lost or damaged is written anew: blobs from a
    registry's store; blobs, packs and damaged snapshots from another backup that has them. Damage is in the result; an
    error that is none of one object's raises.

    proofs: the folder where it is remembered what was read and right; None: nowhere. max_age: microseconds; what was
    proved since is not read again. time_limit: seconds, for reading. put: how new objects are stored. runner: who reads
    blobs where that is much.
    """
    began = time.monotonic()
    keep_private(storage)
    copy = None if repair_from is None else await Copy.of(repair_from, put)
    with Inventory() as inventory:
        checking = _Check(storage, inventory, copy, concurrency, on_event)
        await checking.snapshots(snapshot)
        checking.privacy()
        await checking.packs()
        await checking.list_blobs()
        if read_data is not None:
            wanted = Wanted(
                read=read_data,
                max_age=max_age,
                time_limit=time_limit,
                concurrency=concurrency,
                runner=runner,
            )
            await checking.read_blobs(wanted, proofs)
        await checking.name_blobs()
    checking.result.seconds = time.monotonic() - began
    return checking.result


class _Check:
    """The steps of one check, in the order in which they stand here."""

    def __init__(
        self, storage: Storage, inventory: Inventory, copy: Copy | None, concurrency: int, on_event: OnEvent
    ) -> None:
        self._storage = storage
        self._inventory = inventory
        self._copy = copy
        self._concurrency = concurrency
        self._on_event = on_event
        self.result: Final = CheckResult()
        self._chosen: tuple[Snapshot, ...] = ()
        self._users = Users()
        self._unreadable: set[str] = set()
        #: Whether every pack of every snapshot was read: what no pack needs, nothing needs.
        self._all_known = True
        self._bad: dict[Digest, str] = {}
        self._unread: dict[Digest, str] = {}
        _SQL.run(inventory, "tables")

    # Snapshots

    async def snapshots(self, snapshot: str | None) -> None:
        """The marker, and the snapshots that are looked at."""
        storage, copy, result = self._storage, self._copy, self.result
        listed = await self._list_snapshots()
        if not await check_marker(storage):
            repaired = copy is not None and await copy.write_marker(storage)
            why = "is lost; prune refuses without it"
            result.damage.append(Damage(kind="marker", subject=form.MARKER, reason=why, repaired=repaired))
        if snapshot is None:
            mended = set() if copy is None else await copy.mend(storage, listed.damaged)
            result.damage += (
                Damage(
                    kind="snapshot",
                    subject=key,
                    reason=why,
                    repaired=key in mended,
                    touches=_all_tags(key),
                )
                for key, why in sorted(listed.damaged.items())
            )
            if mended:
                listed = await self._list_snapshots()
            if not (listed.snapshots or listed.damaged):
                await self._miss_snapshots()
            chosen: tuple[Snapshot, ...] = listed.snapshots
        else:
            chosen = (choose(listed, snapshot, storage.url),)
        result.notes += (
            f"snapshot {one.run} {listed.doubtful[one.run]}: prune counts it for nothing and lets it stay until it is "
            "named (--forget), latest passes it over"
            for one in chosen
            if one.run in listed.doubtful
        )
        self._all_known = snapshot is None and not listed.damaged
        self._use(chosen)

    def privacy(self) -> None:
        path = self._storage.open_to_all() if isinstance(self._storage, HasModes) else ""
        if path:
            self.result.notes.append(
                f"other users of this computer can read {path}, and so the images of the registry: chmod -R "
                f"go-rwx {self._storage.url} (what is written from now on is private)"
            )

    async def _list_snapshots(self) -> Listed:
        """What one read showed damaged, and a second did not, is sound."""
        first = await list_snapshots(self._storage, concurrency=self._concurrency)
        if not first.damaged:
            return first
        second = await list_snapshots(self._storage, concurrency=self._concurrency)
        both = {one.run: one for one in (*first.snapshots, *second.snapshots)}
        return Listed(
            snapshots=tuple(both[run] for run in sorted(both)),
            keys=first.keys | second.keys,
            damaged={key: why for key, why in second.damaged.items() if key in first.damaged},
            doubtful=first.doubtful | second.doubtful,
        )

    async def _miss_snapshots(self) -> None:
        """None is listed: then nothing else may be here, but for what a create that is under way has written."""
        counts = {}
        for prefix, is_one in ((form.PACKS, form.parse_pack_key), (form.BLOBS, form.parse_blob_key)):
            counts[prefix] = 0
            async for page in self._storage.list(prefix):
                counts[prefix] += sum(is_one(key) is not None for key in page.keys)
        packs, blobs = counts[form.PACKS], counts[form.BLOBS]
        if not packs and not blobs:
            return
        what = f"no snapshot is listed, but there are {packs:,} packs and {blobs:,} blobs"
        live, _ = await live_intents(self._storage, await self._storage.now())
        if live:
            self._on_event(Notice(message=f"{what}: create {live[0]} is under way"))
            return
        why = (
            f"{what}: snapshots may be lost (copy them back if there is a copy), or the first create was cut short"
        )
        self.result.damage.append(Damage(kind="snapshot", subject=form.SNAPSHOTS, reason=why))

    def _use(self, chosen: Sequence[Snapshot]) -> None:
        self._chosen = tuple(chosen)
        self._users = Users.of(chosen)
        self.result.snapshots = len(chosen)

    async def _forget_pruned(self) -> bool:
        """Keep only snapshots that are still listed; whether any has gone. Prune removes them before what they need."""
        listed = await list_snapshots(self._storage, concurrency=self._concurrency)
        runs = set(listed.keys) | {form.parse_snapshot_key(key) for key in listed.damaged}
        left = [one for one in self._chosen if one.run in runs]
        gone = len(left) < len(self._chosen)
        if gone:
            self._use(left)
        return gone

    # Packs

    async def packs(self) -> None:
        """Read every pack; what they need is `needed` from then on."""
        needed: dict[Digest, int] = {}
        strange: dict[str, str] = {}

        def take(encoded: str, pack: Pack) -> None:
            others = self._users.names(encoded) - {pack.name}
            if others:
                strange[encoded] = f"is of {pack.name}, not of {', '.join(sorted(others))}"
            needed.update(pack.blobs)
            if len(needed) >= _ROWS:
                self._need(needed)
            self.result.packs += 1
            self._on_event(
                Progress(phase="reading packs", done=self.result.packs, total=len(self._users), unit="packs")
            )

        async def read(packs: Collection[str]) -> dict[str, str]:
            return await read_packs(self._storage, sorted(packs), take, concurrency=self._concurrency)

        bad = await read(self._users.packs)
        bad = await read(bad)
        if bad and await self._forget_pruned():
            bad = {encoded: why for encoded, why in bad.items() if encoded in self._users.packs}
        mended = set() if self._copy is None else await self._copy.mend(self._storage, map(form.pack_key, bad))
        again = [encoded for encoded in bad if form.pack_key(encoded) in mended]
        left = {encoded: why for encoded, why in bad.items() if encoded not in again} | await read(again) | strange
        self._need(needed)
        self._unreadable = left.keys() - strange.keys()
        self._all_known = self._all_known and not left
        for encoded, why in sorted((bad | left).items()):
            await self._add_pack(encoded, why, repaired=encoded not in left)

    def _need(self, needed: dict[Digest, int]) -> None:
        self._inventory.insert(
            "needed",
            {
                "digest": ("binary", [digest.raw for digest in needed]),
                "size": ("int64", list(needed.values())),
            },
        )
        needed.clear()

    async def _add_pack(self, encoded: str, why: str, *, repaired: bool) -> None:
        touches = await tags_of_a_pack(self._storage, self._chosen, encoded, self._unreadable)
        self.result.damage.append(
            Damage(kind="pack", subject=form.pack_key(encoded), reason=why, touches=touches, repaired=repaired)
        )

    # Blobs

    async def list_blobs(self) -> None:
        """Find needed blobs that are not listed with their size; the others are the inventory's `blob` then."""
        inventory, result = self._inventory, self.result
        rows: list[tuple[bytes, int, int]] = []
        done = 0
        async for page in self._storage.list(form.BLOBS):
            for key, size, mtime in zip(page.keys, page.sizes, page.mtimes, strict=True):
                digest = form.parse_blob_key(key)
                if digest is not None:
                    rows.append((digest.raw, size, mtime))
            done += len(page)
            self._on_event(Progress(phase="listing blobs", done=done, unit="blobs"))
            if len(rows) >= _ROWS:
                self._list(rows)
        self._list(rows)
        [(result.blobs, result.bytes)] = _SQL.run(inventory, "need").fetchall()
        _SQL.run(inventory, "found")
        self._bad |= {
            Digest.from_raw(bytes(raw)): "is lost" if has is None else f"has {has:,} bytes, not {size:,}"
            for raw, size, has in _SQL.run(inventory, "lacking").fetchall()
        }
        if self._all_known:
            [(result.unneeded_blobs, result.unneeded_bytes)] = _SQL.run(inventory, "unneeded").fetchall()

    def _list(self, rows: list[tuple[bytes, int, int]]) -> None:
        self._inventory.insert(
            "listed",
            {
                "digest": ("binary", [row[0] for row in rows]),
                "size": ("int64", [row[1] for row in rows]),
                "mtime": ("int64", [row[2] for row in rows]),
            },
        )
        rows.clear()

    async def read_blobs(self, wanted: Wanted, folder: Path | None) -> None:
        """Read and hash what is wanted of the listed blobs."""
        memory = Proofs(folder, self._storage.url)
        try:
            now = await self._storage.now()
            reader = BlobReader(
                self._storage, self._inventory, wanted, memory, form.blob_key, self._on_event, now=now
            )
            reading = await reader.run(seed=secrets.randbits(32))
        finally:
            memory.close()
        result = self.result
        result.read_blobs, result.read_bytes = reading.blobs, reading.bytes
        result.known_blobs, result.known_bytes = reading.known, reading.known_bytes
        result.left_blobs, result.left_bytes = reading.left, reading.left_bytes
        result.unstable += reading.unstable
        self._bad |= {Digest.from_raw(raw): f"is damaged: {why}" for raw, why in reader.rotten.items()}
        self._bad |= {Digest.from_raw(raw): "is lost" for raw in reader.gone}
        self._unread |= {Digest.from_raw(raw): why for raw, why in reader.unread.items()}

    async def name_blobs(self) -> None:
        """What is wrong with blobs that a snapshot needs which is still listed, with the tags that reach them; and
        what can be repaired of it."""
        if not (self._bad or self._unread):
            return
        wrong = self._bad | self._unread
        for _ in range(_LOOKS):
            await self._forget_pruned()
            touched, failed = await self._touched(wrong)
            if not failed:
                break
        for encoded, why in sorted(failed.items()):
            await self._add_pack(encoded, why, repaired=False)
        if not failed:
            wrong = {digest: why for digest, why in wrong.items() if digest in touched}
        bad = sorted(wrong.keys() & self._bad.keys())
        copied: set[Digest] = set()
        if self._copy is not None:
            copied = await self._copy.blobs(self._storage, self._sizes(bad), self._concurrency)
        for digest, why in sorted(wrong.items()):
            one = Damage(kind="blob", subject=str(digest), reason=why, touches=tuple(touched.get(digest, ())))
            if digest in self._bad:
                self.result.damage.append(replace(one, repaired=digest in copied))
            else:
                self.result.unread.append(one)

    async def _touched(self, wrong: Mapping[Digest, str]) -> tuple[dict[Digest, list[Touched]], dict[str, str]]:
        """Of each of these that a pack still needs, the tags that reach it; and packs that can't be read now. Reads
        the packs a second time, so that none is held."""
        found: dict[Digest, dict[tuple[str, str], set[str]]] = {}

        def take(encoded: str, pack: Pack) -> None:
            for digest, tags in tags_by_blob(pack, wrong.keys()).items():
                places = found.setdefault(digest, {})
                for tag in tags or [""]:
                    places.setdefault((pack.name, tag), set()).update(self._users.runs(encoded))

        readable = sorted(self._users.packs - self._unreadable)
        failed = await read_packs(self._storage, readable, take, concurrency=self._concurrency)
        return {
            digest: [
                Touched(repository=name, tag=tag, snapshots=tuple(sorted(runs)))
                for (name, tag), runs in sorted(places.items())
            ]
            for digest, places in found.items()
        }, failed

    def _sizes(self, digests: Sequence[Digest]) -> dict[Digest, int]:
        wanted = [digest.raw for digest in digests]
        rows = _SQL.run(self._inventory, "sizes", {"digests": wanted}).fetchall()
        return {Digest.from_raw(bytes(raw)): size for raw, size in rows}


def _all_tags(key: str) -> tuple[Touched, ...]:
    """What a damaged snapshot touches: all that it has, which only itself could tell."""
    run = form.parse_snapshot_key(key)
    return (Touched(repository="", tag="", snapshots=(run,)),) if run else ()
