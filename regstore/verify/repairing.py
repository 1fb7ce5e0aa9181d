"""Repair: the harmless part of it, and what is asked for beyond that.

Always: a damaged revision or sha256 layer link is written anew, for its path says what it must hold, where its blob
is there and the link is still as it was read; the empty link of a tag gets the one manifest that its history holds,
where that is whole; and a blob that lies in the store's own trash comes back.

With another copy of the registry (or a backup): blobs that are missing or damaged are fetched, each checked against
its digest before it becomes visible. A damaged original is kept in the trash first. What can't be read is left alone.

Only when asked: links that the other copy has and this one lost (a link is a right to read, and one that is missing
may have been removed on purpose); and tags that can't be pulled whole go (`drop`).

Every change is in the run's journal before it is made. Blobs come before links, links before tags: whatever is cut
short, nothing names what is not there that did not before; the next run finishes. Nothing is repaired in a
pull-through cache.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from regstore import layout
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import InputError, NotFound, Refused, StorageError
from regstore.events import OnEvent, Progress, ignore
from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import Statements
from regstore.inventory.whose import Use, refuse_database
from regstore.layout import LayerLinkKey, RevisionLinkKey, TagCurrentKey
from regstore.proving.read_data import Checksums
from regstore.state.journal import CREATED, DAMAGED, REWRITTEN, Entry
from regstore.state.lock import Lock
from regstore.storage.base import ObjectInfo, Storage
from regstore.storage.streams import copy_blob, is_fatal, verified_size
from regstore.tagging import put_missing, replace_tag
from regstore.verify.copies import Copies, Links
from regstore.verify.drop import broken_tags, drop_broken_tags
from regstore.verify.fault import FaultKind
from regstore.verify.options import VerifyOptions
from regstore.verify.plan import ONLY_TARGET
from regstore.verify.run import Verification, VerifyReport
from regstore.verify.work import RepairOptions, Repairs, Work

_SQL: Final = Statements("regstore.verify", "repair.sql", only_target=ONLY_TARGET)
_BATCH: Final = 1000
#: Blobs fetched at once: each may be gigabytes.
_FETCHES: Final = 4
#: Looks at the store between repairs; each finds what the last one's manifests name.
_ROUNDS: Final = 32
#: Whether these tags, `repository:tag`, may be dropped.
Agree = Callable[[Sequence[str]], Awaitable[bool]]


async def repair(
    storage: Storage,
    lock: Lock,
    options: VerifyOptions,
    what: RepairOptions,
    *,
    source: Storage | None = None,
    links: Links | None = None,
    agree: Agree | None = None,
    on_event: OnEvent = ignore,
) -> tuple[VerifyReport, Repairs, VerifyReport]:
    """Verify, repair, and verify again until nothing more can be done: what was found, what was done, what is left.

    source: another store of the same registry, or a backup of it, whose links `links` has. agree: asked before tags
    are dropped, with their names, and again where others would be.
    Refused for a pull-through cache, and where the metadata is in a database (`inventory.whose`).
    """
    if what.restore_links and source is None:
        raise InputError("links can be put back only from another copy: say --repair-from")
    rotten: dict[bytes, str] = {}
    unread: dict[bytes, str] = {}
    first: VerifyReport | None = None
    work = Work(storage, lock, what, options.scan.concurrency, on_event)
    mending = _Mending(work, Copies(storage, source, links))
    dropping = False
    agreed: set[str] = set()
    for _ in range(_ROUNDS):
        with Inventory(options.scan.inventory, memory_limit=options.scan.memory_limit) as inventory:
            look = Verification(storage, inventory, options, on_event, rotten=rotten, unread=unread)
            report = await look.run()
            refuse_database(storage.url, report.database, Use.REPAIR)
            options = replace(options, read=None, max_age=None, time_limit=None, checksums=Checksums.IGNORE)
            if look.pull_through:
                raise Refused(
                    f"{storage.url} is a pull-through cache: nothing is repaired there; it fetches what it lacks, and "
                    "what is damaged can be deleted"
                )
            first = first or report
            rotten, unread = look.rotten, look.unread
            before = work.changes
            if dropping:
                broken = set(broken_tags(inventory))
                if agree is not None and not broken <= agreed and not await agree(sorted(broken)):
                    break
                agreed |= broken
                await drop_broken_tags(work, inventory)
            else:
                await mending.blobs(inventory, rotten)
                await mending.links(inventory)
            if work.changes == before:
                if dropping or not what.drop_broken_tags:
                    break
                dropping = True
    repairs = await work.end()
    assert first is not None
    return first, repairs, report


class _Mending:
    """Blobs and links of one store."""

    def __init__(self, work: Work, copies: Copies) -> None:
        self._work = work
        self._storage = work.storage
        self._copies = copies

    # Blobs

    async def blobs(self, inventory: Inventory, rotten: dict[bytes, str]) -> None:
        """Fetch what is missing or damaged. What was put right leaves `rotten`."""
        rows = _SQL.run(inventory, "blobs").fetchall()
        done = 0

        async def mend(row: tuple[str, bytes]) -> None:
            nonlocal done
            digest = Digest.from_raw(bytes(row[1]))
            size = await self._fetch(digest, damaged=row[0] == FaultKind.BLOB_DAMAGED)
            if size is not None:
                self._work.fetched.append(str(digest))
                self._work.fetched_bytes += size
                self._work.failures.pop(str(digest), None)
                rotten.pop(digest.raw, None)
            done += 1
            self._work.on_event(Progress(phase="fetching blobs", done=done, total=len(rows), unit="blobs"))

        await for_each(rows, mend, concurrency=_FETCHES)

    async def _fetch(self, digest: Digest, *, damaged: bool) -> int | None:
        """Put the right bytes in place; their number, or None where there are none to be had."""
        key = layout.blob_key(digest)
        for place, info in await self._copies.find(digest):
            try:
                if damaged and not await self._is_good(place, info, digest):
                    self._work.failures[str(digest)] = f"{place.url}/{info.key} is damaged too"
                    continue
                if damaged and not await self._keep_damaged(key):
                    return None
                await self._work.lock.guard()
                # Visible only whole and right; what was there is replaced in one step.
                await copy_blob(
                    place, info.key, self._storage, key, digest=digest, size=info.size, put=self._work.what.put
                )
                return info.size
            except NotFound:
                continue
            except StorageError as error:
                if is_fatal(error):
                    raise
                self._work.failures[str(digest)] = str(error)
        return None

    async def _is_good(self, place: Storage, info: ObjectInfo, digest: Digest) -> bool:
        """Read it once before anything is changed for its sake."""
        return await verified_size(place, info.key, digest, info.size) is not None

    async def _keep_damaged(self, key: str) -> bool:
        """Put the damaged bytes aside; False where the blob vanished, and is not ours to bring back."""
        try:
            info = await self._storage.stat(key)
        except NotFound:
            return False
        await self._work.write([Entry(DAMAGED, key, info.size, info.mtime)])
        aside = self._work.aside + key
        try:
            await self._storage.copy(key, aside, size=info.size)
        except NotFound:
            return False
        except StorageError:
            if not (await self._storage.capabilities()).atomic_rename:
                raise
            # A disk that can't read it can still rename it.
            await self._storage.move(key, aside, size=info.size)
        return (await self._storage.stat(aside)).size == info.size

    # Links

    async def links(self, inventory: Inventory) -> None:
        await self._rewrite(inventory)
        await self._fill_tags(inventory)
        if self._work.what.restore_links:
            await self._restore(inventory)

    async def _rewrite(self, inventory: Inventory) -> None:
        rows = _SQL.run(inventory, "to_rewrite").fetchall()
        for start in range(0, len(rows), _BATCH):
            found: list[tuple[str, Digest, Entry]] = []

            async def look(
                row: tuple[str, str, bytes, int, int, bytes | None],
                found: list[tuple[str, Digest, Entry]] = found,
            ) -> None:
                name, area, raw, size, mtime, body = row
                digest = Digest.from_raw(bytes(raw))
                key = layout.encode((RevisionLinkKey if area == "revision" else LayerLinkKey)(name, digest))
                held = None if body is None else bytes(body)
                if await self._unchanged(key, size, mtime, held) and await self._is_there(digest):
                    found.append((key, digest, Entry(REWRITTEN, key, size, mtime, held)))

            await for_each(rows[start : start + _BATCH], look, concurrency=self._work.concurrency)
            if found:
                await self._work.write([entry for _, _, entry in found])

            async def rewrite(one: tuple[str, Digest, Entry]) -> None:
                _, digest, entry = one
                if await self._replace(entry, layout.link_body(digest), inventory):
                    self._work.rewritten.append(entry.key)

            await for_each(found, rewrite, concurrency=self._work.concurrency)

    async def _fill_tags(self, inventory: Inventory) -> None:
        """Empty links of tags, with the one manifest that their history holds."""
        rows = _SQL.run(inventory, "tags_to_fill").fetchall()
        for name, tag, raw, size, mtime in rows:
            digest, key = Digest.from_raw(bytes(raw)), layout.encode(TagCurrentKey(name, tag))
            if await self._unchanged(key, size, mtime, b"") and await self._is_whole(inventory, name, digest):
                entry = Entry(REWRITTEN, key, size, mtime, b"")
                await self._work.write([entry])
                if await self._replace(entry, layout.link_body(digest), inventory):
                    self._work.rewritten.append(key)

    async def _replace(self, entry: Entry, body: bytes, inventory: Inventory) -> bool:
        """Write a damaged link anew, if it is still as the journal has it; whether it was."""
        if not await self._unchanged(entry.key, entry.size, entry.mtime, entry.body):
            return False
        if entry.body is None:  # too long for a journal
            await self._storage.copy(entry.key, self._work.aside + entry.key, size=entry.size)
        key, put = layout.decode(entry.key), self._work.what.put
        if not isinstance(key, TagCurrentKey):
            async with self._work.lock.batch():
                await self._storage.put(entry.key, body, options=put)
            return True
        known = _SQL.run(inventory, "history", {"repository": key.name, "tag": key.tag}).fetchall()
        async with self._work.lock.batch():
            stands = await replace_tag(
                self._storage,
                key,
                body,
                expected={entry.body if entry.body is not None else await self._storage.get(entry.key)},
                known={Digest.from_raw(bytes(raw)): mtime for raw, mtime in known},
                ours=(),
                options=put,
            )
        return stands is None

    async def _unchanged(self, key: str, size: int, mtime: int, body: bytes | None) -> bool:
        async for page in self._storage.list(key):
            info = next((one for one in page.objects() if one.key == key), None)
            if info is None or (info.size, info.mtime) != (size, mtime):
                return False
            break
        if body is None:
            return True
        try:
            return await self._storage.get(key) == body
        except StorageError as error:
            if is_fatal(error):
                raise
            return False  # gone, or not to be seen: neither is written over

    async def _is_there(self, digest: Digest) -> bool:
        try:
            await self._storage.stat(layout.blob_key(digest))
        except NotFound:
            return False
        return True

    async def _restore(self, inventory: Inventory) -> None:
        """Links that are missing here, or damaged beyond what their path says, and sound in the other copy."""
        rows = _SQL.run(inventory, "to_restore").fetchall()
        for name, area, tag, raw, kind, size, mtime, held, newest in rows:
            key: layout.Key
            if area == "tag":
                # A tag moves: only what its own history says last is taken from a copy that may be old.
                if newest is None:
                    continue
                wanted, key = Digest.from_raw(bytes(newest)), TagCurrentKey(name, tag)
                if not await self._is_whole(inventory, name, wanted):
                    continue
            else:
                wanted = Digest.from_raw(bytes(raw))
                key = (RevisionLinkKey if area == "revision" else LayerLinkKey)(name, wanted)
            text = layout.encode(key)
            body = await self._copies.link(text)
            if body is None:
                continue
            target = layout.parse_link(body)
            alias = area == "layer" and wanted.algorithm != "sha256"
            if target is None or (target != wanted and not alias) or not await self._is_there(target):
                continue
            if kind == FaultKind.LINK_MISSING:
                await self._work.write([Entry(CREATED, text, len(body), 0, body)])
                async with self._work.lock.batch():
                    if await put_missing(self._storage, text, body, options=self._work.what.put):
                        self._work.restored.append(text)
                continue
            before = None if held is None else bytes(held)
            entry = Entry(REWRITTEN, text, size, mtime, before)
            await self._work.write([entry])
            if await self._replace(entry, body, inventory):
                self._work.restored.append(text)

    async def _is_whole(self, inventory: Inventory, name: str, manifest: Digest) -> bool:
        """Whether the repository links the manifest, and nothing that it needs is missing or damaged. What was put
        right in this round counts in the next one."""
        try:
            body = await self._storage.get(layout.encode(RevisionLinkKey(name, manifest)))
        except NotFound:
            return False
        given = {"repository": name, "digest": manifest.raw}
        [(struck,)] = _SQL.run(inventory, "struck", given).fetchall()
        return body == layout.link_body(manifest) and not struck
