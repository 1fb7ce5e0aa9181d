"""Blobs that nothing reaches go: to the trash, or for good; and nothing goes that a late push needs.

When it begins all links of the plan are gone, or known not to go. They go in order, a thousand blobs at a time
(`gc.apply.taking`). Where the last look at all links is too long ago, there is another first (`gc.apply.looks`); what
it reaches stays. Of what is gone the registry's cache is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from regstore.concurrency import wait
from regstore.events import Progress
from regstore.gc.apply.application import BATCH, Application
from regstore.gc.apply.candidates import Blob, Candidates
from regstore.gc.apply.looks import Looks
from regstore.gc.apply.taking import Taking
from regstore.gc.heal import Healed

#: Blobs that a report names where they are not as planned.
NAMED: Final = 5


@dataclass(frozen=True, kw_only=True)
class Swept:
    """blobs, blob_bytes: what went. vanished: how many somebody else had deleted when their turn came, and the digests
    of some of these. kept: candidates that came into use. healed: what came back meanwhile."""

    blobs: int
    blob_bytes: int
    vanished: int
    vanished_digests: tuple[str, ...]
    kept: int
    healed: Healed


class Sweep:
    """One sweep, by the plan of an application whose links have gone."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._candidates = Candidates(application.inventory)
        self._looks = Looks(application, self._candidates)
        self._taking = Taking(
            storage=application.storage,
            lock=application.lock,
            journal=application.journal,
            failures=application.failures,
            trash=application.options.trash,
            concurrency=application.concurrency,
            still=self._still_dead,
            runner=application.scan.runner,
            left=lambda: len(self._candidates),
            on_event=application.on_event,
        )
        self._blobs = 0
        self._blob_bytes = 0
        self._vanished: list[Blob] = []

    async def run(self) -> Swept:
        application = self._application
        # A tag that would not go still needs its blobs.
        unchanged = application.options.offline and not application.failures
        if not unchanged and len(self._candidates):
            await self._looks.before_blobs()
        await self._remove()
        return Swept(
            blobs=self._blobs,
            blob_bytes=self._blob_bytes,
            vanished=len(self._vanished),
            vanished_digests=tuple(blob.digest for blob in self._vanished[:NAMED]),
            kept=self._looks.kept,
            healed=self._looks.healed,
        )

    async def settle(self) -> Healed:
        """A last look: what was linked while blobs were moved is given back."""
        application = self._application
        await wait(application.options.settle, "waiting before the last look", application.on_event)
        return await self._looks.last()

    async def _remove(self) -> None:
        """Every candidate, a thousand at a time in the order of their keys."""
        application, total = self._application, len(self._candidates)
        done = position = 0
        while batch := self._candidates.after(position, BATCH):
            position = batch[-1].position
            application.on_event(Progress(phase="removing blobs", done=done, total=total, unit="blobs"))
            done += len(batch)
            gone = await self._remove_some(batch)
            self._candidates.done(batch, gone)
            await application.cache.forget_blobs(blob.digest for blob in gone)
        application.on_event(Progress(phase="removing blobs", done=done, total=max(total, done), unit="blobs"))

    async def _remove_some(self, batch: Sequence[Blob]) -> list[Blob]:
        """Those that are not there any more: removed, or vanished."""
        taken = await self._taking.take(batch)
        self._vanished += taken.vanished
        self._blobs += len(taken.gone)
        self._blob_bytes += sum(blob.size for blob in taken.gone)
        return [*taken.gone, *taken.vanished]

    async def _still_dead(self, batch: Sequence[Blob]) -> Sequence[Blob]:
        """Those that may go now."""
        return self._candidates.still(batch) if await self._looks.renew() else batch
