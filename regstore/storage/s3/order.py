"""A listing is believed only if its keys are strictly increasing, in the page and across all of its pages. Pure.

Not every server lists so. rustfs shows an object twice where a directory marker stands above it (rustfs #2439), and the
key that it was told to start after (rustfs #1165); directory buckets of AWS list in no order. Who counts such entries
counts too much; who takes the last key for the place reached goes on too far, and what is passed over looks absent.
"""

from __future__ import annotations

import operator
from itertools import islice, pairwise

from regstore.storage.base import ObjectInfo
from regstore.storage.s3.xml import ListedPage


class Disorder(Exception):
    """What is wrong with a listing, in words that follow "the server's listing of …"."""


def in_order(page: ListedPage, last: ObjectInfo | None) -> ListedPage:
    """The page with every key once. `last`: the entry that the listing has come to, None before the first.

    An entry that is repeated next to itself (size, ETag and time agree) is dropped. Raises Disorder where one is
    repeated with other facts, and where a key does not sort after the one before it.
    """
    keys = page.keys
    # The order of Python's strings is that of code points, and so of UTF-8 bytes.
    if all(map(operator.lt, keys, islice(keys, 1, None))) and (last is None or not keys or last.key < keys[0]):
        return page
    entries = list(map(ObjectInfo, keys, page.sizes, page.etags, page.mtimes))
    shown = entries if last is None else [last, *entries]
    fresh = [True] * (len(entries) - len(shown) + 1)
    for one, other in pairwise(shown):
        if other.key < one.key:
            raise Disorder(f"is not in byte order: {other.key!r} comes after {one.key!r}")
        if other.key == one.key and other != one:
            raise Disorder(f"shows {one.key!r} twice, and with different facts: {_facts(one)}, and {_facts(other)}")
        fresh.append(other.key != one.key)
    return page.only(fresh)


def _facts(entry: ObjectInfo) -> str:
    return f"{entry.size} bytes, ETag {entry.etag or 'none'}, time {entry.mtime}"
