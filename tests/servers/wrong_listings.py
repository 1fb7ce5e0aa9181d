"""Listings as wrong servers send them, for `FaultProxy.edit`: entries twice, as rustfs does (rustfs #2439)."""

from __future__ import annotations

import re
from typing import Final

_ENTRY: Final = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)
_TOKEN: Final = re.compile(rb"<ContinuationToken>(.*?)</ContinuationToken>")
_NEXT: Final = re.compile(rb"<NextContinuationToken>(.*?)</NextContinuationToken>")


class RepeatsEntries:
    """Every `nth` entry of a page of ListObjectsV2 is shown again behind itself; where `borders`, also the last of a
    page as the first of the next. resized: the second time with another size."""

    def __init__(self, nth: int = 2, *, borders: bool = True, resized: bool = False) -> None:
        self._nth = nth
        self._borders = borders
        self._resized = resized
        self._last: dict[bytes, bytes] = {}
        self.repeated = 0

    def __call__(self, body: bytes) -> bytes:
        seen = 0

        def twice(found: re.Match[bytes]) -> bytes:
            nonlocal seen
            seen += 1
            return found[0] + (self._again(found[0]) if seen % self._nth == 0 else b"")

        entries = _ENTRY.findall(body)
        token, following = _TOKEN.search(body), _NEXT.search(body)
        changed = _ENTRY.sub(twice, body)
        if self._borders and entries:
            if token is not None and token[1] in self._last:
                at = changed.index(b"<Contents>")
                changed = changed[:at] + self._again(self._last[token[1]]) + changed[at:]
            if following is not None:
                self._last[following[1]] = entries[-1]
        return changed

    def _again(self, entry: bytes) -> bytes:
        self.repeated += 1
        return re.sub(rb"<Size>(\d+)</Size>", rb"<Size>1\1</Size>", entry) if self._resized else entry
