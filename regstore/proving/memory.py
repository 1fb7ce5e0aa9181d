"""What was proved, in an inventory while blobs are read: loaded from `Proofs`, and saved there as it grows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from regstore.digest import Digest
from regstore.inventory.inventory import Inventory
from regstore.proving.proofs import Proof, Proofs
from regstore.storage.base import Storage
from regstore.storage.optional import TellsChanges

#: Files whose change is looked at in one call.
_CHANGES: Final = 1000
#: Proofs that are saved together.
_UNSAVED: Final = 4096


@dataclass(frozen=True, slots=True)
class Blob:
    """time: of the last change, as far as the store tells it, in microseconds."""

    raw: bytes
    size: int
    time: int

    @property
    def digest(self) -> Digest:
        return Digest.from_raw(self.raw)


class Memory:
    """The tables reading_proof(digest, size, time, proved), reading_changed(digest, time), reading_suspect(digest),
    which `plan_reading` uses, and reading_done(digest), what was proved since."""

    def __init__(
        self, storage: Storage, inventory: Inventory, proofs: Proofs, key_of: Callable[[Digest], str], *, now: int
    ) -> None:
        """now: the store's time, in microseconds."""
        self._storage = storage
        self._inventory = inventory
        self._proofs = proofs
        self._key_of = key_of
        self._now = now
        self._unsaved: list[Proof] = []

    async def load(self) -> None:
        run = self._inventory.execute
        run("create or replace table reading_proof (digest blob, size bigint, time bigint, proved bigint)")
        run("create table if not exists reading_suspect (digest blob)")
        for batch in self._proofs.load():
            self._inventory.insert(
                "reading_proof",
                {
                    "digest": ("binary", [one.digest for one in batch]),
                    "size": ("int64", [one.size for one in batch]),
                    "time": ("int64", [one.time for one in batch]),
                    "proved": ("int64", [one.proved for one in batch]),
                },
            )
        run("create or replace table reading_changed (digest blob, time bigint)")
        if isinstance(self._storage, TellsChanges):
            await self._look_for_changes(self._storage)
        run("create or replace table reading_done (digest blob)")

    async def _look_for_changes(self, storage: TellsChanges) -> None:
        """When the files themselves were changed, of those that were proved: `cp -a` keeps an mtime."""
        rows = self._inventory.connection.cursor()
        try:
            rows.execute("select digest from blob where digest in (select digest from reading_proof)")
            while found := rows.fetchmany(_CHANGES):
                digests = [bytes(raw) for (raw,) in found]
                times = await storage.changed_at([self._key_of(Digest.from_raw(raw)) for raw in digests])
                self._inventory.insert("reading_changed", {"digest": ("binary", digests), "time": ("int64", times)})
        finally:
            rows.close()

    def right(self, blob: Blob) -> None:
        self._unsaved.append(Proof(blob.raw, blob.size, blob.time, self._now))
        if len(self._unsaved) >= _UNSAVED:
            self.flush()

    def wrong(self, blob: Blob) -> None:
        """Or not known to be right: the next run looks there first."""
        self._proofs.save([Proof(blob.raw, blob.size, blob.time, 0)])

    def flush(self) -> None:
        ready, self._unsaved = self._unsaved, []
        self._proofs.save(ready)
        self._inventory.insert("reading_done", {"digest": ("binary", [one.digest for one in ready])})
