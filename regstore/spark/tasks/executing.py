"""How a task runs in an executor: on the store that the driver named, with the driver's version; and how it fails."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from regstore import __version__, errors, layout
from regstore.errors import NotFound, Refused, RegstoreError, Unsupported
from regstore.events import ignore
from regstore.storage.base import Storage
from regstore.storage.identity import place_of
from regstore.storage.limit import paced
from regstore.storage.location import DiskLocation
from regstore.storage.opening import parse_location
from regstore.storage.optional import OpensElsewhere, StoreAddress
from regstore.tasks.packing import PackedError, unpack

T = TypeVar("T")

#: Requests at once of one task, where that is not bounded by less.
AT_ONCE: Final = 32
_ARCHIVES: Final = (".zip", ".jar", ".egg")
_MARK: Final = "regstore-error:"
_MARKED: Final = re.compile(_MARK + r"([A-Za-z0-9+/=]+)")


def version() -> str:
    """Of regstore and of Python, as driver and executors must agree on it."""
    return f"regstore {__version__} on Python {sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, kw_only=True)
class StoreWork:
    """address: may hold secrets. place: what `look_at` found of the store in the driver; mark: a key that the driver
    has put there, which says more. concurrency: requests at once, rate: requests a second, both of one task; 0 is no
    bound."""

    address: StoreAddress
    url: str
    place: str
    version: str
    concurrency: int
    rate: float = 0.0
    mark: str = ""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Storage]:
        """Refused where this is another version, or another store."""
        if self.version != version():
            raise Refused(f"the driver is {self.version}, and an executor {version()}: both must be the same")
        with paced(self.rate):
            async with self.address.open(self.concurrency, ignore) as storage:
                if not await self._is_it(storage):
                    raise Refused(
                        f"{self.url} is not the same store for all executors: a folder must be one that all computers "
                        "of the cluster share, under the same name"
                    )
                yield storage

    async def _is_it(self, storage: Storage) -> bool:
        if not self.mark:
            return await look_at(storage) == self.place
        try:
            await storage.stat(self.mark)
        except NotFound:
            return False
        return True

    def run(self, work: Callable[[Storage], Awaitable[T]]) -> T:
        async def go() -> T:
            async with self.open() as storage:
                return await work(storage)

        return asyncio.run(go())


def address_of(storage: Storage) -> StoreAddress:
    """Unsupported where only this process can open the store."""
    if not isinstance(storage, OpensElsewhere):
        raise Unsupported(f"{storage.url} can't be opened by other processes, and so not by a cluster's")
    return storage.address()


async def store_work(
    storage: Storage, *, concurrency: int, rate: float = 0.0, mark: str = "", place: str = ""
) -> StoreWork:
    """place: where it is known. Unsupported as `address_of` says."""
    return StoreWork(
        address=address_of(storage),
        url=storage.url,
        place=place or await look_at(storage),
        version=version(),
        concurrency=concurrency,
        rate=rate,
        mark=mark,
    )


@dataclass(frozen=True, kw_only=True)
class SharedTask:
    """Rows pass as `task` gives them, or unchanged, where this executor sees the work folder that the driver does. In
    the very task that writes them there. mark: a file that the driver has put in it."""

    url: str
    mark: str
    task: Callable[[Iterable[Any]], Iterator[Any]] | None = None

    def __call__(self, batches: Iterable[Any]) -> Iterator[Any]:
        return telling(lambda: self._all(batches if self.task is None else self.task(batches)))

    def _all(self, batches: Iterable[T]) -> Iterator[T]:
        for batch in batches:
            if not Path(self.mark).exists():
                raise Refused(
                    f"the work folder {self.url} is not the same one for all executors, and what some write would be "
                    "lost: name one that all computers of the cluster share (--work), such as s3a://bucket/folder"
                )
            yield batch


async def look_at(storage: Storage) -> str:
    """What tells the store from others of its name. Of a folder the numbers of some files: a share has the same ones on
    every computer."""
    location = parse_location(storage.url) if "://" not in storage.url else None
    if not isinstance(location, DiskLocation):
        return await place_of(storage)
    root = location.root
    found = [root, root / layout.REGISTRY, root / layout.BLOBS / "sha256", root / layout.REPOSITORIES]
    return f"{root}: {[_number(path) for path in found]}"


def _number(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0


class TaskFailed(Exception):
    """An error of regstore, in a text that comes through the engine."""


def telling(run: Callable[[], Iterator[T]]) -> Iterator[T]:
    """What is raised is told so that `told_error` finds it."""
    try:
        yield from run()
        forget_archives()
    except RegstoreError as error:
        kind = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        text = base64.b64encode(json.dumps([kind, str(error)]).encode()).decode()
        raise TaskFailed(f"{error} [{_MARK}{text}]") from error


def forget_archives() -> None:
    """At the end of a task. Spark begins each by having Python look anew at what it imports from, and before 3.11.4
    Python then reads the whole directory of an archive again, for each folder in it that was imported from: of a jar
    of Spark's, which executors have on PYTHONPATH, some tenths of a second. Where one is wanted again, Python still
    knows its directory."""
    known = sys.path_importer_cache
    archives = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path.endswith(_ARCHIVES)]
    for place in list(known):
        if any(place == path or place.startswith(path + os.sep) for path in archives):
            known.pop(place, None)


def told_error(text: str) -> BaseException | None:
    """The error of a task, of what the engine says of its failure. A server, or a key, may have written some of the
    text: it gets no more said by that than words of its own."""
    for found in _MARKED.finditer(text):
        with suppress(ValueError, TypeError):
            kind, said = json.loads(base64.b64decode(found[1]))
            known = getattr(errors, str(kind), None)
            if isinstance(known, type) and issubclass(known, RegstoreError):
                return unpack(PackedError(known, (str(said),), {}, None))
    return None
