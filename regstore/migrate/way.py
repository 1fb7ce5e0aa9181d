"""How far the blobs of a pass are."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from regstore.digest import Digest
from regstore.events import OnEvent, Progress
from regstore.tasks.sharing import Ways

#: Between two words on how far the blobs are.
_TELL_SECONDS: Final = 0.1


class Way:
    """How far the blobs are, told now and then."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        #: Of the blobs under way: bytes, and how many of them are done.
        self._copying: dict[Digest, tuple[int, int]] = {}
        #: Batches under way elsewhere: their bytes that are done.
        self._elsewhere = Ways(self._tell, on_event)
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
        self.passed(1, size)

    @contextmanager
    def batch(self, rows: Sequence[tuple[bytes, int, bool, bool]]) -> Iterator[OnEvent]:
        """While a batch is on its way elsewhere: what is to be told of it. One blob by itself has its name."""
        alone = Digest.from_raw(rows[0][0]) if len(rows) == 1 else None
        if alone is not None:
            self._copying[alone] = rows[0][1], 0
        try:
            with self._elsewhere.of_one() as on_event:
                yield on_event
        finally:
            if alone is not None:
                self._copying.pop(alone, None)

    def passed(self, blobs: int, size: int) -> None:
        """So many more are done."""
        self._done_blobs += blobs
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
        done = self._done_bytes + sum(done for _, done in self._copying.values()) + self._elsewhere.done
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
