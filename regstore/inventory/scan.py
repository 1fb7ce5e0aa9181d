"""scan: list the store once, decode its keys, resolve its links, read the manifests not seen before.

The order is part of gc's safety (DESIGN: step 3): blobs are listed first, then the links, so a blob that is in the
inventory and that no link of the inventory reaches was unreferenced after it had been listed.

One object that the store has and does not give is damage of that object: a manifest in the state `unreadable`, or a
link whose `unread` says why (`storage.outage` says when that is an outage instead, which ends the scan).

Requests for N keys in S ranges with M unseen manifests: at most N/1000 + S ListObjectsV2, M GetObject, none for
links whose size and ETag prove their body (LAYOUT: section 1); plus one ListMultipartUploads a thousand uploads. The
listing of blobs also shows whether links are the whole truth (`inventory.whose`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from regstore import layout
from regstore.concurrency import for_each, in_thread, task_group
from regstore.digest import Digest
from regstore.errors import AccessDenied, Archived, InvalidManifest, NotFound, StorageError, Unsupported
from regstore.events import Notice, OnEvent, Progress, ignore
from regstore.inventory.cache import ManifestCache, ParsedManifest, default_cache_dir
from regstore.inventory.inventory import Columns, Inventory
from regstore.inventory.listing import list_in_parallel
from regstore.inventory.sample import other_blobs
from regstore.inventory.whose import database_told_by
from regstore.manifest import MAX_SIZE, EdgeKind, parse_manifest
from regstore.storage.base import MultipartUpload, Page, Storage
from regstore.storage.outage import OutageWatch

_BATCH_KEYS: Final = 40_000
_BATCH_MANIFESTS: Final = 4_000
#: Digests held in memory at a time.
_SLICE: Final = 50_000
#: A link longer than this holds no digest; it is not read.
LINK_MAX: Final = 1024
#: SQL for the rows of a table of links whose bodies nothing has told so far.
_UNREAD: Final = f"from {{}} where target is null and body is null and unread is null and size <= {LINK_MAX}"


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """concurrency: requests in flight. cache_dir None: remember no manifests. inventory: keep the DuckDB file there."""

    concurrency: int = 32
    cache_dir: Path | None = None
    inventory: Path | None = None
    memory_limit: str = "192MB"

    @classmethod
    def default(cls) -> ScanOptions:
        return cls(cache_dir=default_cache_dir())


@asynccontextmanager
async def scan(
    storage: Storage, options: ScanOptions | None = None, *, on_event: OnEvent = ignore
) -> AsyncIterator[Inventory]:
    """The inventory of a store, closed on exit. Raises on the first page that can't be had."""
    options = options or ScanOptions.default()
    inventory = Inventory(options.inventory, memory_limit=options.memory_limit)
    try:
        await Scanner(storage, inventory, options, on_event).run()
        inventory.complete = True
        yield inventory
    finally:
        inventory.close()


