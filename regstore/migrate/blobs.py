"""The blobs of a pass. What is not copied blocks what needs it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from regstore import layout
from regstore.digest import Digest
from regstore.errors import IntegrityError, StorageError
from regstore.events import OnEvent, Progress
from regstore.inventory.sample import other_blobs
from regstore.migrate.options import Verify
from regstore.migrate.result import Problem
from regstore.migrate.shared import block
from regstore.migrate.transfer import Transfer
from regstore.migrate.work import SQL, Work
from regstore.storage.streams import SourceGone
from regstore.storage.transfer import Attempts, Fault, Lane, each_blob

#: Between two words on how far the blobs are.
_TELL_SECONDS: Final = 0.1


class Blobs:
    """Copies, and where that is asked for proves, what the target needs."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._target = work.target
        self._inventory = work.inventory
        self._result = work.result
        self._is_full = work.options.verify is Verify.FULL
        self._wanted = SQL.text("to_prove" if self._is_full else "to_copy")
        self._transfer = Transfer(work.source, work.target, work.options, work.on_event)
        self._attempts = Attempts(work.source, other_blobs(work.inventory))
        self._way = _Way(work.on_event)
        self._unmade: list[bytes] = []

    @property
    def own_runs(self) -> set[str]:
        """Those in the target's journals that are ours."""
        return self._transfer.own_runs

    async def copy(self) -> None:
        """All of them. What needs any that could not be copied is blocked on return."""
        await self._transfer.find_unfinished(self._is_wanted)
        ((number, size),) = self._work.rows("sums", wanted=self._wanted)
        self._way.expect(number, size)
        await each_blob(self._transfer.road, self._rows, self._blob, concurrency=self._work.options.concurrency)
        await self._attempts.end()
        if not self._is_full:
            self._result.size_only += self._transfer.size_only
        if self._unmade:
            block(self._inventory, self._unmade)

    def _is_wanted(self, digest: Digest) -> bool:
        return bool(self._inventory.one("select count(*) from migrate_blob where digest = ?", [digest.raw]))

    def _rows(self, lane: Lane) -> Iterator[tuple[Any, ...]]:
        return self._work.rows("blobs", {"over": lane.over, "most": lane.most}, wanted=self._wanted)

    async def _blob(self, row: tuple[bytes, int, bool, bool]) -> None:
        raw, size, suspect, present = row
        digest = Digest.from_raw(bytes(raw))
        key = layout.encode(layout.BlobKey(digest))
        with self._way.of(digest, size):
            copying = self._copy(digest, size, suspect, present)
            failure = await self._attempts.of(key, digest, size, copying)
            if failure is not None:
                self._unmade.append(digest.raw)
                if failure.fault is not Fault.GONE:
                    reason = self._reason(failure.error)
                    self._result.failed.append(Problem(repository="", subject=f"blob {digest}", reason=reason))

    async def _copy(self, digest: Digest, size: int, suspect: bool, present: bool) -> None:
        if not present:
            try:
                await self._transfer.copy(
                    digest, size, suspect=suspect, on_bytes=lambda done: self._way.advance(digest, done)
                )
            except IntegrityError as error:
                if not (suspect and await self._transfer.read_back(digest, size)):
                    raise
                self._result.damaged += (
                    Problem(
                        repository="",
                        subject=f"blob {digest}",
                        reason=f"is damaged, and sound in {self._target.url}: {error}",
                    ),
                )
                return
        if self._is_full:
            await self._verify(digest, size, present)
        if not present:
            self._result.blobs += 1
            self._result.blob_bytes += size

    async def _verify(self, digest: Digest, size: int, present: bool) -> None:
        if not await self._transfer.read_back(digest, size):
            # What was there before may be what is bad, or the source, which the server copied unseen.
            try:
                await self._transfer.copy(digest, size, suspect=True)
            except (IntegrityError, SourceGone):
                if not present:
                    await self._transfer.take_back(digest, size)
                raise
            self._result.repaired += 1
            if not await self._transfer.read_back(digest, size):
                raise IntegrityError(f"{self._target.url} does not give back the bytes that were written")
        self._result.verified += 1

    def _reason(self, error: StorageError) -> str:
        if isinstance(error, IntegrityError):
            return f"was not copied from {self._work.source.url}: {error}"
        return f"could not be copied: {error}"


class _Way:
    """How far the blobs are, told now and then."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        #: Of the blobs under way: bytes, and how many of them are done.
        self._copying: dict[Digest, tuple[int, int]] = {}
        self._told = 0.0
        self._told_bytes = 0
        self._done_bytes = self._total_bytes = 0
        self._done_blobs = self._total_blobs = 0

    def expect(self, blobs: int, size: int) -> None:
        self._total_blobs, self._total_bytes = blobs, size

    @contextmanager
    def of(self, digest: Digest, size: int) -> Iterator[None]:
        """While a blob is on its way."""
        self._copying[digest] = size, 0
        try:
            yield
        finally:
            del self._copying[digest]
        self._done_blobs += 1
        self._done_bytes += size
        self._tell()

    def advance(self, digest: Digest, done: int) -> None:
        """So many of its bytes are done."""
        size, _ = self._copying.get(digest, (None, 0))
        if size is not None:
            self._copying[digest] = size, min(size, done)
        self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told < _TELL_SECONDS and self._done_blobs < self._total_blobs:
            return
        self._told = now
        largest = sorted(self._copying.items(), key=lambda item: -item[1][0])[:2]
        names = "".join(f"; {digest.short} ({size:,} B)" for digest, (size, _) in largest)
        # A try that failed begins again: what was told stands.
        done = self._done_bytes + sum(done for _, done in self._copying.values())
        self._told_bytes = max(self._told_bytes, done)
        self._on_event(
            Progress(
                phase="copying blobs",
                done=self._told_bytes,
                total=self._total_bytes,
                unit="B",
                detail=f"{self._done_blobs:,}/{self._total_blobs:,} blobs{names}",
            )
        )
