"""One listing, cut into ranges that are listed at the same time, only where it proves long.

A listing is sequential: each page must end before the next can be asked for. So a long one is split: whoever
has just read a full page, and sees idle hands, gives away the rest of its range in parts. Where the keys run
through hex digests the density of the page just read says how much is left, and the cuts are even; elsewhere
they are interpolated between the last key and the end, in the alphabet that the page shows. A cut that was
badly placed costs one request, no key is ever listed twice or missed: ranges are half-open and adjoin.
(Python compares text by code point, which is the byte order of UTF-8, which is S3's.)

A listing of N keys in S ranges costs at most N/1000 + S requests where the server fills its pages.
"""

from __future__ import annotations

import asyncio
import bisect
import math
import re
import string
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from regstore.concurrency import task_group
from regstore.storage.base import Page, Storage
from regstore.tasks.listing import ListRange, list_range
from regstore.tasks.runner import HERE, Runner

Sink = Callable[[Page], Awaitable[None]]

_TOP: Final = "~"  # sorts after what registries accept in names; not a control character, which no XML may hold
#: Sorts after every other character.
_LAST: Final = "\U0010ffff"
_HEX_FOLDER: Final = re.compile(r"(.*/(?:sha256|sha384|sha512)/)((?:[0-9a-f]{2}/)?)([0-9a-f]{64,128})/")
_DIGITS: Final = string.digits
_HEX: Final = string.digits + "abcdef"
_NAME: Final = "-." + "/" + string.digits + "_" + string.ascii_lowercase
_ANY: Final = "".join(map(chr, range(0x20, 0x7F)))
_MAX_CUTS_BLIND: Final = 2
#: A cut costs up to a page of keys that lie behind the range's end; so a range is worth at least these pages.
_WORTH_PAGES: Final = 5
#: Of a page, what a range may be expected to fill so that it is hardly ever more than one: digests are even. A request
#: for each is no more than ranges of some pages take, whose last ones are half empty, and all are sent at once.
_FULL: Final = 0.88
#: A range must have been this long, in pages, before it is cut where nothing tells how much is left.
_PROVEN_PAGES: Final = 3
#: Keys after which a listing is long, and processes are worth their start.
_LONG: Final = 30_000
_TASK_PAGES: Final = 2
#: On other computers; no more, since only what a task has shown says where the rest can be cut.
_FAR_PAGES: Final = 32


@dataclass(slots=True)
class _Range:
    """Keys after `after` and up to and including `last` ("" is no bound)."""

    after: str
    last: str
    pages: int = 0


