"""verify: scan a store, read what is asked for, and say what is wrong. Reads only; `repair` changes things.

A registry may be writing meanwhile, and a listing is no snapshot: a push that lands between two of its pages looks like
a tag without its layers. So what looks wrong is looked at again (each missing blob by name, each damaged manifest read
once more, each repository concerned listed anew), and only what two looks in a row found is reported. What only the
second found is looked at a third time, and so on, `_LOOKS` times in all.

Requests: those of a scan, with a GET for every manifest; a GET for each blob that is read; for what seems wrong, as
above.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from regstore import layout
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import NotARegistry, NotFound, Refused, StorageError
from regstore.events import Notice, OnEvent, ignore
from regstore.inventory.inventory import Inventory, ReportedAt
from regstore.inventory.reported.again import look_again
from regstore.inventory.scan import Scanner
from regstore.inventory.statements import Statements
from regstore.proving.proofs import Proofs
from regstore.proving.read_data import Wanted
from regstore.proving.reader import BlobReader
from regstore.proving.result import Reading
from regstore.storage.base import ObjectInfo, Storage
from regstore.storage.streams import is_fatal
from regstore.verify.fault import FaultKind, Findings
from regstore.verify.links import find_archived_links, read_odd_links
from regstore.verify.options import VerifyOptions
from regstore.verify.plan import IDENTITY, make_known, plan_verify

_SQL: Final = Statements("regstore.verify", "run.sql", identity=IDENTITY)


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """reading: None where no blob was to be read. pull_through: what is absent is normal. database: what says that the
    metadata is in a database, so that links are not the whole truth; "" where nothing does. reported: where blobs are
    those of a report: of what was lost since, only manifests and what was read are known."""

    store: str
    findings: Findings
    reading: Reading | None
    pull_through: bool
    database: str = ""
    reported: ReportedAt | None = None


async def verify(
    storage: Storage, options: VerifyOptions | None = None, *, on_event: OnEvent = ignore
) -> VerifyReport:
    """Verify a store. NotARegistry where nothing of one is there; Refused where symbolic links hide parts of it."""
    options = options or VerifyOptions()
    with Inventory(options.scan.inventory, memory_limit=options.scan.memory_limit) as inventory:
        return await Verification(storage, inventory, options, on_event).run()


class Verification:
    """One verification of one store. `rotten` and `unread` hold what is known from an earlier one of damaged blobs, and
    of those that could not be read, by raw digest."""

    def __init__(
        self,
        storage: Storage,
        inventory: Inventory,
        options: VerifyOptions,
        on_event: OnEvent = ignore,
        *,
        rotten: Mapping[bytes, str] | None = None,
        unread: Mapping[bytes, str] | None = None,
    ) -> None:
        self._storage = storage
        self._options = options
        self._on_event = on_event
        self.inventory: Final = inventory
        self.rotten: dict[bytes, str] = dict(rotten or {})
        self.unread: dict[bytes, str] = dict(unread or {})
        self._scanner = Scanner(storage, inventory, options.scan, on_event)
        self.pull_through = False

    async def run(self) -> VerifyReport:
        """Scan, read, and find. Blobs that have another size than a manifest says are read in any case."""
        await self._scanner.run()
        await self._scanner.find_unreported()
        make_known(self.inventory)
        await self._look_at_links()
        await self._refuse_what_cannot_be_seen()
        self.pull_through = await self._is_pull_through()
        reading = None
        self._store_known()
        findings = plan_verify(self.inventory, pull_through=self.pull_through)
        if await self._try_archived() or await self._sizes_are_otherwise(findings):
            findings = plan_verify(self.inventory, pull_through=self.pull_through)
        if self._options.read is not None or FaultKind.SIZE_DIFFERS in findings.counts:
            reading, news = await self._read()
            if news or any(findings.counts.values()):
                findings = plan_verify(self.inventory, pull_through=self.pull_through)
        if any(findings.counts.values()):
            findings = await self._confirm()
        return VerifyReport(
            store=self._storage.url,
            findings=findings,
            reading=reading,
            pull_through=self.pull_through,
            database=self.inventory.database,
            reported=self.inventory.reported,
        )

    async def _sizes_are_otherwise(self, findings: Findings) -> bool:
        """A report's size may be an older one's: look at those again that differ from what a manifest says."""
        if self.inventory.reported is None or FaultKind.SIZE_DIFFERS not in findings.counts:
            return False
        looked = await look_again(
            self._storage,
            self.inventory,
            _SQL.text("other_sizes"),
            concurrency=self._options.scan.concurrency,
            on_event=self._on_event,
        )
        return looked.otherwise > 0

    async def _try_archived(self) -> bool:
        """Ask what a listing calls archived, and a tag needs, for its first byte: whether any was given, since it was
        restored for a while. A link that LIST proved is known, and yet no registry can read it."""
        rows = _SQL.run(self.inventory, "archived_and_needed").fetchall()
        at_hand: list[str] = []

        async def look(row: tuple[str]) -> None:
            (key,) = row
            try:
                async with self._storage.open_read(key, length=1) as handle:
                    async for _ in handle:
                        pass
            except StorageError as error:
                if is_fatal(error):
                    raise
                return
            at_hand.append(key)

        await for_each(rows, look, concurrency=self._options.scan.concurrency)
        self.inventory.insert("verify_at_hand", {"key": ("utf8", at_hand)})
        return bool(at_hand)

    async def _look_at_links(self) -> None:
        find_archived_links(self.inventory)
        await read_odd_links(self._storage, self.inventory, concurrency=self._options.scan.concurrency)

    async def _read(self) -> tuple[Reading, bool]:
        """And whether anything was wrong with what was read. That it was right says more of faults that are known
        already, and makes no new one."""
        # What has another size than a manifest says is looked at first.
        _SQL.run(self.inventory, "suspect")
        options = self._options
        wanted = Wanted(
            read=options.read,
            max_age=options.max_age,
            time_limit=options.time_limit,
            checksums=options.checksums,
            concurrency=options.scan.concurrency,
            runner=options.scan.runner,
        )
        proofs = Proofs(options.proofs, options.store or self._storage.url)
        try:
            now = self.inventory.scanned_at
            reader = BlobReader(
                self._storage, self.inventory, wanted, proofs, layout.blob_key, self._on_event, now=now
            )
            reading = await reader.run(seed=secrets.randbits(32))
        finally:
            proofs.close()
        self.rotten |= reader.rotten
        self.unread |= reader.unread
        news = bool(reader.rotten or reader.unread or reader.gone)
        if news:
            self._store_known()
        _SQL.run(self.inventory, "proven")
        self._remove_blobs(reader.gone)
        return reading, news

    def _store_known(self) -> None:
        _SQL.run(self.inventory, "forget_known")
        for table, known in (("verify_rotten", self.rotten), ("verify_unread", self.unread)):
            self.inventory.insert(
                table, {"digest": ("binary", list(known)), "detail": ("utf8", list(known.values()))}
            )

    async def _refuse_what_cannot_be_seen(self) -> None:
        links = sorted(key for key in self._storage.symlinks if key.startswith(layout.PREFIX))
        if links:
            raise Refused(
                f"{self._storage.url} holds symbolic links ({len(links)}, such as {links[0]}); what lies behind them "
                "is not seen: replace them by bind mounts, or move the data"
            )
        if self.inventory.key_count():
            return
        async for page in self._storage.list(layout.PREFIX):
            if page.keys:
                return
            break
        raise NotARegistry(
            f"{self._storage.url} holds no registry: there is nothing below {layout.PREFIX} "
            "(is the root directory part of the URL?)"
        )

    async def _is_pull_through(self) -> bool:
        if self._options.pull_through is not None:
            return self._options.pull_through
        try:
            await self._storage.stat(layout.SCHEDULER_STATE)
        except NotFound:
            return False
        self._on_event(Notice(message=f"{layout.SCHEDULER_STATE} is there: this is a pull-through cache"))
        return True

    # Further looks

    async def _confirm(self) -> Findings:
        """Look again until nothing new looks wrong; after so many looks, what the last two found counts."""
        inventory = self.inventory
        for _ in range(_LOOKS - 1):
            _SQL.run(inventory, "remember_faults")
            await self._look_again()
            findings = plan_verify(inventory, pull_through=self.pull_through)
            if not _SQL.run(inventory, "new_faults").fetchall():
                return findings
        return plan_verify(inventory, pull_through=self.pull_through, among="verify_seen")

    async def _look_again(self) -> None:
        inventory = self.inventory
        await self._stat_blobs([bytes(raw) for (raw,) in _SQL.run(inventory, "missing_blobs").fetchall()])
        _SQL.run(inventory, "forget_bad_manifests")
        await self._scanner.read_manifests()
        names = [name for (name,) in _SQL.run(inventory, "repositories_concerned").fetchall()]
        if names:
            await self._list_again(names)

    async def _stat_blobs(self, digests: list[bytes]) -> None:
        """Blobs that came since they were listed are in the inventory from now on."""
        found: list[tuple[bytes, ObjectInfo]] = []

        async def look(raw: bytes) -> None:
            try:
                found.append((raw, await self._storage.stat(layout.blob_key(Digest.from_raw(raw)))))
            except NotFound:
                return

        await for_each(digests, look, concurrency=self._options.scan.concurrency)
        self.inventory.insert(
            "blob",
            {
                "digest": ("binary", [raw for raw, _ in found]),
                "size": ("int64", [info.size for _, info in found]),
                "mtime": ("int64", [info.mtime for _, info in found]),
            },
        )
        _SQL.run(self.inventory, "forget_found_manifests")

    def _remove_blobs(self, digests: list[bytes]) -> None:
        """What vanished since it was listed."""
        if digests:
            with self.inventory.given("given", {"digest": ("binary", digests)}):
                _SQL.run(self.inventory, "vanished")

    async def _list_again(self, names: list[str]) -> None:
        """Forget what these repositories hold, and list them anew."""
        _SQL.run(self.inventory, "forget_repositories", {"names": names})
        await self._scanner.list_repositories(names)
        await self._look_at_links()
        await self._scanner.read_manifests()


#: Looks at what seems wrong, the first one included.
_LOOKS: Final = 4
