"""The index: one inventory of what is served, kept fresh in the background, which pages are made from.

A page asks the store for no more than the objects that it shows; lists, sizes and searches come from here. A refresh
lists the store anew and reads the manifests that it has not seen before; what stood before is shown until the new one
is complete. Where the store does not answer, the last index stays, and says how old it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from regstore.concurrency import in_thread
from regstore.errors import RegstoreError
from regstore.events import Notice, OnEvent, ignore
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import ScanOptions, scan
from regstore.inventory.statements import Statements
from regstore.inventory.usage import Usage, plan_usage
from regstore.manifest import EdgeKind
from regstore.storage.base import Storage

Result = TypeVar("Result")

SQL: Final = Statements(
    "regstore.serve",
    "index.sql",
    **{kind.name.lower(): str(int(kind)) for kind in (EdgeKind.SUBJECT, EdgeKind.MANIFEST, EdgeKind.ENTRY)},
)
#: The index is refreshed again only when so many times the last refresh's own time has passed.
_REST: Final = 10
#: Those who may wait for a plan at a time.
_QUEUE: Final = 8
#: Results of planning that are kept.
_RESULTS: Final = 12
#: Bytes of the longest digest.
_LONGEST: Final = 64
#: Seconds until the first index is tried again.
_AGAIN: Final = 5.0


class IndexClosed(RegstoreError):
    """Nobody keeps this index any more."""


class IndexBusy(RegstoreError):
    """Too many wait for something to be planned."""


class View:
    """One complete index, which never changes. Queries run in threads, several at a time."""

    def __init__(self, inventory: Inventory, usage: Usage, seconds: float) -> None:
        self.usage = usage
        #: The store's time when its listing began, in microseconds.
        self.scanned_at = inventory.scanned_at
        self.database = inventory.database
        #: What the refresh took.
        self.seconds = seconds
        #: The plan whose tables are in the inventory now, "" for none. Only for what `once` runs.
        self.planned = ""
        self._inventory = inventory
        self._planning = asyncio.Lock()
        self._waiting = 0
        self._known: dict[str, Any] = {}

    async def rows(self, name: str, parameters: dict[str, Any] | None = None, **fragments: str) -> list[Any]:
        """The rows of one of the queries in `index.sql`."""
        return await in_thread(self._rows, name, parameters or {}, fragments)

    def _rows(self, name: str, parameters: dict[str, Any], fragments: dict[str, str]) -> list[Any]:
        (statement,) = SQL.filled(name, **fragments)
        cursor = self._inventory.connection.cursor()
        try:
            bound = {each: parameters[each] for each in statement.parameters}
            return cursor.execute(statement.sql, bound or None).fetchall()
        finally:
            cursor.close()

    def known(self, name: str) -> Any:
        """The result of `once`, None where nobody has asked for it."""
        return self._known.get(name)

    async def once(self, name: str, work: Callable[[Inventory], Result]) -> Result:
        """The result of some planning over the inventory, which is done when first asked for, one at a time. IndexBusy
        where `_QUEUE` wait for theirs already."""
        if name not in self._known:
            if self._waiting >= _QUEUE:
                raise IndexBusy(f"{self._waiting} wait for a plan")
            self._waiting += 1
            try:
                await self._plan(name, work)
            finally:
                self._waiting -= 1
        result: Result = self._known[name]
        return result

    async def _plan(self, name: str, work: Callable[[Inventory], object]) -> None:
        async with self._planning:
            if name not in self._known:
                if len(self._known) >= _RESULTS:
                    self._known.pop(next(iter(self._known)))
                self._known[name] = await in_thread(work, self._inventory)


@dataclass(slots=True)
class _Held:
    """A view, and how to close it when nobody looks at it any more."""

    view: View
    close: Callable[[], Any]
    users: int = 0
    old: bool = False

    async def let_go(self) -> None:
        if self.old and not self.users:
            await self.close()


@dataclass(kw_only=True)
class Index:
    """scanning: how to scan. refresh: seconds between refreshes, at least; 0 makes the index once."""

    storage: Storage
    scanning: ScanOptions
    refresh: float = 60.0
    on_event: OnEvent = ignore
    #: What is done with each new view, while it is shown already.
    after: Callable[[View], Awaitable[object]] | None = None
    #: Why the last refresh failed, "" where it did not.
    failure: str = ""
    _held: _Held | None = None
    _there: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ready(self) -> bool:
        return self._held is not None

    @asynccontextmanager
    async def view(self) -> AsyncGenerator[View, None]:
        """The newest view, once there is one; it stays open inside the context. IndexClosed for none."""
        await self._there.wait()
        held = self._held
        if held is None:
            raise IndexClosed("this index is kept no longer")
        held.users += 1
        try:
            yield held.view
        finally:
            held.users -= 1
            await held.let_go()

    @asynccontextmanager
    async def kept(self) -> AsyncGenerator[None, None]:
        """Kept fresh inside the context, from its beginning on; closed at its end."""
        task = asyncio.create_task(self._keep_fresh())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            await self.close()

    async def _keep_fresh(self) -> None:
        """An error, of the store or in here (no room for the index is one), is remembered and told, and tried again."""
        while True:
            begun = time.monotonic()
            try:
                await self.once()
                self.failure = ""
            except Exception as error:  # noqa: BLE001  # or what is shown would grow old without a word
                self._fail(error)
            if self._held is not None and not self.refresh:
                return
            took = time.monotonic() - begun
            await asyncio.sleep(max(self.refresh, _REST * took) if self._held is not None else _AGAIN)

    def _fail(self, error: Exception) -> None:
        """Readers learn what the store said; of anything else, only that it happened, and the log has it."""
        known = isinstance(error, RegstoreError)
        failure = str(error) if known else f"the index could not be made ({type(error).__name__})"
        if failure != self.failure:
            said = failure if known else f"{failure}: {error}"
            self.on_event(Notice(message=f"the pages' index is not refreshed: {said}"))
        self.failure = failure

    async def once(self) -> None:
        """Make a new view, and put it in the place of the last."""
        begun = time.monotonic()
        context = scan(self.storage, self.scanning, on_event=self.on_event)
        inventory = await context.__aenter__()

        async def close() -> None:
            await context.__aexit__(None, None, None)

        try:
            usage = await in_thread(prepare, inventory)
        except BaseException:
            await close()
            raise
        await self._replace(_Held(View(inventory, usage, time.monotonic() - begun), close))
        if self.after is not None:
            async with self.view() as view:
                await self.after(view)

    async def close(self) -> None:
        """For an index that was made by `once`; one that is `kept` is closed with that."""
        await self._replace(None)

    async def _replace(self, new: _Held | None) -> None:
        old, self._held = self._held, new
        self._there.set()
        if old is not None:
            old.old = True
            await old.let_go()


def prepare(inventory: Inventory) -> Usage:
    """Make the tables that pages read."""
    usage = plan_usage(inventory)
    SQL.run(inventory, "prepare")
    return usage


def digits(words: str) -> str:
    """The hex digits of a digest, or of the beginning of one, where the words could be one; else ""."""
    text = words.strip().lower()
    for algorithm in ("sha256", "sha384", "sha512"):
        text = text.removeprefix(f"{algorithm}:")
    return text if len(text) >= 4 and all(each in "0123456789abcdef" for each in text) else ""


def between(digits: str) -> dict[str, bytes]:
    """The first and the last digest, raw, that begin with these digits; none lies between them where there are no
    digits."""
    if not digits:
        return {"low": b"\xff", "high": b""}
    odd = len(digits) % 2 == 1
    low, high = (bytes.fromhex(digits + end if odd else digits) for end in "0f")
    return {"low": low, "high": high.ljust(_LONGEST, b"\xff")}
