"""One bucket in memory: objects, and a listing whose pages are joined from fragments rendered when a key was put.

Keys are kept in chunks of at most CHUNK keys in byte order (Python compares text by code point, which is the order
of UTF-8), each beside the `<Contents>` fragments of its keys: a page of 1,000 keys is a bisect and a few slices.
"""

from __future__ import annotations

import hashlib
import re
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import quote
from xml.sax.saxutils import escape

#: Keys in one chunk before it is split in two.
CHUNK = 2_000
_SAFE = re.compile(r"[A-Za-z0-9_./~-]*\Z").match
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Object:
    """An object: its body, or only the first bytes of it where `size` is larger; a read fills up with zeros."""

    __slots__ = ("body", "etag", "headers", "mtime", "size")

    def __init__(self, body: bytes | bytearray, size: int, etag: str, mtime: int, headers: bytes = b"") -> None:
        self.body = body
        self.size = size  # bytes
        self.etag = etag  # without quotes
        self.mtime = mtime  # seconds since the epoch, UTC
        self.headers = headers  # header lines given at PUT (metadata, content type), as they are sent back

    def read(self, start: int, end: int) -> bytes | bytearray | memoryview:
        """The bytes [start, end)."""
        if end <= len(self.body):
            return self.body if end - start == len(self.body) else memoryview(self.body)[start:end]
        return self.body[start:end] + bytes(end - max(start, len(self.body)))


class Page(NamedTuple):
    entries: list[bytes]  # rendered <Contents>, then <CommonPrefixes>
    last: str  # last key or common prefix of the page
    truncated: bool


def md5(body: bytes | bytearray) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def xml_text(text: str) -> str:
    """Text for XML; control characters as references, as AWS does, although XML 1.0 has none for them."""
    text = escape(text)
    return _CONTROL.sub(lambda m: f"&#x{ord(m[0]):x};", text) if _CONTROL.search(text) else text


_last_day: tuple[int, str] = (-1, "")


def iso(seconds: int) -> str:
    global _last_day
    day, rest = divmod(seconds, 86_400)
    if day != _last_day[0]:
        _last_day = (day, time.strftime("%Y-%m-%d", time.gmtime(seconds)))
    hour, rest = divmod(rest, 3_600)
    return f"{_last_day[1]}T{hour:02}:{rest // 60:02}:{rest % 60:02}.000Z"


def _fragment(key_text: str, item: Object) -> bytes:
    return (
        f"<Contents><Key>{key_text}</Key><LastModified>{iso(item.mtime)}</LastModified>"
        f"<ETag>&quot;{item.etag}&quot;</ETag><Size>{item.size}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
    ).encode()


def _prefix_fragment(text: str) -> bytes:
    return f"<CommonPrefixes><Prefix>{text}</Prefix></CommonPrefixes>".encode()


