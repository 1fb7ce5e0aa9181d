"""Bodies in pieces: the same bytes as joined, whatever the sizes."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from regstore.storage.s3.pieces import Gathered


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(0, 40)))
def test_a_queue_of_bytes(chunks: list[bytes], sizes: list[int]) -> None:
    gathered, naive = Gathered(), b""
    for chunk in chunks:
        gathered.add(chunk)
        naive += chunk
    for size in [*sizes, len(naive)]:
        taken = gathered.take(size)
        assert taken.joined() == naive[:size]
        assert len(taken) == min(size, len(naive))
        assert taken.hashed(hashlib.sha256()) == hashlib.sha256(naive[:size]).hexdigest()
        naive = naive[size:]
        assert gathered.size == len(naive)
