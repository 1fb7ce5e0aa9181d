"""The blobs that a snapshot needs: which the store lacks, and the copying of those."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from regstore import layout
from regstore.backup import format as form
from regstore.backup.asked import Asked
from regstore.backup.carrying import Carrying
from regstore.backup.options import RestoreOptions
from regstore.backup.restore_links import AT_ONCE
from regstore.backup.source import list_blobs
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import AccessDenied, StorageError, Unreachable
from regstore.events import OnEvent, Progress
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import Scanner, ScanOptions
from regstore.storage.base import Storage
from regstore.storage.streams import is_fatal, verified_size
from regstore.storage.transfer import READ, Attempts, Failure, Fault, each_blob, largest_first
from regstore.tasks.runner import Runner
from regstore.tasks.under_lock import HeldLock


class RestoreBlobs:
    """The inventory has the store's in `blob`, and after `collect` those that are asked for in `wanted`, and of these
    what the store lacks in `lacking`. tags, repositories: how many are asked for. copied, copied_bytes: what was
    restored; lost: what could not be."""

    def __init__(
        self,
        asked: Asked,
        store: Storage,
        inventory: Inventory,
        options: RestoreOptions,
        runner: Runner,
        on_event: OnEvent,
    ) -> None:
        self._asked = asked
        self._store = store
        self._inventory = inventory
        self._options = options
        self._runner = runner
        self._on_event = on_event
        self.tags = self.repositories = 0
        self.copied = self.copied_bytes = 0
        self.lost: set[Digest] = set()

    async def collect(self, *, missing: bool = False) -> None:
        """List both sides' blobs. missing: there is no store yet."""
        if not missing:
            scanning = ScanOptions(concurrency=self._options.concurrency, runner=self._runner)
            await list_blobs(Scanner(self._store, self._inventory, scanning, self._on_event))
        self._inventory.execute("create table wanted (digest blob not null, size bigint not null)")

        async def one(name: str) -> None:
            pack = await self._asked.pack(name)
            if pack is None:
                return
            self.tags += len(pack.tags)
            self.repositories += bool(pack.manifests)
            self._insert("wanted", list(pack.blobs.items()))

        await for_each(self._asked.names, one, concurrency=AT_ONCE)
        self._asked.refuse_unknown_tags()
        self._inventory.execute(
            "create table lacking as select distinct w.digest, w.size from wanted w"
            " anti join blob b on b.digest = w.digest and b.size = w.size"
        )
        if self._options.verify_existing:
            await self._verify_existing()

    def sums(self, table: str) -> tuple[int, int]:
        """How many blobs, and their bytes; of `wanted` or `lacking`."""
        row = self._inventory.all(
            f"select count(*), coalesce(sum(size), 0)::bigint from (select distinct digest, size from {table})"
        )[0]
        return int(row[0]), int(row[1])

    async def _verify_existing(self) -> None:
        """Read what the store has already; what is not as its digest says is lacking."""
        there = self._blobs("select distinct digest, size from wanted anti join lacking using (digest)")
        total, done = sum(size for _, size in there), 0
        wrong: list[tuple[Digest, int]] = []

        async def one(blob: tuple[Digest, int]) -> None:
            nonlocal done
            digest, size = blob
            try:
                found = await verified_size(self._store, layout.blob_key(digest), digest, size)
            except StorageError as error:
                if isinstance(error, AccessDenied | Unreachable) or is_fatal(error):
                    raise
                found = None
            if found is None:
                wrong.append(blob)
            done += size
            self._on_event(Progress(phase="reading what is there", done=done, total=total, unit="B"))

        await each_blob(READ, largest_first(there), one, concurrency=self._options.concurrency)
        self._insert("lacking", wrong)

    async def copy(self, check: Callable[[], Awaitable[object]], under: HeldLock) -> None:
        """What the store lacks, each hashed on its way. check: awaited before each; under: the store's lock. What the
        backup has lost, does not give, or has wrong joins `lost`."""
        attempts = Attempts(self._asked.backup, self._others)

        async def took(digest: Digest, size: int, failure: Failure | None) -> None:
            if failure is None:
                self.copied += 1
                self.copied_bytes += size
            else:
                await self._asked.note_blob(digest, failure.error, gone=failure.fault is Fault.GONE)
                self.lost.add(digest)

        carrying = Carrying(
            source=self._asked.backup,
            target=self._store,
            source_key=form.blob_key,
            target_key=layout.blob_key,
            put=self._options.put,
            attempts=attempts,
            runner=self._runner,
            concurrency=self._options.concurrency,
            phase="restoring blobs",
            on_event=self._on_event,
            check=check,
            under=under,
        )
        await carrying.copy(self._inventory, "select digest, size from lacking", took)
        await attempts.end()

    def _others(self, most: int, failed: Sequence[str]) -> list[str]:
        rows = self._inventory.all(
            "select distinct digest from wanted order by hash(digest) limit ?", [most + len(failed)]
        )
        keys = [form.blob_key(Digest.from_raw(bytes(raw))) for (raw,) in rows]
        return [key for key in keys if key not in set(failed)][:most]

    def _blobs(self, sql: str) -> list[tuple[Digest, int]]:
        return [(Digest.from_raw(bytes(raw)), size) for raw, size in self._inventory.all(sql)]

    def _insert(self, table: str, blobs: Sequence[tuple[Digest, int]]) -> None:
        self._inventory.insert(
            table,
            {
                "digest": ("binary", [digest.raw for digest, _ in blobs]),
                "size": ("int64", [size for _, size in blobs]),
            },
        )
