"""Names page by page: every name once, in the order of the names, for few requests."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regstore import layout
from regstore.digest import Digest
from regstore.errors import NameUnknown, NotARegistry
from regstore.registry import Registry
from tests.model.memory import ModelStorage
from tests.model.store import ModelStore

DIGEST = Digest.of(b"x")
COMPONENT = st.from_regex(r"[a1]{1,2}(?:[._-][a1]{1,2}){0,2}", fullmatch=True)
NAMES = st.sets(st.lists(COMPONENT, min_size=1, max_size=3).map("/".join), min_size=1, max_size=12)
TAGS = st.sets(st.from_regex(r"[aA1_][aA1._-]{0,4}", fullmatch=True), min_size=1, max_size=12)
ODD = st.sampled_from(["", "!", "a", "a/", "a/1-", "~", "a_", "a\u202e", "a\n"])


def registry(*keys: layout.Key, page_size: int = 3) -> Registry:
    store = ModelStore()
    for key in keys:
        store.objects[layout.encode(key)] = (layout.link_body(DIGEST), 0)
    return Registry(ModelStorage(store, now=0, page=page_size))


def of_tags(tags: set[str]) -> Registry:
    return registry(
        *(layout.TagCurrentKey("r", tag) for tag in tags), *(layout.TagIndexKey("r", tag, DIGEST) for tag in tags)
    )


@settings(max_examples=150)
@given(NAMES, st.integers(0, 4), ODD | NAMES.map(min))
def test_repositories(names: set[str], most: int, after: str) -> None:
    found = registry(*(layout.LayerLinkKey(name, DIGEST) for name in names))
    wanted = sorted(name for name in names if name > after)
    assert asyncio.run(found.page(after=after, most=most)) == (wanted[:most], len(wanted) > most)
    assert asyncio.run(found.page(after=after)) == (wanted, False)


@settings(max_examples=150)
@given(TAGS, st.integers(0, 4), ODD | TAGS.map(min))
def test_tags(tags: set[str], most: int, after: str) -> None:
    found = of_tags(tags).repository("r").tags
    wanted = sorted(tag for tag in tags if tag > after)
    assert asyncio.run(found.page(after=after, most=most)) == (wanted[:most], len(wanted) > most)
    assert asyncio.run(found.page(after=after)) == (wanted, False)


async def test_a_page_costs_its_own_part_of_the_listing() -> None:
    """Three thousand repositories, and one of very many tags among them."""
    names = [f"team/app-{number:04}" for number in range(3000)]
    many = [layout.TagCurrentKey(names[1500], f"build-{number:05}") for number in range(20_000)]
    found = registry(*(layout.LayerLinkKey(name, DIGEST) for name in names), *many, page_size=1000)
    counters = found.storage.counters
    assert await found.page(after=names[1399], most=200) == (names[1400:1600], True)
    assert counters.requests == {"list": 2}, "its page, and what follows the large one"
    assert await found.page(most=200) == (names[:200], True)
    assert counters.requests == {"list": 4}, "and whether there is `team/app`"
    tags = found.repository(names[1500]).tags
    assert (await tags.page(after="build-09999", most=100))[0][-1] == "build-10099"
    assert counters.requests == {"list": 5}
    assert (await tags.page(most=100))[0][-1] == "build-00099"
    assert counters.requests == {"list": 6, "stat": 1}, "and whether there is `build`"


async def test_what_is_not_there() -> None:
    with pytest.raises(NotARegistry):
        await registry().page()
    found = of_tags({"a"})
    assert await found.page(after="r") == ([], False)
    assert await found.repository("r").tags.page(after="a", most=5) == ([], False)
    with pytest.raises(NameUnknown):
        await found.repository("none").tags.page(most=0)
