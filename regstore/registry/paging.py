"""Names page by page: in the order of the names, of a store that lists in the order of its keys.

The two orders differ where a name is the beginning of another: `1.0-rc1/…` and `app/1/_…` are listed before `1.0/…` and
`app/_…`. Then the shorter name comes late, and must not be missed: what has not been listed yet, and still sorts before
a name that has, can only be the beginning of the name listed last. So a page costs its own part of the listing, and a
look at each such beginning, of which a name has a few.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing


async def first_names(
    listed: AsyncGenerator[str, None],
    *,
    after: str,
    most: int | None,
    key: Callable[[str], str],
    exists: Callable[[str], Awaitable[bool]],
) -> tuple[list[str], bool]:
    """The first names after `after`, in byte order, at most so many (None: all), and whether there are more.

    listed: names in the order of their keys, from where that of `after` would be at the latest; closed at the end.
    """
    names: list[str] = []
    async with aclosing(listed):
        async for name in listed:
            if name <= after:
                continue
            names.append(name)
            if most is not None and len(names) > most:
                names += [
                    short
                    for end in range(1, len(name))
                    if (short := name[:end]) > after and key(short) > key(name) and await exists(short)
                ]
                break
    names.sort()
    return (names, False) if most is None else (names[:most], len(names) > most)
