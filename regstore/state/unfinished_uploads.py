"""Multipart uploads of blobs that a run leaves when it is killed, or cut short: what is stored of them is used again.

    regstore/migrate/uploads/<random>.json    while the upload is under way, and until it is completed or aborted

    key, upload_id    of the upload
    options           how the object is stored
    source            of a copy: the store, its object's ETag, and the bytes of a part; "" where the bytes pass through
    free              whether the run has let go of it
    holder            the process that began it

S3 does not tell whose an upload is, and a registry makes such uploads of blobs too (it moves them so). So only what is
written down here is ours.

A run takes up the upload of a blob that it is to copy, whoever began it: two that send the same parts of the same
bytes do each other no harm, and who finds the upload ended begins another. It aborts an upload only when it can't use
it, and the run that began it has let go of it, or is certainly gone, or has sent nothing for a while. Each pass looks.

What passes through is hashed again, and a stored part is used when its ETag is the MD5 of the same bytes. With SSE-KMS
it is not, so there all parts are sent again (to the same upload).
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

from regstore.digest import Digest
from regstore.errors import AccessDenied, NotFound, StorageError
from regstore.layout import UPLOAD_RECORDS
from regstore.state.holder import Holder
from regstore.storage.base import MultipartUpload, PutOptions
from regstore.storage.optional import Resume, ResumesUploads, UploadGone
from regstore.storage.streams import BlobReader

#: Of an upload whose process can't be looked at: so long without a part, in microseconds, and it is taken for dead.
_SILENCE: Final = 15 * 60 * 1_000_000
#: Seconds in which a run that is cut short may say that it lets go of an upload.
_LAST_WORD: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Found:
    record: str
    key: str
    upload_id: str
    options: dict[str, Any]
    source: str
    parts: Mapping[int, tuple[str, int]]
    is_abandoned: bool


class Unfinished:
    """The unfinished uploads of a bucket that are ours, and uploads that can be taken up again."""

    def __init__(self, target: ResumesUploads, options: PutOptions | None) -> None:
        self._target = target
        self._put = options
        self._options = asdict((options or PutOptions()).over(target.put_options))
        self._found: defaultdict[str, list[_Found]] = defaultdict(list)

    async def load(self, is_wanted: Callable[[str], bool]) -> None:
        """Find what runs have left: one LIST. Abort what is of no use: keys that are not wanted, other options."""
        now = 0
        records = [
            pair
            async for page in self._target.list(UPLOAD_RECORDS)
            for pair in zip(page.keys, page.mtimes, strict=True)
        ]
        for record, written in records:
            now = now or await self._target.now()
            with suppress(AccessDenied):  # then nothing can be done about it
                found = await self._look(record, written, now)
                if found is not None and found.options == self._options and is_wanted(found.key):
                    self._found[found.key].append(found)
                elif found is not None:
                    await self._discard(found)

    def has(self, key: str) -> bool:
        """Whether `load` found one of this object."""
        return bool(self._found.get(key))

    async def _look(self, record: str, written: int, now: int) -> _Found | None:
        try:
            known = json.loads(await self._target.get(record))
            holder = Holder.parse(record, json.dumps(known["holder"]).encode())
            key, upload_id, options = str(known["key"]), str(known["upload_id"]), dict(known["options"])
            source, is_free = str(known.get("source", "")), bool(known.get("free", False))
        except NotFound:
            return None
        except (ValueError, KeyError, TypeError, RecursionError):
            return None  # it says nothing that could be acted on
        stored = await self._target.stored_parts(key, upload_id)
        if stored is None:
            await self._target.delete_many([record])
            return None
        is_abandoned = is_free or holder.is_dead or max(written, stored.newest) < now - _SILENCE
        return _Found(record, key, upload_id, options, source, stored.parts, is_abandoned)

    async def _discard(self, found: _Found) -> None:
        if found.is_abandoned:
            await self._target.abort_multipart_upload(MultipartUpload(found.key, found.upload_id, 0, 0))
            await self._target.delete_many([found.record])

    async def put(self, key: str, chunks: Callable[[], BlobReader], *, size: int, digest: Digest) -> None:
        """As `put_stream`, of what the reader gives; once more, with another, should somebody end the upload."""
        for is_last in (False, True):
            try:
                async with aclosing(chunks()) as reader, self.under_way(key) as resume:
                    await self._target.put_stream(
                        key, reader, size=size, digest=digest, options=self._put, resume=resume
                    )
                return
            except UploadGone:
                if is_last:
                    raise

    @asynccontextmanager
    async def under_way(self, key: str, source: str = "") -> AsyncIterator[Resume]:
        """For the time that an object is stored, in parts or not: the upload to take up, or room for a new one.
        source: as in the record. What else was left of this key goes once the object is there."""
        others = self._found.pop(key, [])
        found = next((one for one in others if one.source == source), None)
        others = [other for other in others if other is not found]
        record = found.record if found is not None else f"{UPLOAD_RECORDS}{secrets.token_hex(8)}.json"
        what: dict[str, Any] = {"key": key, "options": self._options, "source": source, "free": False}

        async def write() -> None:
            await self._target.put(record, json.dumps(what, indent=1, sort_keys=True).encode())

        async def begun(upload_id: str) -> None:
            what["upload_id"] = upload_id
            what["holder"] = asdict(Holder.this("migrate", "migrate", 0))
            await write()

        async def let_go() -> None:
            with suppress(StorageError, TimeoutError):
                async with asyncio.timeout(_LAST_WORD):
                    if resume.ended:
                        await self._target.delete_many([record])
                    elif "upload_id" in what:
                        what["free"] = True
                        others.append(_Found(record, key, what["upload_id"], self._options, source, {}, True))
                        await write()

        resume = Resume(found.upload_id if found else "", found.parts if found else {}, begun)
        try:
            yield resume
        except BaseException:
            await asyncio.shield(let_go())
            self._found[key] = others  # the object may be stored in another way yet
            raise
        await let_go()
        with suppress(StorageError):  # the object is there; the next pass looks again
            for other in others:
                await self._discard(other)
