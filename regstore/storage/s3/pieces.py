"""Bytes of a request's body in pieces, which are never copied together."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash

    from regstore.digest import Verifier


@dataclass(frozen=True, slots=True)
class Pieces:
    """Pieces that stay as they are as long as this lives."""

    pieces: tuple[bytes | memoryview, ...]
    size: int

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[bytes | memoryview]:
        return iter(self.pieces)

    def hashed(self, running: _Hash) -> str:
        """In hex, by the given new hash."""
        for piece in self.pieces:
            running.update(piece)
        return running.hexdigest()

    def update(self, verifier: Verifier) -> None:
        for piece in self.pieces:
            verifier.update(piece)

    def joined(self) -> bytes:
        """One copy; none where it is one piece of bytes."""
        return (
            self.pieces[0] if len(self.pieces) == 1 and isinstance(self.pieces[0], bytes) else b"".join(self.pieces)
        )


class Gathered:
    """A queue of bytes: chunks of any size go in, pieces of wanted sizes come out."""

    def __init__(self) -> None:
        self._pieces: deque[bytes | memoryview] = deque()
        self.size = 0

    def add(self, chunk: bytes) -> None:
        """chunk: kept, not copied."""
        self._pieces.append(chunk)
        self.size += len(chunk)

    def take(self, size: int) -> Pieces:
        """The first `size` bytes, or all where there are fewer."""
        taken: list[bytes | memoryview] = []
        left = size = min(size, self.size)
        while left:
            piece = self._pieces.popleft()
            if len(piece) > left:
                view = memoryview(piece)
                self._pieces.appendleft(view[left:])
                piece = view[:left]
            taken.append(piece)
            left -= len(piece)
        self.size -= size
        return Pieces(tuple(taken), size)
