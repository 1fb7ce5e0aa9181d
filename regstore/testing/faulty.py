"""A Storage that fails, dies or pauses where a test says, over any other Storage.

With no fault set it behaves as the one inside, and passes the same conformance suite.

    faulty = FaultyStorage(inner, die_at=7, when="after")
    await died(run(faulty))                # True once the 7th mutation was made and the process "killed"
    faulty.mutations                       # what was begun, in order

A mutation is one changed key: each key of a `delete_many` is one of its own, in the order given, and a `move` on
a store without renames is a copy and a delete. Probes of `capabilities` and `now` are none.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from regstore.digest import Digest
from regstore.errors import AccessDenied, IntegrityError, StorageError
from regstore.storage.base import (
    Capabilities,
    MultipartUpload,
    ObjectInfo,
    Page,
    PutOptions,
    ReadHandle,
    Storage,
)

#: Called with the operation ("put", "delete", "get", "list", …) and its key (for a list, its prefix). May be a
#: coroutine function. What it raises comes out of the operation; changes made through the *inner* storage are
#: what another process did meanwhile.
Hook = Callable[[str, str], Awaitable[None] | None]


#: By these a storage is known to be able to do what no mutation here would be counted for.
_UNWATCHABLE = frozenset(("stored_parts", "copies_from", "aioboto3_client", "folder", "keep_id"))


class Killed(BaseException):
    """The process was killed here. Every later call raises it again: nothing of it runs on, not even clean-up."""


@dataclass(frozen=True)
class Mutation:
    """operation: put, delete, copy, move, abort or rmdir. target: of a copy or a move."""

    operation: str
    key: str
    target: str = ""


class FaultyStorage:
    """The storage `inner`, with faults. url, counters: its own."""

    def __init__(
        self,
        inner: Storage,
        *,
        fail_at: int | None = None,
        die_at: int | None = None,
        when: Literal["before", "after"] = "before",
        error: Callable[[str], StorageError] = StorageError,
        delete_errors: Mapping[str, StorageError] | None = None,
        delete_denied: str | None = None,
        fail_list_page: int | None = None,
        fail_list_prefix: str = "",
        before: Hook | None = None,
        after: Hook | None = None,
    ) -> None:
        """fail_at, die_at: the number of a mutation, from 1: the StorageError (made by `error`), or Killed, comes
        before or after it is made. fail_at hits once, so a repeated attempt passes.
        delete_errors: what delete_many answers for these keys, which then stay.
        delete_denied: AccessDenied is what it answers for every key that begins so ("": for all).
        fail_list_page: the number of a page, from 1 and over all listings whose prefix begins with
        fail_list_prefix, that raises instead; once."""
        self.inner = inner
        self.url = inner.url
        self.counters = inner.counters
        self.serves_in_parallel = inner.serves_in_parallel
        self.bills_requests = inner.bills_requests
        self.fail_at = fail_at
        self.die_at = die_at
        self.when = when
        self.error = error
        self.delete_errors = dict(delete_errors or {})
        self.delete_denied = delete_denied
        self.fail_list_page = fail_list_page
        self.fail_list_prefix = fail_list_prefix
        self.before = before
        self.after = after
        self.mutations: list[Mutation] = []
        self.pages = 0
        self.dead = False

    def identity(self) -> str:
        return self.inner.identity()

    @property
    def symlinks(self) -> Collection[str]:
        return self.inner.symlinks

    def __getattr__(self, name: str) -> Any:
        """What only this backend has, such as a disk's `hash_objects`: unwatched. What else can change the store is not
        there."""
        if name in _UNWATCHABLE:
            raise AttributeError(name)
        return getattr(self.inner, name)

    # -- faults

    def _alive(self) -> None:
        if self.dead:
            raise Killed("killed before")

    def _strike(self, number: int, when: str, what: str) -> None:
        if self.when != when:
            return
        if number == self.die_at:
            self.dead = True
            raise Killed(f"killed {when} mutation {number}: {what}")
        if number == self.fail_at:
            self.fail_at = None
            raise self.error(f"fault {when} mutation {number}: {what}")

    async def _call(self, hook: Hook | None, operation: str, key: str) -> None:
        if hook is not None:
            result = hook(operation, key)
            if inspect.isawaitable(result):
                await result

    @asynccontextmanager
    async def _reading(self, operation: str, key: str) -> AsyncIterator[None]:
        self._alive()
        await self._call(self.before, operation, key)
        self._alive()
        yield
        await self._call(self.after, operation, key)
        self._alive()

    @asynccontextmanager
    async def _mutating(self, operation: str, key: str, target: str = "") -> AsyncIterator[None]:
        self._alive()
        await self._call(self.before, operation, key)
        self._alive()
        self.mutations.append(Mutation(operation, key, target))
        number = len(self.mutations)
        self._strike(number, "before", f"{operation} {key}")
        yield
        self._strike(number, "after", f"{operation} {key}")
        await self._call(self.after, operation, key)
        self._alive()

    # -- the protocol

    async def capabilities(self) -> Capabilities:
        self._alive()
        return await self.inner.capabilities()

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        self._alive()
        await self._call(self.before, "list", prefix)
        self._alive()
        async for page in self.inner.list(prefix, start_after=start_after):
            self._alive()
            if prefix.startswith(self.fail_list_prefix):
                self.pages += 1
                if self.pages == self.fail_list_page:
                    raise self.error(f"fault in page {self.pages} of listings, at {prefix}")
            yield page
            self._alive()
        await self._call(self.after, "list", prefix)

    async def stat(self, key: str) -> ObjectInfo:
        async with self._reading("stat", key):
            return await self.inner.stat(key)

    async def get(self, key: str) -> bytes:
        async with self._reading("get", key):
            return await self.inner.get(key)

    @asynccontextmanager
    async def open_read(self, key: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[ReadHandle]:
        async with self._reading("open_read", key):
            async with self.inner.open_read(key, start=start, length=length) as handle:
                yield handle

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, options: PutOptions | None = None
    ) -> None:
        async with self._mutating("put", key):
            await self.inner.put(key, data, if_absent=if_absent, options=options)

    async def put_stream(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        size: int | None = None,
        digest: Digest | None = None,
        options: PutOptions | None = None,
    ) -> int:
        async with self._mutating("put", key):
            return await self.inner.put_stream(key, chunks, size=size, digest=digest, options=options)

    async def delete_many(self, keys: Sequence[str]) -> dict[str, StorageError | None]:
        self._alive()
        struck: BaseException | None = None
        sent: list[str] = []
        outcomes: dict[str, StorageError | None] = {}
        for key in keys:
            await self._call(self.before, "delete", key)
            self._alive()
            self.mutations.append(Mutation("delete", key))
            number = len(self.mutations)
            try:
                self._strike(number, "before", f"delete {key}")
                if self.delete_denied is not None and key.startswith(self.delete_denied):
                    outcomes[key] = AccessDenied("DeleteObjects: Access Denied")
                elif key in self.delete_errors:
                    outcomes[key] = self.delete_errors[key]
                else:
                    sent.append(key)
                self._strike(number, "after", f"delete {key}")
            except (StorageError, Killed) as error:
                struck = error
                break
        # The keys before the fault go, as in a batch that is cut short; then it strikes.
        if sent:
            outcomes |= await self.inner.delete_many(sent)
        if struck is not None:
            raise struck
        for key in sent:
            await self._call(self.after, "delete", key)
        self._alive()
        return outcomes

    async def copy(self, source: str, target: str, *, size: int | None = None) -> None:
        async with self._mutating("copy", source, target):
            await self.inner.copy(source, target, size=size)

    async def move(self, source: str, target: str, *, size: int) -> None:
        self._alive()
        if (await self.inner.capabilities()).atomic_rename:
            async with self._mutating("move", source, target):
                await self.inner.move(source, target, size=size)
            return
        # What the inner move does in one call, as steps between which one can be killed.
        async with self._mutating("copy", source, target):
            await self.inner.copy(source, target, size=size)
        seen = [
            info.size async for page in self.inner.list(target) for info in page.objects() if info.key == target
        ]
        if seen != [size]:
            raise IntegrityError(
                f"{self.url}: {target} does not have the {size:,} bytes of {source} after the copy"
            )
        async with self._mutating("delete", source):
            (outcome,) = (await self.inner.delete_many([source])).values()
            if outcome is not None:
                raise outcome

    async def list_multipart_uploads(self, prefix: str) -> AsyncIterator[MultipartUpload]:
        self._alive()
        await self._call(self.before, "list_multipart_uploads", prefix)
        async for upload in self.inner.list_multipart_uploads(prefix):
            self._alive()
            yield upload

    async def abort_multipart_upload(self, upload: MultipartUpload) -> None:
        async with self._mutating("abort", upload.key):
            await self.inner.abort_multipart_upload(upload)

    async def remove_empty_folders(
        self, prefix: str, *, older_than: int, keep: frozenset[str] = frozenset()
    ) -> int:
        async with self._mutating("rmdir", prefix):
            return await self.inner.remove_empty_folders(prefix, older_than=older_than, keep=keep)

    async def remove_folders(self, folders: Sequence[str]) -> int:
        async with self._mutating("rmdir", folders[-1]):
            return await self.inner.remove_folders(folders)

    async def now(self) -> int:
        self._alive()
        return await self.inner.now()

    async def close(self) -> None:
        """Closes the inner storage, dead or not: a killed process leaves no connections either."""
        await self.inner.close()

    async def __aenter__(self) -> FaultyStorage:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


async def died(work: Awaitable[object]) -> bool:
    """Await; whether it was killed (alone or within a group of exceptions). Any other exception comes out."""
    try:
        await work
    except Killed:
        return True
    except BaseExceptionGroup as group:
        if group.subgroup(Killed) is None:
            raise
        return True
    return False
