"""Which blobs a check reads: `all`, a share, one part of several, or so many bytes. Pure."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from regstore.digest import Digest
from regstore.errors import InputError

_UNITS: Final = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ReadData:
    """One of: share (0 to 1) of the bytes, part (n of t, by digest: all parts together are everything), or size."""

    share: float | None = None
    part: tuple[int, int] | None = None
    size: int | None = None

    @classmethod
    def parse(cls, text: str) -> ReadData:
        """`all`, `10%`, `3/30`, `50G`. InputError for anything else."""
        text = text.strip()
        if text == "all":
            return cls(share=1.0)
        if match := re.fullmatch(r"(\d+(?:\.\d+)?)%", text):
            if float(match[1]) <= 100:
                return cls(share=float(match[1]) / 100)
        elif match := re.fullmatch(r"(\d+)/(\d+)", text):
            number, total = int(match[1]), int(match[2])
            if 1 <= number <= total:
                return cls(part=(number, total))
        elif match := _SIZE.fullmatch(text):
            return cls(size=int(float(match[1]) * _UNITS[match[2].lower()]))
        raise InputError(
            f"--read-data wants all, a share such as 10%, a part such as 3/30, or a size, not {text!r}"
        )

    def choose(self, blobs: Mapping[Digest, int], chance: random.Random) -> dict[Digest, int]:
        """Those to read. A share and a size are drawn anew each time."""
        if self.part is not None:
            number, total = self.part
            return {one: size for one, size in blobs.items() if int(one.encoded[:12], 16) % total == number - 1}
        if self.share == 1.0:
            return dict(blobs)
        most = self.size if self.size is not None else int((self.share or 0) * sum(blobs.values()))
        chosen: dict[Digest, int] = {}
        ordered = sorted(blobs)
        chance.shuffle(ordered)
        for digest in ordered:
            if most <= 0:
                break
            chosen[digest] = blobs[digest]
            most -= blobs[digest]
        return chosen
