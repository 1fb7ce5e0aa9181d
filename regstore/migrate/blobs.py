"""The blobs of a pass. What is not copied blocks what needs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from regstore import layout
from regstore.digest import Digest
from regstore.errors import IntegrityError, StorageError
from regstore.inventory.sample import other_blobs
from regstore.migrate.on_server import Copied
from regstore.migrate.options import Verify
from regstore.migrate.result import Problem
from regstore.migrate.shared import block
from regstore.migrate.sharing import SharedBlobs
from regstore.migrate.transfer import Transfer
from regstore.migrate.way import Way
from regstore.migrate.work import SQL, Work
from regstore.storage.streams import SourceGone
from regstore.storage.transfer import Attempts, Fault, Lane, Road, each_blob
from regstore.tasks.copying import raised

#: The hash's own bytes, the size in bytes, whether its bytes are suspect, and whether the target has it.
Row = tuple[bytes, int, bool, bool]


class Blobs:
    """Copies, and where that is asked for proves, what the target needs."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._target = work.target
        self._inventory = work.inventory
        self._result = work.result
        self.is_full = work.options.verify is Verify.FULL
        self._wanted = SQL.text("to_prove" if self.is_full else "to_copy")
        self.transfer = Transfer(work.source, work.target, work.options, work.on_event)
        self._attempts = Attempts(work.source, other_blobs(work.inventory))
        self.way = Way(work.on_event)
        self._unmade: list[bytes] = []

    @property
    def own_runs(self) -> set[str]:
        """Those in the target's journals that are ours."""
        return self.transfer.own_runs

    async def copy(self) -> None:
        """All of them. What needs any that could not be copied is blocked on return."""
        await self.transfer.find_unfinished(self._is_wanted)
        self.way.expect(*self.sums(Lane()))
        lanes = self.transfer.road.lanes
        if self._work.runner.reaches(self._work.source, self._target):
            await SharedBlobs(self._work, self).copy(lanes)
        else:
            await each_blob(self.transfer.road, self.rows, self.one, concurrency=self._work.options.concurrency)
        await self._attempts.end()
        if not self.is_full:
            self._result.size_only += self.transfer.size_only
        if self._unmade:
            block(self._inventory, self._unmade)

    async def each(self, rows: Iterable[Row], lane: Lane) -> None:
        """Each by this process."""
        await each_blob(
            Road(lanes=(Lane(at_once=lane.at_once),)),
            lambda _: rows,
            self.one,
            concurrency=self._work.options.concurrency,
        )

    def _is_wanted(self, digest: Digest) -> bool:
        return bool(self._inventory.one("select count(*) from migrate_blob where digest = ?", [digest.raw]))

    def sums(self, lane: Lane) -> tuple[int, int]:
        """How many blobs go along it, and their bytes."""
        ((number, size),) = self._work.rows("sums", {"over": lane.over, "most": lane.most}, wanted=self._wanted)
        return number, size

    def rows(self, lane: Lane) -> Iterator[Row]:
        return self._work.rows("blobs", {"over": lane.over, "most": lane.most}, wanted=self._wanted)

    async def one(self, row: Row, *, asked: Copied | None = None, error: StorageError | None = None) -> None:
        """asked: as in `Transfer.copy`. error: what came of it when it was to be copied elsewhere."""
        raw, size, suspect, present = row
        digest = Digest.from_raw(bytes(raw))
        key = layout.blob_key(digest)
        with self.way.of(digest, size):
            copying = (
                raised(self._told(error, digest)) if error else self._copy(digest, size, suspect, present, asked)
            )
            failure = await self._attempts.of(key, digest, size, copying)
            if failure is not None:
                self._unmade.append(digest.raw)
                if failure.fault is not Fault.GONE:
                    reason = self._reason(failure.error)
                    self._result.failed.append(Problem(repository="", subject=f"blob {digest}", reason=reason))

    def copied(self, rows: Sequence[Row]) -> None:
        """These were, elsewhere, and proven where that is asked for."""
        for _, size, _, present in rows:
            if not present:
                self._result.blobs += 1
                self._result.blob_bytes += size
        if self.is_full:
            self._result.verified += len(rows)
        self.way.passed(len(rows), sum(row[1] for row in rows))

    def arrived(self, count: int) -> None:
        """So many elsewhere, one after the other."""
        self._attempts.arrived(count)

    def _told(self, error: StorageError, digest: Digest) -> StorageError:
        return self.transfer.of_source(error, digest) if isinstance(error, IntegrityError) else error

    async def _copy(self, digest: Digest, size: int, suspect: bool, present: bool, asked: Copied | None) -> None:
        if not present:
            try:
                await self.transfer.copy(
                    digest, size, suspect=suspect, asked=asked, on_bytes=lambda done: self.way.advance(digest, done)
                )
            except IntegrityError as error:
                if not (suspect and await self.transfer.read_back(digest, size)):
                    raise
                self._result.damaged += (
                    Problem(
                        repository="",
                        subject=f"blob {digest}",
                        reason=f"is damaged, and sound in {self._target.url}: {error}",
                    ),
                )
                return
        if self.is_full:
            await self._verify(digest, size, present)
        if not present:
            self._result.blobs += 1
            self._result.blob_bytes += size

    async def _verify(self, digest: Digest, size: int, present: bool) -> None:
        if not await self.transfer.read_back(digest, size):
            # What was there before may be what is bad, or the source, which the server copied unseen.
            try:
                await self.transfer.copy(digest, size, suspect=True)
            except (IntegrityError, SourceGone):
                if not present:
                    await self.transfer.take_back(digest, size)
                raise
            self._result.repaired += 1
            if not await self.transfer.read_back(digest, size):
                raise IntegrityError(f"{self._target.url} does not give back the bytes that were written")
        self._result.verified += 1

    def _reason(self, error: StorageError) -> str:
        if isinstance(error, IntegrityError):
            return f"was not copied from {self._work.source.url}: {error}"
        return f"could not be copied: {error}"
