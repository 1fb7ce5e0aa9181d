"""Which blobs are read: all, a share, one part of several, or so many bytes. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from regstore.errors import InputError
from regstore.tasks.runner import HERE, Runner

_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(?:i?B)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadData:
    """Which blobs to read: a share of the bytes (0 to 1), or a part (number, of), by digest, or so many bytes.

    A share and a number of bytes take those first that were never proved, then those proved longest ago. A part is
    always the same blobs, and parts 1/t to t/t together are all.
    """

    share: float | None = None
    part: tuple[int, int] | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.share, self.part, self.size)) != 1:
            raise InputError("what to read is a share, a part, or a number of bytes")
        if self.share is not None and not 0 < self.share <= 1:
            raise InputError("the share of the data to read is above 0% and at most 100%")
        if self.part is not None and not 1 <= self.part[0] <= self.part[1] <= 1 << 16:
            raise InputError(f"there is no part {self.part[0]}/{self.part[1]}: parts go from 1/t to t/t")

    @classmethod
    def parse(cls, text: str) -> ReadData:
        """`all`, `5%`, `3/7`, `10G` (binary units)."""
        text = text.strip()
        if text == "all":
            return cls(share=1.0)
        if match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text):
            return cls(share=float(match[1]) / 100)
        if match := re.fullmatch(r"(\d+)/(\d+)", text):
            return cls(part=(int(match[1]), int(match[2])))
        if match := _SIZE.fullmatch(text):
            return cls(size=int(float(match[1]) * _UNITS[match[2].upper()]))
        raise InputError(f"{text!r} says not what to read: all, a share (5%), a part (1/7) or a size (10G)")


class Checksums(StrEnum):
    """What to do with the SHA-256 that a server keeps beside an object. Some keep it as mere metadata: what a client
    said once, not what the bytes are now."""

    IGNORE = "ignore"
    REPORT = "report"
    TRUST = "trust"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """read: which blobs; None: only those that are suspect. max_age: microseconds; what was proved since is not read
    again. time_limit: seconds. concurrency: requests at once. runner: who reads what is much."""

    read: ReadData | None
    max_age: int | None = None
    time_limit: float | None = None
    checksums: Checksums = Checksums.IGNORE
    concurrency: int = 32
    runner: Runner = HERE