class _Intake:
    """Pages on their way into the inventory, some 10^4 keys at a time, in a thread of its own."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._pages: list[Page] = []
        self._keys = 0
        self._lock = asyncio.Lock()

    async def add(self, page: Page) -> None:
        self._pages.append(page)
        self._keys += len(page)
        if self._keys >= _BATCH_KEYS:
            await self.flush(_BATCH_KEYS)

    async def flush(self, least: int = 1) -> None:
        async with self._lock:  # one thread at a time on the connection; who waits here slows the listing down
            if self._keys < least:
                return  # who waited before has taken them along
            pages, self._pages, self._keys = self._pages, [], 0
            await in_thread(self._inventory.ingest, pages)  # it must not outlast the connection


class Scanner:
    """One run of scan; its parts can be called one by one where only some are wanted."""

    def __init__(
        self, storage: Storage, inventory: Inventory, options: ScanOptions, on_event: OnEvent = ignore
    ) -> None:
        self._storage = storage
        self._inventory = inventory
        self._options = options
        self._on_event = on_event
        #: Where manifests are read that do not stand in their place: digest and key. Whoever knows any puts them here.
        self.stored_at: dict[bytes, str] = {}
        self._concurrency = options.concurrency
        self._intake = _Intake(inventory)
        self._links_read = 0
        self._manifests = OutageWatch(storage, other_blobs(inventory))

    async def run(self) -> None:
        self._inventory.scanned_at = await self._storage.now()
        await self.list_blobs()
        await self.list_links()
        await self.read_manifests()

    async def list_blobs(self) -> None:
        """Before `list_links`, which puts them into the inventory with what it finds. GitLab's marks sort before the
        blobs, so the same listing tells whether links are the whole truth."""
        await self._list(layout.BLOBS, "listing blobs", begin=layout.REGISTRY)

    async def list_links(self) -> None:
        """Links, tags and uploads, with every body known that can be known."""
        async with task_group() as group:
            group.create_task(self._list(layout.REPOSITORIES, "listing repositories"))
            uploads = group.create_task(self._find_multipart_uploads())
        await self._intake.flush()
        self._store_multipart_uploads(uploads.result())
        await self._resolve()

    async def list_repositories(self, names: Sequence[str], *, uploads_of: Iterable[str] = ()) -> None:
        """The same of a few repositories only: one LIST a thousand keys, at least one each. Multipart uploads of those
        in `uploads_of` only, one ListMultipartUploads each."""

        async def list_one(name: str) -> None:
            async for page in self._storage.list(layout.repository_prefix(name) + "_"):
                await self._intake.add(page)

        await for_each(names, list_one, concurrency=self._concurrency)
        await self._intake.flush()
        for name in uploads_of:
            self._store_multipart_uploads(await self._find_multipart_uploads(layout.uploads_prefix(name)))
        await self._resolve()

    async def _resolve(self) -> None:
        # A later look: what was missing may have been pushed since.
        self._inventory.execute("delete from main.manifest where state = 'missing'")
        self._resolve_tags()
        await self._read_links()
        self._inventory.execute("delete from tag_etag")

    async def read_manifests(self) -> None:
        """Every revision, every tag's target and, from these, every child manifest, to a fixpoint."""
        cache = ManifestCache(self._options.cache_dir)
        if cache.trouble:
            self._on_event(Notice(message=cache.trouble))
        try:
            read, full = 0, True
            while full and (rows := self._inventory.all(f"{_FIRST_MANIFESTS} limit {_SLICE}")):
                read, full = await self._read_batch(rows, cache, read), len(rows) == _SLICE
            while rows := self._inventory.all(f"{_CHILD_MANIFESTS} limit {_SLICE}"):
                read = await self._read_batch(rows, cache, read)
            await self._manifests.end()
        finally:
            cache.close()

    async def _list(self, prefix: str, phase: str, *, begin: str | None = None) -> None:
        done = 0

        async def sink(page: Page) -> None:
            nonlocal done
            if page.keys and page.keys[0] < prefix:
                self._inventory.database = self._inventory.database or database_told_by(page.keys)
                page = page.from_key(prefix)
            done += len(page)
            self._on_event(Progress(phase=phase, done=done))
            await self._intake.add(page)

        concurrency = self._concurrency if self._storage.serves_in_parallel else 1
        self._inventory.ranges += await list_in_parallel(
            self._storage, prefix, sink, concurrency=concurrency, begin=begin
        )

    async def _find_multipart_uploads(
        self, prefix: str = layout.REPOSITORIES
    ) -> list[tuple[layout.UploadKey, MultipartUpload]]:
        found = []
        try:
            async for upload in self._storage.list_multipart_uploads(prefix):
                key = layout.decode(upload.key)
                if isinstance(key, layout.UploadKey):
                    found.append((key, upload))
        except (AccessDenied, Unsupported) as error:
            self._inventory.multipart_uploads_unknown = str(error)
            return []
        return found

    def _store_multipart_uploads(self, found: Sequence[tuple[layout.UploadKey, MultipartUpload]]) -> None:
        if not found:
            return
        known = dict(self._inventory.all("select name, id from repository"))
        new = sorted({key.name for key, _ in found} - known.keys())
        for name in new:
            known[name] = len(known) + 1
        self._inventory.insert(
            "repository", {"id": ("int32", [known[name] for name in new]), "name": ("utf8", new)}
        )
        self._inventory.insert(
            "multipart_upload",
            {
                "repository": ("int32", [known[key.name] for key, _ in found]),
                "uuid": ("utf8", [key.uuid for key, _ in found]),
                "key": ("utf8", [upload.key for _, upload in found]),
                "upload_id": ("utf8", [upload.upload_id for _, upload in found]),
                "size": ("int64", [upload.size for _, upload in found]),
                "newest": ("int64", [upload.newest for _, upload in found]),
            },
        )

    def _resolve_tags(self) -> None:
        """A tag's body by its MD5, among the digests that its repository links as revisions or in the tag's history."""
        self._inventory.execute(
            """
            update tag set target = found.target
            from (
                with candidate as (
                    select repository, digest from revision_link
                    union
                    select repository, digest from tag_index
                ),
                text as (select repository, digest, digest_text(digest) as body from candidate)
                select tag.repository, tag.name, any_value(text.digest) as target
                from tag
                join tag_etag using (repository, name)
                join text on text.repository = tag.repository and md5(text.body) = tag_etag.etag
                    and length(text.body) = tag.size
                group by all
            ) found
            where tag.repository = found.repository and tag.name = found.name
            """
        )

    async def _read_links(self) -> None:
        """Read what size and ETag did not prove, and set target and body."""
        columns = {"layer_link": "digest", "revision_link": "digest", "tag": "name"}
        any_unread = " union all ".join(f"(select '{table}' {_UNREAD.format(table)} limit 1)" for table in columns)
        found = {table for (table,) in self._inventory.all(any_unread)}
        if not found:
            return
        names = dict(self._inventory.all("select id, name from repository"))
        for table in [table for table in columns if table in found]:
            column, full = columns[table], True
            watch = OutageWatch(self._storage, partial(self._other_links, table, column))
            while full:
                rows = self._inventory.all(f"select repository, {column} {_UNREAD.format(table)} limit {_SLICE}")
                full = len(rows) == _SLICE
                await self._read_slice(table, column, rows, names, watch)
            await watch.end()

    async def _not_given(self, watch: OutageWatch, key: str, error: StorageError) -> None:
        """Raises where that is no damage of the one object."""
        await watch.bad(key, error)
        if isinstance(error, Archived):
            self._inventory.note_archived(key)

    def _other_links(self, table: str, column: str, most: int, failed: Sequence[str]) -> list[str]:
        rows = self._inventory.all(
            f"select r.name, t.{column} from {table} t join repository r on r.id = t.repository"
            f" where size > 0 order by hash(r.name, t.{column}) limit ?",
            [most + len(failed)],
        )
        bad = set(failed)
        keys = (_link_key(table, name, label) for name, label in rows)
        return [key for key in keys if key not in bad][:most]

    async def _read_slice(
        self,
        table: str,
        column: str,
        rows: Sequence[tuple[int, Any]],
        names: dict[int, str],
        watch: OutageWatch,
    ) -> None:
        bodies: list[tuple[int, Any, bytes | None, str | None]] = []
        gone: list[tuple[int, Any]] = []

        async def read(row: tuple[int, Any]) -> None:
            repository, label = row
            key = _link_key(table, names[repository], label)
            try:
                body = await self._storage.get(key)
            except NotFound:
                gone.append(row)
            except StorageError as error:
                await self._not_given(watch, key, error)
                bodies.append((repository, label, None, str(error)))
                return
            else:
                bodies.append((repository, label, body, None))
            watch.good()
            self._links_read += 1
            self._on_event(Progress(phase="reading links", done=self._links_read, unit="links"))

        await for_each(rows, read, concurrency=self._concurrency)
        await in_thread(self._store_bodies, table, column, bodies, gone)

    def _store_bodies(
        self,
        table: str,
        column: str,
        bodies: Sequence[tuple[int, Any, bytes | None, str | None]],
        gone: Sequence[tuple[int, Any]],
    ) -> None:
        kind = "utf8" if column == "name" else "binary"
        parsed = [None if body is None else layout.parse_link(body) for _, _, body, _ in bodies]
        own = [label if column == "digest" else None for _, label, _, _ in bodies]
        targets = [digest.raw if digest else None for digest in parsed]
        kept = [
            None if target is not None and (column == "name" or target == digest) else body
            for target, digest, (_, _, body, _) in zip(targets, own, bodies, strict=True)
        ]
        found: Columns = {
            "repository": ("int32", [row[0] for row in bodies]),
            "label": (kind, [row[1] for row in bodies]),
            "target": ("binary", targets),
            "body": ("binary", kept),
            "unread": ("utf8", [row[3] for row in bodies]),
        }
        with self._inventory.given("found", found):
            self._inventory.execute(
                f"update {table} set target = found.target, body = found.body, unread = found.unread from found"
                f" where {table}.repository = found.repository and {table}.{column} = found.label"
            )
        for repository, label in gone:
            self._inventory.execute(
                f"delete from {table} where repository = ? and {column} = ?", [repository, label]
            )

    async def _read_batch(
        self, rows: Sequence[tuple[bytes, int | None]], cache: ManifestCache, read_before: int
    ) -> int:
        """Look at digests, each with its blob's size, or None where the blob was not listed: it is asked for all the
        same, for it may have come after the blobs had been listed."""
        sizes = {bytes(digest): size for digest, size in rows}
        unread = {digest: size for digest, size in sizes.items() if size is None or size <= MAX_SIZE}
        large = [(digest, size) for digest, size in sizes.items() if size is not None and size > MAX_SIZE]
        self._store_unreadable(
            [(digest, size, "too large", f"{size:,} bytes are too many for a manifest") for digest, size in large]
        )
        chunk: list[ParsedManifest] = []
        for known in cache.load(list(unread)):
            if unread[known.digest] != known.size:
                continue  # another size than when it was verified: read it again
            del unread[known.digest]
            chunk.append(known)
            if len(chunk) >= _BATCH_MANIFESTS:
                self._store(chunk)
                chunk = []
        self._store(chunk)

        total = read_before + len(unread)
        done = read_before
        fresh: list[ParsedManifest] = []
        broken: list[tuple[bytes, int, str, str]] = []

        async def read(raw: bytes) -> None:
            nonlocal done, fresh, broken
            outcome = await self._read_manifest(raw)
            if isinstance(outcome, ParsedManifest):
                fresh.append(outcome)
            else:
                broken.append(outcome)
            done += 1
            self._on_event(Progress(phase="reading manifests", done=done, total=total, unit="manifests"))
            if len(fresh) >= _BATCH_MANIFESTS:
                ready, fresh = fresh, []
                self._store(ready)
                cache.save(ready)

        await for_each(unread, read, concurrency=self._concurrency)
        self._store(fresh)
        cache.save(fresh)
        self._store_unreadable(broken)
        return total

    async def _read_manifest(self, raw: bytes) -> ParsedManifest | tuple[bytes, int, str, str]:
        digest = Digest.from_raw(raw)
        key = self.stored_at.get(raw) or layout.encode(layout.BlobKey(digest))
        try:
            data = await self._storage.get(key)
        except NotFound:
            self._manifests.good()
            return raw, 0, "missing", "its blob is missing"
        except StorageError as error:
            await self._not_given(self._manifests, key, error)
            return raw, 0, "unreadable", str(error)
        self._manifests.good()
        if not digest.matches(data):
            what = "it is empty" if not data else f"its {len(data):,} bytes have another digest"
            return raw, len(data), "mismatch", what
        try:
            return ParsedManifest.of(digest, len(data), parse_manifest(data))
        except InvalidManifest as error:
            return raw, len(data), "invalid", str(error)

    def _store(self, manifests: Sequence[ParsedManifest]) -> None:
        self._inventory.insert(
            "main.manifest",
            {
                "digest": ("binary", [known.digest for known in manifests]),
                "state": ("utf8", ["ok"] * len(manifests)),
                "media_type": ("utf8", [known.media_type for known in manifests]),
                "artifact_type": ("utf8", [known.artifact_type for known in manifests]),
                "size": ("int64", [known.size for known in manifests]),
            },
        )
        edges = [(known.digest, *edge) for known in manifests for edge in known.edges]
        self._inventory.insert(
            "main.edge",
            {
                "source": ("binary", [edge[0] for edge in edges]),
                "target": ("binary", [edge[1] for edge in edges]),
                "kind": ("int8", [edge[2] for edge in edges]),
                "size": ("int64", [edge[3] for edge in edges]),
            },
        )

    def _store_unreadable(self, rows: Iterable[tuple[bytes, int, str, str]]) -> None:
        rows = list(rows)
        self._inventory.insert(
            "main.manifest",
            {
                "digest": ("binary", [row[0] for row in rows]),
                "size": ("int64", [row[1] for row in rows]),
                "state": ("utf8", [row[2] for row in rows]),
                "reason": ("utf8", [row[3] for row in rows]),
            },
        )


_FIRST_MANIFESTS: Final = """
    with wanted as (
        select digest from revision_link
        union
        select target from tag where target is not null
        union
        select digest from legacy_revision
        union
        select digest from unknown_digest where followed
        union
        -- one of these is what such a tag names
        select digest from tag_index join tag using (repository, name) where tag.unread is not null
    )
    select digest, any_value(blob.size) from (from wanted anti join manifest using (digest))
    left join blob using (digest) group by digest
"""

_CHILD_MANIFESTS: Final = f"""
    select blob.digest, any_value(blob.size) from (
        from (select distinct target from edge where kind = {int(EdgeKind.MANIFEST)}) e
        anti join manifest m on m.digest = e.target
    ) join blob on blob.digest = target
    group by blob.digest
"""


def _link_key(table: str, name: str, label: Any) -> str:
    match table:
        case "layer_link":
            return layout.encode(layout.LayerLinkKey(name, Digest.from_raw(bytes(label))))
        case "revision_link":
            return layout.encode(layout.RevisionLinkKey(name, Digest.from_raw(bytes(label))))
        case _:
            return layout.encode(layout.TagCurrentKey(name, label))
