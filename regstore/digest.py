"""Digests: `algorithm:encoded`, as the OCI image specification writes them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from regstore.errors import IntegrityError, InvalidDigest

#: Hex characters of each registered algorithm. The raw lengths differ, so raw bytes alone name the algorithm.
HEX_LENGTH: Final = {"sha256": 64, "sha384": 96, "sha512": 128}
_ALGORITHM_OF_RAW_LENGTH: Final = {length // 2: name for name, length in HEX_LENGTH.items()}
_HEX: Final = re.compile(r"[0-9a-f]+", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A content address. Always valid: building one with anything else raises InvalidDigest."""

    algorithm: str
    encoded: str

    def __post_init__(self) -> None:
        length = HEX_LENGTH.get(self.algorithm)
        if length is None:
            raise InvalidDigest(f"digest algorithm {self.algorithm!r} is not one of {', '.join(HEX_LENGTH)}")
        if len(self.encoded) != length or not _HEX.fullmatch(self.encoded):
            raise InvalidDigest(
                f"{self.algorithm} digest must be {length} lower-case hex characters, not {self.encoded[:140]!r}"
            )

    @classmethod
    def parse(cls, text: str) -> Digest:
        """`sha256:<64 hex>` and nothing around it: no white space, no newline."""
        algorithm, colon, encoded = text.partition(":")
        if not colon:
            raise InvalidDigest(f"{text[:140]!r} is not a digest (algorithm:hex)")
        return cls(algorithm, encoded)

    @classmethod
    def from_raw(cls, raw: bytes) -> Digest:
        """From the hash's own bytes (32 for sha256, 48 for sha384, 64 for sha512)."""
        algorithm = _ALGORITHM_OF_RAW_LENGTH.get(len(raw))
        if algorithm is None:
            raise InvalidDigest(f"no digest algorithm has {len(raw)} bytes")
        return cls(algorithm, raw.hex())

    @classmethod
    def of(cls, data: bytes | memoryview, algorithm: str = "sha256") -> Digest:
        if algorithm not in HEX_LENGTH:
            raise InvalidDigest(f"digest algorithm {algorithm!r} is not one of {', '.join(HEX_LENGTH)}")
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    @property
    def raw(self) -> bytes:
        return bytes.fromhex(self.encoded)

    @property
    def short(self) -> str:
        """For people: `sha256:` and twelve hex characters."""
        return f"{self.algorithm}:{self.encoded[:12]}"

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"

    def matches(self, data: bytes | memoryview) -> bool:
        return hashlib.new(self.algorithm, data).hexdigest() == self.encoded


def text_of(raw: bytes) -> str:
    """`str(Digest.from_raw(raw))`, for many: what stands in an inventory is known to be a digest."""
    return f"{_ALGORITHM_OF_RAW_LENGTH[len(raw)]}:{raw.hex()}"


class Verifier:
    """Hashes a stream and compares at the end: `update` each chunk, then `verify`."""

    __slots__ = ("_expected", "_hash", "size")

    def __init__(self, expected: Digest | None = None, algorithm: str = "sha256") -> None:
        self._expected = expected
        self._hash = hashlib.new(expected.algorithm if expected else algorithm)
        #: Bytes seen so far.
        self.size = 0

    def update(self, chunk: bytes | memoryview) -> None:
        self._hash.update(chunk)
        self.size += len(chunk)

    @property
    def digest(self) -> Digest:
        """The digest of what was seen so far."""
        return Digest(self._hash.name, self._hash.hexdigest())

    @property
    def matched(self) -> bool:
        return self._expected is None or self._hash.hexdigest() == self._expected.encoded

    def verify(self, what: str = "content") -> None:
        """Raise IntegrityError unless the bytes seen have the expected digest."""
        if not self.matched:
            raise IntegrityError(
                f"{what}: expected {self._expected}, but its {self.size:,} bytes have {self.digest}"
            )
