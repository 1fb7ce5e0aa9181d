"""Names as people type them: digests in their short form, and what was meant where a name is unknown."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Collection, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from regstore import layout
from regstore.cli.run import run_async
from regstore.digest import HEX_LENGTH, Digest
from regstore.errors import InputError, NameUnknown, RegstoreError, TagUnknown
from regstore.words import meant as meant

if TYPE_CHECKING:
    from regstore.cli.settings import StoreSettings
    from regstore.registry import Registry
    from regstore.storage.base import Storage

T = TypeVar("T")

#: A digest's beginning: of fewer characters too many would have it.
_SHORT: Final = re.compile(r"(sha256|sha384|sha512):([0-9a-f]{4,})")


def is_short(text: str) -> bool:
    match = _SHORT.fullmatch(text)
    return match is not None and len(match[2]) < HEX_LENGTH[match[1]]


def the_one(short: str, among: Iterable[Digest], where: str) -> Digest:
    """The digest that begins so. InputError where none does, or several."""
    found = sorted({digest for digest in among if str(digest).startswith(short)})
    if not found:
        raise InputError(f"no digest in {where} begins with {short}")
    if len(found) > 1:
        more = f" and {len(found) - 2:,} more" if len(found) > 2 else ""
        raise InputError(f"{short} is the beginning of {found[0]}, {found[1]}{more} in {where}: give more of it")
    return found[0]


async def full_references(settings: StoreSettings, words: list[str]) -> list[str]:
    """The words, with the whole digest in each `REPOSITORY@DIGEST` that has the beginning of one."""
    if not any(is_short(word.partition("@")[2]) for word in words):
        return words
    from regstore.registry import Registry

    async with Registry(settings.open(read_only=True)) as registry:
        return await full_in(registry, words)


async def full_in(registry: Registry, words: list[str]) -> list[str]:
    """The same of a registry that is open, such as a snapshot."""
    return [await _full(registry, word) for word in words]


def full(settings: StoreSettings, words: list[str]) -> list[str]:
    """The same outside of a loop."""
    if not any(is_short(word.partition("@")[2]) for word in words):
        return words
    return run_async(full_references(settings, words))


async def _full(registry: Registry, word: str) -> str:
    name, _, digest = word.partition("@")
    if not is_short(digest):
        return word
    repository = name.partition(":")[0] if "/" not in name.partition(":")[2] else name
    known = [one async for one in registry.repository(repository).manifests]
    return f"{name}@{the_one(digest, known, f'{repository} in {registry.url}')}"


async def full_digest(storage: Storage, text: str) -> Digest:
    """Of a whole digest, or of the beginning of one that is stored, or lies in the trash. InputError."""
    if not is_short(text):
        return Digest.parse(text)
    algorithm, _, beginning = text.partition(":")
    folder = f"blobs/{algorithm}/{beginning[:2]}/{beginning}"
    found: set[Digest] = set()
    for prefix in (f"{layout.PREFIX}{folder}", layout.TRASH):
        async for page in storage.list(prefix):
            for key in page.keys:
                _, there, rest = key.partition(f"/{folder}")
                name = beginning + rest.partition("/")[0]
                if there and len(name) == HEX_LENGTH[algorithm]:
                    found.add(Digest(algorithm, name))
    return the_one(text, found, storage.url)


async def meaning(settings: StoreSettings, names: Collection[str], work: Awaitable[T]) -> T:
    """The work; an unknown name in it says what was meant."""
    async with saying_what_was_meant(settings, names):
        return await work


@asynccontextmanager
async def saying_what_was_meant(settings: StoreSettings, names: Collection[str]) -> AsyncIterator[None]:
    """An error about an unknown repository or tag says besides what there is that looks like it. names:
    `repository` or `repository:tag`, as they were typed."""
    try:
        yield
    except (NameUnknown, TagUnknown) as error:
        raise type(error)(f"{error}{await _meant_by(settings, names)}") from error


async def _meant_by(settings: StoreSettings, names: Collection[str]) -> str:
    from regstore.registry import Registry

    try:
        async with Registry(settings.open(read_only=True)) as registry:
            known = [repository.name async for repository in registry.repositories()]
            for full in names:
                name, _, tag = full.partition("@")[0].partition(":")
                if name not in known:
                    return meant(name, known)
                if tag:
                    tags = [one.name async for one in registry.repository(name).tags]
                    if tag not in tags:
                        return meant(tag, tags)
    except RegstoreError:
        pass  # the error itself says enough
    return ""


def version_key(tag: str) -> tuple[object, ...]:
    """Orders tags as versions: numbers by their value, and `1.0-rc1` before `1.0`."""
    base, dash, rest = tag.partition("-")
    return (_by_numbers(base.removeprefix("v")), not dash, _by_numbers(rest), tag)


def _by_numbers(text: str) -> list[tuple[int, int, str]]:
    return [
        (0, int(part), "") if part.isdigit() and part.isascii() else (1, 0, part)
        for part in re.findall(r"[0-9]+|[^0-9.]+", text)
    ]
