"""`backup prune`: forget snapshots, and collect what no other needs.

Snapshots go first, then packs, then blobs, so that whatever is still listed is complete at every step. While something
is damaged, no rule forgets anything: what looks newest may not be there to restore. Nothing is collected then either,
for what it needs is not known; nor while a `create` or `restore` runs (its intent counts). What was written within
the grace stays too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from regstore import layout
from regstore.backup import format as form
from regstore.backup.format import Pack, Snapshot
from regstore.backup.intent import live_intents
from regstore.backup.opening import Listed, check_marker, is_temporary, list_snapshots, read_packs
from regstore.backup.options import HOUR, PruneOptions
from regstore.backup.retention import ForgetPlan, keep_all, plan_forget
from regstore.digest import Digest
from regstore.errors import InputError, NotARegistry, Refused, StorageError
from regstore.events import OnEvent, Progress, ignore
from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import Statements
from regstore.state.lock import Lock
from regstore.storage.base import TEMPORARY, MultipartUpload, Storage
from regstore.storage.optional import keep_private

_SQL: Final = Statements("regstore.backup", "prune.sql")
_BATCH: Final = 1000


@dataclass(frozen=True, kw_only=True)
class PrunePlan:
    """unreadable: keys of snapshots that can't be read and were named to be forgotten. blocked: why nothing is
    collected, "" where it is. Sizes in bytes. young: what only the grace keeps."""

    forget: ForgetPlan
    unreadable: tuple[str, ...] = ()
    packs: int
    blobs: int
    bytes: int
    kept_blobs: int
    kept_bytes: int
    young: int
    stale_intents: int
    blocked: str = ""
    damaged: tuple[str, ...] = ()

    @property
    def partial(self) -> bool:
        return bool(self.blocked or self.damaged)

    @property
    def nothing_to_do(self) -> bool:
        return not (self.forget.forgotten or self.unreadable or self.packs or self.blobs)


#: Whether a plan is to be carried out.
Agree = Callable[[PrunePlan], Awaitable[bool]]


@dataclass(kw_only=True)
class PruneResult:
    """agreed: False where nothing was done, for somebody was asked and said no."""

    plan: PrunePlan
    agreed: bool = True
    snapshots: int = 0
    packs: int = 0
    blobs: int = 0
    bytes: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def partial(self) -> bool:
        return bool(self.failures or self.plan.partial)


async def plan_prune(storage: Storage, options: PruneOptions, *, on_event: OnEvent = ignore) -> PrunePlan:
    """What `prune` would do now. Writes nothing."""
    with Inventory() as inventory:
        return await _Run(storage, inventory, options, on_event).plan()


async def prune(
    storage: Storage,
    options: PruneOptions,
    *,
    lock: Lock,
    agree: Agree | None = None,
    on_event: OnEvent = ignore,
) -> PruneResult:
    """Forget and collect, under the lock of the backup. Cut short anywhere, the next run goes on.

    agree: asked before anything that was taken goes; the lock keeps `create` out meanwhile."""
    keep_private(storage)
    with Inventory() as inventory:
        return await _Run(storage, inventory, options, on_event).prune(lock, agree)


class _Run:
    def __init__(self, storage: Storage, inventory: Inventory, options: PruneOptions, on_event: OnEvent) -> None:
        self._storage = storage
        self._inventory = inventory
        self._options = options
        self._on_event = on_event
        self._keys: dict[str, str] = {}
        self._stale: list[str] = []

    async def plan(self, clear: Callable[[], Awaitable[None]] | None = None) -> PrunePlan:
        """clear: what removes expired intents, before anything is looked at that is decided upon."""
        if not await check_marker(self._storage):
            raise NotARegistry(
                f"{self._storage.url} has no {form.MARKER}, so it may hold something else than a backup: nothing is "
                "deleted there"
            )
        _SQL.run(self._inventory, "tables")
        now = await self._storage.now()
        # The intents before the snapshots: a create that ended in between has published by then.
        live, self._stale = await live_intents(self._storage, now)
        if clear is not None:
            # Who held one of these publishes no more from here on, or has published, and is listed now.
            await clear()
        listed = await list_snapshots(self._storage, concurrency=self._options.concurrency)
        self._keys = listed.keys
        forget, unreadable = self._forget(listed)
        packs = {known.pack for one, _ in forget.kept for known in one.repositories.values()}
        damaged = [f"{key}: {why}" for key, why in sorted(listed.damaged.items()) if key not in unreadable]
        damaged += await self._needs(packs)
        await self._candidates(packs, now)
        self._refuse_symbolic_links()
        damaged += self._lost()
        blocked = ""
        if damaged:
            # What was kept by a rule may not be whole, and what is not may need anything.
            forget = keep_all(listed.snapshots, "damage", self._named(listed)[0])
            blocked = (
                f"nothing is deleted but what --forget names, for there is damage ({damaged[0]}): repair it with "
                "`regstore backup check --repair-from`, or --forget the snapshots that it touches"
            )
        elif live:
            blocked = f"nothing is collected while a create runs, or a restore ({', '.join(live)})"
        elif not listed.snapshots and self._sums("kind = 'pack'")[0]:
            blocked = "nothing is collected, for no snapshot is listed and there are packs: snapshots may be lost"
        packs_dead, _ = self._sums("kind = 'pack' and dead and not young")
        blobs, size = self._sums("kind = 'blob' and dead and not young")
        kept_blobs, kept_bytes = self._sums("kind = 'blob' and not dead")
        young, _ = self._sums("dead and young")
        return PrunePlan(
            forget=forget,
            unreadable=unreadable,
            packs=0 if blocked else packs_dead,
            blobs=0 if blocked else blobs,
            bytes=0 if blocked else size,
            kept_blobs=kept_blobs,
            kept_bytes=kept_bytes,
            young=young,
            stale_intents=len(self._stale),
            blocked=blocked,
            damaged=tuple(damaged),
        )

    def _forget(self, listed: Listed) -> tuple[ForgetPlan, tuple[str, ...]]:
        """What goes by name and by rule; and the keys of the unreadable that go by name."""
        named, unreadable = self._named(listed)
        left = [one for one in listed.snapshots if one not in named]
        if (named or unreadable) and not left:
            raise Refused(
                f"no whole snapshot would be left in {self._storage.url}: nothing is forgotten; create one first, or "
                "delete the place itself"
            )
        if self._options.keep is None:
            return keep_all(listed.snapshots, "not named", named), unreadable
        plan = plan_forget(left, self._options.keep, doubtful=listed.doubtful)
        gone = {one.run for one in (*named, *plan.forgotten)}
        forgotten = tuple(one for one in listed.snapshots if one.run in gone)
        return ForgetPlan(kept=plan.kept, forgotten=forgotten), unreadable

    def _named(self, listed: Listed) -> tuple[list[Snapshot], tuple[str, ...]]:
        """The snapshots, and the keys of unreadable ones, that are to go by name."""
        runs = {one.run: one for one in listed.snapshots}
        unreadable = {run: key for key in listed.damaged if (run := form.parse_snapshot_key(key)) is not None}
        named: list[Snapshot] = []
        keys: list[str] = []
        for text in self._options.forget:
            found = [run for run in (*runs, *unreadable) if text and run.startswith(text)]
            if len(found) != 1:
                what = f"{len(found)} snapshots that begin with" if found else "no snapshot"
                raise InputError(f"{self._storage.url} has {what} {text!r}; see `regstore backup list`")
            if found[0] in runs:
                named.append(runs[found[0]])
            else:
                keys.append(unreadable[found[0]])
        return named, tuple(keys)

    def _lost(self) -> list[str]:
        """Needed blobs that are not there with their size."""
        rows = _SQL.run(self._inventory, "lost").fetchall()
        return [f"blob {Digest.from_raw(bytes(raw))} is lost" for (raw,) in rows]

    def _refuse_symbolic_links(self) -> None:
        links = sorted(self._storage.symlinks)
        if links:
            raise Refused(
                f"{self._storage.url} holds symbolic links ({len(links)}, such as {links[0]}); a snapshot behind one "
                "is not seen, and what it needs would be deleted: replace them by bind mounts"
            )

    def _sums(self, condition: str) -> tuple[int, int]:
        [(number, size)] = _SQL.run(self._inventory, "sums", None, condition=condition).fetchall()
        return number, size

    async def _needs(self, packs: set[str]) -> list[str]:
        """The table `need`: digests of the blobs that these packs need; of packs that can't be read, why."""
        done = 0

        def take(_: str, pack: Pack) -> None:
            nonlocal done
            self._inventory.insert(
                "need",
                {
                    "digest": ("binary", [digest.raw for digest in pack.blobs]),
                    "size": ("int64", list(pack.blobs.values())),
                },
            )
            done += 1
            self._on_event(Progress(phase="reading packs", done=done, total=len(packs), unit="packs"))

        damaged = await read_packs(self._storage, sorted(packs), take, concurrency=self._options.concurrency)
        return [why for _, why in sorted(damaged.items())]

    async def _candidates(self, packs: set[str], now: int) -> None:
        """The table `present`: packs, blobs and left temporary files, and whether anything needs them."""
        for prefix in (TEMPORARY, layout.STATE, form.INTENTS, form.SNAPSHOTS, form.PACKS, form.BLOBS):
            async for page in self._storage.list(prefix):
                rows: list[tuple[str, str, bytes | None, int, int]] = []
                for info in page.objects():
                    blob, pack = form.parse_blob_key(info.key), form.parse_pack_key(info.key)
                    if blob is not None:
                        rows.append(("blob", info.key, blob.raw, info.size, info.mtime))
                    elif pack is not None:
                        rows.append(("pack", info.key, bytes.fromhex(pack), info.size, info.mtime))
                    elif is_temporary(info.key):
                        rows.append(("temporary", info.key, None, info.size, info.mtime))
                self._inventory.insert(
                    "present",
                    {
                        "kind": ("utf8", [row[0] for row in rows]),
                        "key": ("utf8", [row[1] for row in rows]),
                        "digest": ("binary", [row[2] for row in rows]),
                        "size": ("int64", [row[3] for row in rows]),
                        "mtime": ("int64", [row[4] for row in rows]),
                    },
                )
        self._inventory.insert("need_pack", {"digest": ("binary", [bytes.fromhex(pack) for pack in packs])})
        young = now - self._options.grace
        given = {"young": young, "young_temporary": min(young, now - HOUR)}
        _SQL.run(self._inventory, "judge", given)

    async def prune(self, lock: Lock, agree: Agree | None) -> PruneResult:
        failures: list[str] = []
        plan = await self.plan(lambda: self._clear_intents(lock, failures))
        result = PruneResult(plan=plan, failures=failures)
        if failures:
            return result  # an intent that stays lets its run publish
        if agree is not None and not plan.nothing_to_do and not await agree(plan):
            result.agreed = False
            return result
        going = [*(self._keys[one.run] for one in plan.forget.forgotten), *plan.unreadable]
        result.snapshots = await self._delete(lock, going, "forgetting snapshots", result.failures)
        if result.failures:
            return result  # a snapshot that stays keeps what it needs
        if plan.blocked:
            return result
        for kind in ("pack", "blob", "temporary"):
            sizes = dict(_SQL.run(self._inventory, "going", {"kind": kind}).fetchall())
            before = len(result.failures)
            gone = await self._delete(lock, list(sizes), f"deleting {kind}s", result.failures)
            if kind == "pack":
                result.packs = gone
            elif kind == "blob":
                result.blobs = gone
                result.bytes = sum(sizes.values()) if len(result.failures) == before else 0
        await self._abort_uploads(lock)
        return result

    async def _clear_intents(self, lock: Lock, failures: list[str]) -> None:
        await self._delete(lock, self._stale, "clearing intents", failures)
        async with lock.batch():
            # A folder that is emptied while a create makes it is made again by that.
            await self._storage.remove_empty_folders(form.INTENTS, older_than=await self._storage.now() + 1)

    async def _delete(self, lock: Lock, keys: Sequence[str], phase: str, failures: list[str]) -> int:
        gone = 0
        for start in range(0, len(keys), _BATCH):
            async with lock.batch():
                outcomes = await self._storage.delete_many(keys[start : start + _BATCH])
            gone += sum(error is None for error in outcomes.values())
            failures += (f"{key}: {error}" for key, error in outcomes.items() if error is not None)
            self._on_event(Progress(phase=phase, done=gone, total=len(keys), unit="objects"))
        return gone

    async def _abort_uploads(self, lock: Lock) -> None:
        """Parts of blobs that a killed create had begun to send to a bucket."""
        young = await self._storage.now() - self._options.grace
        async for upload in _uploads(self._storage):
            if upload.newest < young:
                async with lock.batch():
                    await self._storage.abort_multipart_upload(upload)


async def _uploads(storage: Storage) -> AsyncIterator[MultipartUpload]:
    try:
        async for upload in storage.list_multipart_uploads(form.BLOBS):
            yield upload
    except StorageError:
        return