class Bucket:
    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self._keys: list[list[str]] = [[]]
        self._fragments: list[list[bytes]] = [[]]
        self._first: list[str] = [""]  # no key of chunk i sorts before _first[i]
        self._special: set[str] = set()  # keys that look different in XML or when URL-encoded

    def put(self, key: str, item: Object) -> None:
        known = key in self.objects
        self.objects[key] = item
        if not _SAFE(key):
            self._special.add(key)
        fragment = _fragment(xml_text(key), item)
        chunk = bisect_right(self._first, key) - 1
        keys, fragments = self._keys[chunk], self._fragments[chunk]
        at = bisect_left(keys, key)
        if known:
            fragments[at] = fragment
            return
        keys.insert(at, key)
        fragments.insert(at, fragment)
        if len(keys) > CHUNK:
            half = len(keys) // 2
            self._keys[chunk : chunk + 1] = [keys[:half], keys[half:]]
            self._fragments[chunk : chunk + 1] = [fragments[:half], fragments[half:]]
            self._first.insert(chunk + 1, keys[half])

    def delete(self, key: str) -> bool:
        if self.objects.pop(key, None) is None:
            return False
        self._special.discard(key)
        chunk = bisect_right(self._first, key) - 1
        keys = self._keys[chunk]
        at = bisect_left(keys, key)
        del keys[at], self._fragments[chunk][at]
        if not keys and len(self._keys) > 1:
            del self._keys[chunk], self._fragments[chunk], self._first[chunk]
            self._first[0] = ""
        return True

    def load(self, items: Iterable[tuple[str, Object]]) -> None:
        """Adds many objects at once, in any order: one sort instead of an insertion a key."""
        self.objects.update(items)
        ordered = sorted(self.objects)
        self._special = {key for key in ordered if not _SAFE(key)}
        self._keys, self._fragments, self._first = [], [], []
        step = CHUNK // 2
        for at in range(0, len(ordered), step):
            keys = ordered[at : at + step]
            self._keys.append(keys)
            self._fragments.append([_fragment(xml_text(key), self.objects[key]) for key in keys])
            self._first.append(keys[0])
        if not ordered:
            self._keys, self._fragments, self._first = [[]], [[]], [""]
        self._first[0] = ""

    def page(self, prefix: str, after: str, delimiter: str, limit: int, url_encoded: bool) -> Page:
        """At most `limit` keys and common prefixes beyond `after`, as rendered XML."""
        if delimiter:
            return self._page_by_delimiter(prefix, after, delimiter, limit, url_encoded)
        contents: list[bytes] = []
        inclusive = after < prefix
        start = prefix if inclusive else after
        chunk = bisect_right(self._first, start) - 1
        keys = self._keys[chunk]
        at = bisect_left(keys, start) if inclusive else bisect_right(keys, start)
        last = ""
        special = url_encoded and self._special
        while len(contents) < limit:
            if at >= len(keys):
                chunk += 1
                if chunk >= len(self._keys):
                    return Page(contents, last, False)
                keys, at = self._keys[chunk], 0
                continue
            end = min(len(keys), at + limit - len(contents))
            done = False
            if not keys[end - 1].startswith(prefix):
                end = bisect_left(keys, True, at, end, key=lambda key: not key.startswith(prefix))
                done = True
            if special:
                contents += self._encoded(keys[at:end])
            else:
                contents += self._fragments[chunk][at:end]
            if end > at:
                last = keys[end - 1]
            if done:
                return Page(contents, last, False)
            at = end
        following = next(self._from(chunk, at), None)
        return Page(contents, last, following is not None and following.startswith(prefix))

    def _encoded(self, keys: Iterable[str]) -> Iterator[bytes]:
        for key in keys:
            yield _fragment(quote(key, safe="/~"), self.objects[key])

    def _from(self, chunk: int, at: int) -> Iterator[str]:
        while chunk < len(self._keys):
            yield from self._keys[chunk][at:]
            chunk, at = chunk + 1, 0

    def _next_key(self, start: str, inclusive: bool) -> str | None:
        chunk = bisect_right(self._first, start) - 1
        keys = self._keys[chunk]
        at = bisect_left(keys, start) if inclusive else bisect_right(keys, start)
        while at >= len(keys):
            chunk += 1
            if chunk >= len(self._keys):
                return None
            keys, at = self._keys[chunk], 0
        return keys[at]

    def _page_by_delimiter(self, prefix: str, after: str, delimiter: str, limit: int, url_encoded: bool) -> Page:
        def render(text: str) -> str:
            return quote(text, safe="/~") if url_encoded else xml_text(text)

        contents: list[bytes] = []
        prefixes: list[bytes] = []
        last = ""
        if after.startswith(prefix) and (cut := after.find(delimiter, len(prefix))) >= 0:
            # `after` is a common prefix already given, or lies below one: all of it is behind us.
            position, inclusive = after[: cut + len(delimiter)] + "\U0010ffff", False
        elif after < prefix:
            position, inclusive = prefix, True
        else:
            position, inclusive = after, False
        while True:
            key = self._next_key(position, inclusive)
            if key is None or not key.startswith(prefix):
                return Page(contents + prefixes, last, False)
            if len(contents) + len(prefixes) >= limit:
                return Page(contents + prefixes, last, True)
            cut = key.find(delimiter, len(prefix))
            if cut >= 0:
                last = key[: cut + len(delimiter)]
                prefixes.append(_prefix_fragment(render(last)))
                position, inclusive = last + "\U0010ffff", False
            else:
                last = key
                contents.append(_fragment(render(key), self.objects[key]))
                position, inclusive = key, False