async def list_in_parallel(
    storage: Storage,
    prefix: str,
    sink: Sink,
    *,
    concurrency: int,
    begin: str | None = None,
    runner: Runner = HERE,
) -> int:
    """Give every page below the prefix to `sink`, in no order; returns the number of ranges used.

    begin: a beginning of the prefix; then what begins so and sorts before the prefix is given too, which costs no
    request of its own where it is little.

    An error of any range ends the listing with that error: what the sink has got is then incomplete and must not
    be used. The sink is awaited, so a slow one slows the listing down.
    """
    queue: asyncio.Queue[_Range] = asyncio.Queue()
    queue.put_nowait(_Range("", "" if begin is None else prefix + _LAST))
    open_ranges = 1
    used = 1
    idle = concurrency
    finished = asyncio.Event()
    reader = _Reader(storage, prefix if begin is None else begin, runner)

    async def work() -> None:
        nonlocal open_ranges, idle, used
        while True:
            piece = await queue.get()
            idle -= 1
            async for page in reader.pages_of(piece):
                kept = page.up_to(piece.last) if piece.last else page
                await sink(kept)
                if kept.complete or len(kept) < len(page):
                    break  # a page that ends at the bound goes on to one with nothing of it
                if page.keys:
                    piece.after = page.keys[-1]
                    piece.pages += -(-len(page) // 1000)
                    hands = idle - queue.qsize()
                    if hands > 0:
                        parts = _split(prefix, page.keys, piece, hands)
                        open_ranges += len(parts)
                        used += len(parts)
                        for part in parts:
                            queue.put_nowait(part)
            idle += 1
            open_ranges -= 1
            if open_ranges == 0:
                finished.set()

    async with task_group() as group:
        workers = [group.create_task(work()) for _ in range(max(1, concurrency))]
        await group.create_task(finished.wait())
        for worker in workers:
            worker.cancel()
    return used


class _Reader:
    """Lists ranges: here, and where the listing proves long by the runner."""

    def __init__(self, storage: Storage, prefix: str, runner: Runner) -> None:
        self._storage = storage
        self._prefix = prefix
        self._runner = runner
        self._listed = 0

    def _hands_out(self) -> bool:
        return self._runner.takes(self._listed, _LONG, self._storage)

    async def pages_of(self, piece: _Range) -> AsyncIterator[Page]:
        """Of a range that may become shorter meanwhile, and whose `after` goes on."""
        if not self._hands_out():
            async for page in self._storage.list(self._prefix, start_after=piece.after):
                self._listed += len(page)
                yield page
                if self._hands_out():
                    break
        pages = _FAR_PAGES if self._runner.is_far else _TASK_PAGES
        while True:
            rest = ListRange(prefix=self._prefix, after=piece.after, last=piece.last, pages=pages)
            yield await self._runner.run(list_range, rest, self._storage)


def cut_rest(prefix: str, keys: list[str], last: str, *, hands: int, pages: int) -> list[tuple[str, str]]:
    """What is behind the last key of a page, up to and including `last` ("" is no bound), in about as many parts as
    `hands`: each behind which key, up to which. pages: how many of the range were listed."""
    rest = _Range(keys[-1], last, pages)
    parts = [rest, *_split(prefix, keys, rest, hands)]
    return [(part.after, part.last) for part in parts]


def _split(prefix: str, keys: list[str], piece: _Range, hands: int) -> list[_Range]:
    """Shorten the piece, whose last full page was `keys`, and return what it gives away."""
    cuts = _cuts(prefix, keys, piece, hands)
    if not cuts:
        return []
    bounds = [*cuts, piece.last]
    piece.last, piece.pages = cuts[0], 0
    return [_Range(after, last) for after, last in pairwise(bounds)]


def _cuts(prefix: str, keys: list[str], piece: _Range, hands: int) -> list[str]:
    """Strings strictly between the last key and the piece's end ("": the end of the prefix), in order."""
    last, end = keys[-1], piece.last
    cuts = _hex_cuts(keys, end, hands)
    if cuts is None:
        blind = piece.pages >= _PROVEN_PAGES
        cuts = _blind_cuts(prefix, keys, end, min(hands, _MAX_CUTS_BLIND)) if blind else []
    return [cut for cut in cuts if last < cut and (not end or cut < end)]


def _hex_cuts(keys: list[str], end: str, hands: int) -> list[str] | None:
    """Even cuts of what is left of the digest folder that the page ends in, and one at the folder's end.

    None when that folder does not tell how much is left: too little of it, or too little in it.
    """
    match = _HEX_FOLDER.match(keys[-1])
    if match is None:
        return None
    folder, fan_out = match[1], bool(match[2])
    first = bisect.bisect_left(keys, folder)
    begin = _HEX_FOLDER.match(keys[first])
    if begin is None or begin[1] != folder:
        return None
    low, high = (_hex_fraction(found[3]) for found in (begin, match))
    if high <= low:
        return None
    inside = end.startswith(folder)
    top = _hex_fraction(end[len(folder) :].rpartition("/")[2]) if inside else 1.0
    pages_left = (top - high) / (high - low) * (len(keys) - first) / 1000
    if pages_left < 1 and first > 0:
        return None
    much = pages_left > 8 * _WORTH_PAGES
    parts = min(hands, int(pages_left / (_WORTH_PAGES if much else 2)))
    if parts > 1 and not much and (single := math.ceil(pages_left / _FULL)) <= hands:
        parts = single
    cuts = []
    for number in range(1, parts):
        digits = f"{int((high + (top - high) * number / parts) * 2**32):08x}"
        cuts.append(f"{folder}{digits[:2]}/{digits}" if fan_out else folder + digits)
    return cuts if inside or not cuts else [*cuts, folder + _TOP]


def _hex_fraction(digits: str) -> float:
    known = digits.rstrip(_TOP)[:8]
    return int(known.ljust(8, "0"), 16) / 2**32 if known else 1.0


def _blind_cuts(prefix: str, keys: list[str], end: str, count: int) -> list[str]:
    """Cuts interpolated between the last key and the end of what the page's keys have in common; one after that."""
    common = _common_prefix(keys[0], keys[-1])
    while len(common) >= len(prefix):
        alphabet = _alphabet(keys, len(common))
        low = _fraction(keys[-1][len(common) :], alphabet)
        inside = end.startswith(common) and len(end) > len(common)
        high = _fraction(end[len(common) :], alphabet) if inside else 1.0
        if high - low > 0.02:
            cuts = [
                common + _text(low + (high - low) * number / (count + 1), alphabet)
                for number in range(1, count + 1)
            ]
            if not inside and len(common) > len(prefix):
                cuts.append(common + _TOP)
            return sorted(set(cuts))
        common = common[:-1]
    return []


def _common_prefix(one: str, other: str) -> str:
    length = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        length += 1
    return one[:length]


def _alphabet(keys: list[str], position: int) -> str:
    """The smallest known alphabet that holds what the keys have at this position and the next."""
    seen = {character for key in keys[:: max(1, len(keys) // 50)] for character in key[position : position + 2]}
    for alphabet in (_DIGITS, _HEX, _NAME):
        if seen <= set(alphabet) | {"/", "-", "."}:
            return alphabet
    return _ANY


def _fraction(text: str, alphabet: str) -> float:
    """Where the text lies among all texts over the alphabet, from 0 to 1."""
    value, weight = 0.0, 1.0
    for character in text[:4]:
        weight /= len(alphabet)
        value += weight * bisect.bisect_left(alphabet, character)
    return min(value, 1.0)


def _text(fraction: float, alphabet: str) -> str:
    characters = []
    for _ in range(3):
        fraction *= len(alphabet)
        digit = min(int(fraction), len(alphabet) - 1)
        characters.append(alphabet[digit])
        fraction -= digit
    return "".join(characters)
