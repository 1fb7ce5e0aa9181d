"""DeleteObjects, with the outcome of every key."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeVar
from xml.sax.saxutils import escape

from regstore.errors import (
    AuthenticationFailed,
    NoSuchBucket,
    RegstoreError,
    StorageError,
    Unreachable,
)
from regstore.storage.s3.client import Answer, SignedClient
from regstore.storage.s3.failures import Refusal, may_act_yet
from regstore.storage.s3.xml import children, parse_expected, texts

BATCH: Final = 1000
#: DeleteObjects at a time. Every key counts as a write, and S3 takes 3,500 a second of one prefix.
BATCHES_AT_A_TIME: Final = 3
#: What XML 1.0 cannot say, or a parser would change: these keys are deleted one by one.
_NOT_FOR_XML: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

#: How servers without DeleteObjects put it where they don't say 501: older Google Cloud Storage takes the POST for an
#: upload by a form, and says 400 InvalidArgument.
_NOT_UNDERSTOOD: Final = {"InvalidArgument", "InvalidRequest", "MalformedPOSTRequest"}

T = TypeVar("T")
Outcomes = dict[str, StorageError | None]


async def delete(client: SignedClient, key: str) -> None:
    """One key; gone already is no error. A missing bucket is."""

    def parse(answer: Answer) -> None:
        if answer.status == 404:
            refusal = answer.refusal()
            if refusal.code != "NoSuchKey":
                raise refusal

    retried: list[Exception] = []
    await client.call("DeleteObject", "DELETE", key, accept=(200, 204, 404), parse=parse, retried=retried)
    _note_repeated(client, retried)


def _note_repeated(client: SignedClient, retried: Iterable[Exception]) -> None:
    client.counters.repeated_deletes += sum(map(may_act_yet, retried))


class Deleter:
    """Remembers that a server lacks DeleteObjects; keys are deleted one by one then."""

    def __init__(self, client: SignedClient) -> None:
        self._client = client
        self._multi = True

    async def delete_many(self, keys: Sequence[str]) -> Outcomes:
        """Full keys; the outcome of each, in their order."""
        wanted = list(dict.fromkeys(keys))
        single = [key for key in wanted if _NOT_FOR_XML.search(key)]
        alone = set(single)
        many = [key for key in wanted if key not in alone]
        outcomes: Outcomes = {}
        if len(many) == 1:
            single, many = single + many, []
        batches = [many[at : at + BATCH] for at in range(0, len(many), BATCH)]
        await _in_parallel(batches, BATCHES_AT_A_TIME, lambda batch: self._batch(batch, outcomes))
        await self._one_by_one(single, outcomes)
        return {key: outcomes[key] for key in wanted}

    async def _batch(self, keys: list[str], outcomes: Outcomes) -> None:
        try:
            if self._multi:
                await self._multi_delete(keys, outcomes)
            else:
                await self._one_by_one(keys, outcomes)
        except StorageError as error:
            if isinstance(error, (AuthenticationFailed, NoSuchBucket)):
                raise
            refusal = error.__cause__
            lacking = isinstance(refusal, Refusal) and (refusal.lacks_operation or refusal.code in _NOT_UNDERSTOOD)
            if lacking or (isinstance(refusal, Refusal) and refusal.code == "MalformedXML"):
                if lacking:
                    self._multi = False
                await self._one_by_one(keys, outcomes)
                return
            outcomes.update((key, error) for key in keys if key not in outcomes)

    async def _multi_delete(self, keys: list[str], outcomes: Outcomes) -> None:
        policy = self._client.settings.retries
        left = keys
        attempt = 0
        while True:
            attempt += 1
            refusals = await self._send(left)
            again: list[str] = []
            for key in left:
                refusal = refusals[key]
                if refusal is None or refusal.code == "NoSuchKey":
                    outcomes[key] = None
                elif refusal.transient and attempt < policy.tries:
                    again.append(key)
                else:
                    outcomes[key] = _as_outcome(self._client.error(refusal, "DeleteObjects", key))
            if not again:
                return
            left = again
            self._client.counters.retries += 1
            _note_repeated(self._client, filter(None, (refusals[key] for key in again)))
            await asyncio.sleep(policy.delay(attempt))

    async def _send(self, keys: list[str]) -> dict[str, Refusal | None]:
        objects = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
        body = f'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{objects}</Delete>'.encode()
        md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()

        def parse(answer: Answer) -> dict[str, Refusal | None]:
            root = parse_expected(answer.body, ("DeleteResult", "DeleteObjectsResult"))
            unreported = Refusal(200, "", "the server reported no outcome for this key")
            found: dict[str, Refusal | None] = dict.fromkeys(keys, unreported)
            for entry in children(root, "Deleted"):
                (key,) = texts(entry, "Key")
                if key in found:
                    found[key] = None
            for entry in children(root, "Error"):
                key, code, message = texts(entry, "Key", "Code", "Message")
                if key in found:
                    found[key] = Refusal(500 if not code else 400, code or "InternalError", message)
            return found

        retried: list[Exception] = []
        outcomes = await self._client.call(
            "DeleteObjects",
            "POST",
            query=[("delete", "")],
            headers={"content-md5": md5, "content-type": "application/xml"},
            body=body,
            parse=parse,
            about=f"{len(keys)} keys",
            retried=retried,
        )
        _note_repeated(self._client, retried)
        return outcomes

    async def _one_by_one(self, keys: list[str], outcomes: Outcomes) -> None:
        async def one(key: str) -> None:
            try:
                await delete(self._client, key)
            except StorageError as error:
                if isinstance(error, (AuthenticationFailed, NoSuchBucket)):
                    raise
                outcomes[key] = error
            else:
                outcomes[key] = None

        await _in_parallel(keys, min(16, self._client.settings.concurrency), one)


def _as_outcome(error: RegstoreError) -> StorageError:
    return error if isinstance(error, StorageError) else Unreachable(str(error))


async def _in_parallel(items: Sequence[T], workers: int, work: Callable[[T], Awaitable[None]]) -> None:
    """The first exception ends the others and is raised."""
    left = iter(items)

    async def worker() -> None:
        for item in left:
            await work(item)

    tasks = [asyncio.create_task(worker()) for _ in range(min(workers, len(items)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
