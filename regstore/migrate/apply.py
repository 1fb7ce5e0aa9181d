"""Doing a plan: blobs, layer links, revision links, tag history, tags; each phase after the one before has ended.

Whatever is cut short leaves blobs and links that nothing needs yet, never a link to nothing. What can't be copied
blocks all that reaches it, and the rest goes on. The store is the journal: the next plan finds what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from regstore import layout
from regstore.concurrency import for_each, task_group
from regstore.digest import Digest
from regstore.errors import AlreadyExists, IntegrityError, NotFound, StorageError
from regstore.events import OnEvent, Progress
from regstore.inventory.inventory import Inventory
from regstore.inventory.sample import other_blobs
from regstore.migrate.options import MigrateOptions, Verify
from regstore.migrate.others import Others, is_undisturbed
from regstore.migrate.result import Conflict, MigrateResult, Problem
from regstore.migrate.shared import block
from regstore.migrate.transfer import LARGE, Transfer
from regstore.state import tag_record
from regstore.state.tag_record import TagLine
from regstore.storage.base import Storage
from regstore.storage.outage import OutageWatch, error_of_source
from regstore.storage.streams import (
    COPIED_WHOLE,
    COPIES_IN_PARTS,
    LARGE_STREAMS,
    ONE_REQUEST,
    STREAMS,
    SourceGone,
    is_fatal,
)
from regstore.tagging import replace_tag

_ROWS: Final = 2000
#: Between two words on how far the blobs are.
_TELL_SECONDS: Final = 0.1
#: So many blobs that the target would not take without one that passed between them, and it is the target's fault.
_FAILURES_IN_A_ROW: Final = 20


#: Tags to set; where they are looked at, also the index links that this pass writes, and those that the target had.
_TAGS: Final = """
    with looked_at as (
        select t.repository, m.target as place, t.name from migrate_tag t
        join migrate_repository m on m.id = t.repository where {looked_at}
    ),
    written as (
        select w.repository, w.name, list(x.digest) as digests
        from looked_at w join migrate_tag_index x using (repository, name) group by all
    ),
    history as (
        select w.repository, w.name, list((i.digest, i.mtime)) as links from looked_at w
        join dst.repository o on o.name = w.place
        join dst.tag_index i on i.repository = o.id and i.name = w.name group by all
    )
    select m.name, m.target, t.name, t.target, t.mtime, t.present, t.was, w.digests, h.links from migrate_tag t
    join migrate_repository m on m.id = t.repository
    left join written w on w.repository = t.repository and w.name = t.name
    left join history h on h.repository = t.repository and h.name = t.name
    anti join migrate_blocked b on b.digest = t.target
"""


@dataclass(frozen=True)
class _Seen:
    """What the pass knows of a tag at the target. present: it was listed. history: the times of its index links as
    listed, in microseconds. written: those that this pass writes."""

    present: bool
    history: Mapping[Digest, int]
    written: Sequence[Digest]

    @classmethod
    def of(
        cls, present: bool, written: Sequence[bytes] | None, history: Sequence[tuple[bytes, int]] | None
    ) -> _Seen:
        return cls(
            present,
            {Digest.from_raw(bytes(raw)): mtime for raw, mtime in history or ()},
            [Digest.from_raw(bytes(raw)) for raw in written or ()],
        )


class Applier:
    """One pass over a plan's tables. In the record, `name` is the pass's and `place` the source's. `others`: who was
    at work at the target before it was listed."""

    def __init__(
        self,
        source: Storage,
        target: Storage,
        inventory: Inventory,
        options: MigrateOptions,
        result: MigrateResult,
        *,
        name: str,
        place: str,
        others: Others,
        on_event: OnEvent,
    ) -> None:
        self._source = source
        self._target = target
        self._inventory = inventory
        self._options = options
        self._result = result
        self._name = name
        self._place = place
        self._others = others
        self._on_event = on_event
        self._transfer = Transfer(source, target, options, on_event)
        self._failures = 0
        self._watch = OutageWatch(source, other_blobs(inventory))
        self._unmade: list[bytes] = []
        #: Of the blobs under way: bytes, and how many of them are done.
        self._copying: dict[Digest, tuple[int, int]] = {}
        self._told = 0.0
        self._told_bytes = 0
        self._done_bytes = 0
        self._total_bytes = 0
        self._done_blobs = 0
        self._total_blobs = 0

    def _is_wanted(self, digest: Digest) -> bool:
        return bool(self._inventory.one("select count(*) from migrate_blob where digest = ?", [digest.raw]))

    async def run(self) -> bool:
        """False when another run changes the target, or has since it was listed: the plan is void, and no tag was set
        while that was known."""
        await self._transfer.find_unfinished(self._is_wanted)
        await self._blobs()
        if self._options.verify is not Verify.FULL:
            self._result.size_only += self._transfer.size_only
        if self._unmade:
            block(self._inventory, self._unmade)
        await self._layer_links()
        if not await self._is_undisturbed():
            return False
        await self._revisions()
        await self._signatures()
        await self._tag_index()
        await self._tags()
        return await self._is_undisturbed()

    async def _is_undisturbed(self) -> bool:
        return await is_undisturbed(
            self._target,
            self._others,
            self._inventory,
            concurrency=self._options.concurrency,
            own=self._transfer.own_runs,
        )

    # -- rows

    def _rows(self, sql: str) -> Iterator[tuple[Any, ...]]:
        """Rows, some at a time, on a connection of their own."""
        cursor = self._inventory.connection.cursor()
        try:
            cursor.execute(sql)
            while rows := cursor.fetchmany(_ROWS):
                yield from rows
        finally:
            cursor.close()

    async def _each(self, phase: str, sql: str, function: Callable[[tuple[Any, ...]], Awaitable[object]]) -> None:
        total = self._inventory.one(f"select count(*) from ({sql})")
        if not total:
            return
        done = 0

        async def one(row: tuple[Any, ...]) -> None:
            nonlocal done
            await function(row)
            done += 1
            self._on_event(Progress(phase=phase, done=done, total=total, unit="links"))

        await for_each(self._rows(sql), one, concurrency=self._options.concurrency)

    # -- blobs

    async def _blobs(self) -> None:
        full = self._options.verify is Verify.FULL
        wanted = "migrate_blob"
        if full:
            wanted = (
                "(select l.digest, l.size, l.suspect, m.digest is null as present from live_blob l"
                " left join migrate_blob m using (digest))"
            )
        present = "present" if full else "false"
        self._total_blobs, self._total_bytes = self._inventory.all(
            f"select count(*), coalesce(sum(size), 0)::bigint from {wanted}"
        )[0]
        columns = f"select digest, size, suspect, {present} from {wanted}"
        async with task_group() as group:
            for where, at_once in self._lanes():
                rows = self._rows(f"{columns} where {where} order by size desc")
                group.create_task(for_each(rows, self._blob, concurrency=min(at_once, self._options.concurrency)))
        await self._watch.end()

    def _lanes(self) -> list[tuple[str, int]]:
        """Large blobs have workers of their own, so that small ones need not wait for them."""
        at_once = self._options.concurrency
        if self._transfer.server_side:
            return [(f"size <= {COPIED_WHOLE}", at_once), (f"size > {COPIED_WHOLE}", COPIES_IN_PARTS)]
        if not self._target.serves_in_parallel:
            return [(f"size <= {LARGE}", at_once), (f"size > {LARGE}", LARGE_STREAMS)]
        return [
            (f"size <= {LARGE}", at_once),
            (f"size > {LARGE} and size <= {ONE_REQUEST}", STREAMS),
            (f"size > {ONE_REQUEST}", LARGE_STREAMS),
        ]

    async def _blob(self, row: tuple[bytes, int, bool, bool]) -> None:
        raw, size, suspect, present = row
        digest = Digest.from_raw(bytes(raw))
        self._copying[digest] = size, 0
        try:
            await self._copy(digest, size, suspect, present)
        except SourceGone:
            self._unmade.append(digest.raw)
        except StorageError as error:
            if is_fatal(error):
                raise
            self._unmade.append(digest.raw)
            self._result.failed.append(Problem(repository="", subject=f"blob {digest}", reason=self._reason(error)))
            if not isinstance(error, IntegrityError):
                await self._whose(digest, size, error)
        else:
            self._failures = 0
            self._watch.good()
        finally:
            del self._copying[digest]
        self._done_blobs += 1
        self._done_bytes += size
        self._tell()

    async def _whose(self, digest: Digest, size: int, error: StorageError) -> None:
        """Raises where it is not the source that does not give just this blob, and not for the first time."""
        key = layout.encode(layout.BlobKey(digest))
        of_source = await error_of_source(self._source, key, digest, size, error)
        if of_source is not None:
            await self._watch.bad(key, of_source)
            return
        self._failures += 1
        if self._failures >= _FAILURES_IN_A_ROW:
            raise error

    async def _copy(self, digest: Digest, size: int, suspect: bool, present: bool) -> None:
        if not present:
            try:
                await self._transfer.copy(
                    digest, size, suspect=suspect, on_bytes=lambda done: self._advance(digest, size, done)
                )
            except IntegrityError as error:
                if not (suspect and await self._transfer.read_back(digest, size)):
                    raise
                self._result.damaged += (
                    Problem(
                        repository="",
                        subject=f"blob {digest}",
                        reason=f"is damaged, and sound in {self._target.url}: {error}",
                    ),
                )
                return
        if self._options.verify is Verify.FULL:
            await self._verify(digest, size, present)
        if not present:
            self._result.blobs += 1
            self._result.blob_bytes += size

    async def _verify(self, digest: Digest, size: int, present: bool) -> None:
        if not await self._transfer.read_back(digest, size):
            # What was there before may be what is bad, or the source, which the server copied unseen.
            try:
                await self._transfer.copy(digest, size, suspect=True)
            except (IntegrityError, SourceGone):
                if not present:
                    await self._transfer.take_back(digest, size)
                raise
            self._result.repaired += 1
            if not await self._transfer.read_back(digest, size):
                raise IntegrityError(f"{self._target.url} does not give back the bytes that were written")
        self._result.verified += 1

    def _reason(self, error: StorageError) -> str:
        if isinstance(error, IntegrityError):
            return f"was not copied from {self._source.url}: {error}"
        return f"could not be copied: {error}"

    def _advance(self, digest: Digest, size: int, done: int) -> None:
        if digest in self._copying:
            self._copying[digest] = size, min(size, done)
        self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told < _TELL_SECONDS and self._done_blobs < self._total_blobs:
            return
        self._told = now
        largest = sorted(self._copying.items(), key=lambda item: -item[1][0])[:2]
        names = "".join(f"; {digest.short} ({size:,} B)" for digest, (size, _) in largest)
        # A try that failed begins again: what was told stands.
        done = self._done_bytes + sum(done for _, done in self._copying.values())
        self._told_bytes = max(self._told_bytes, done)
        self._on_event(
            Progress(
                phase="copying blobs",
                done=self._told_bytes,
                total=self._total_bytes,
                unit="B",
                detail=f"{self._done_blobs:,}/{self._total_blobs:,} blobs{names}",
            )
        )

    # -- links

    async def _put_link(self, key: layout.Key, digest: Digest) -> None:
        await self._target.put(layout.encode(key), layout.link_body(digest), options=self._options.put)

    async def _skip(self, key: layout.Key, repository: str, subject: str) -> None:
        """Something below could not be copied. If the source's own link is gone by now, that is no loss."""
        try:
            await self._source.get(layout.encode(key))
        except NotFound:
            self._result.gone += 1
            return
        except StorageError as error:
            if is_fatal(error):
                raise
        self._result.skipped.append(
            Problem(repository=repository, subject=subject, reason="was left out: a part of it was not copied")
        )

    async def _layer_links(self) -> None:
        async def one(row: tuple[Any, ...]) -> None:
            origin, name, raw, target, blocked = row
            digest = Digest.from_raw(bytes(raw))
            if blocked:
                await self._skip(layout.LayerLinkKey(origin, digest), origin, f"layer link {digest}")
                return
            await self._put_link(layout.LayerLinkKey(name, digest), Digest.from_raw(bytes(target)))
            self._result.layer_links += 1

        await self._each(
            "linking layers",
            "select m.name, m.target, l.digest, l.target, b.digest is not null from migrate_layer_link l"
            " join migrate_repository m on m.id = l.repository"
            " left join (select distinct digest from migrate_blocked) b on b.digest = l.target",
            one,
        )

    async def _revisions(self) -> None:
        """Those of one rank at a time: children before what names them."""
        ranks = [rank for (rank,) in self._inventory.all("select distinct rank from migrate_revision order by 1")]

        async def one(row: tuple[Any, ...]) -> None:
            origin, name, raw, blocked = row
            digest = Digest.from_raw(bytes(raw))
            if blocked:
                await self._skip(layout.RevisionLinkKey(origin, digest), origin, f"revision {digest}")
                return
            await self._put_link(layout.RevisionLinkKey(name, digest), digest)
            self._result.revisions += 1

        for rank in ranks:
            await self._each(
                "linking revisions",
                "select m.name, m.target, r.digest, b.digest is not null from migrate_revision r"
                " join migrate_repository m on m.id = r.repository"
                f" left join (select distinct digest from migrate_blocked) b using (digest) where r.rank = {rank}",
                one,
            )

    async def _signatures(self) -> None:
        async def one(row: tuple[Any, ...]) -> None:
            name, revision, digest = row[0], Digest.from_raw(bytes(row[1])), Digest.from_raw(bytes(row[2]))
            await self._put_link(layout.SignatureLinkKey(name, revision, digest), digest)
            self._result.signatures += 1

        await self._each(
            "linking signatures",
            "select m.target, s.revision, s.digest from migrate_signature s"
            " join migrate_repository m on m.id = s.repository"
            " anti join migrate_blocked b on b.digest = s.revision"
            " anti join migrate_blocked c on c.digest = s.digest",
            one,
        )

    # -- tags

    async def _tag_index(self) -> None:
        async def one(row: tuple[Any, ...]) -> None:
            name, tag, digest = row[0], row[1], Digest.from_raw(bytes(row[2]))
            await self._put_link(layout.TagIndexKey(name, tag, digest), digest)
            self._result.tag_index += 1

        # The history of a tag that can't be written waits for it: a registry lists a tag's folder as a tag.
        await self._each(
            "linking tag history",
            "select m.target, x.name, x.digest from migrate_tag_index x"
            " join migrate_repository m on m.id = x.repository"
            " anti join migrate_blocked b on b.digest = x.digest"
            " where not exists (from live_tag t join migrate_blocked c on c.digest = t.target"
            " where t.repository = x.repository and t.name = x.name)",
            one,
        )

    async def _tags(self) -> None:
        for origin, name, raw in self._rows(
            "select m.name, t.name, t.target from migrate_tag t join migrate_repository m on m.id = t.repository"
            " semi join migrate_blocked b on b.digest = t.target"
        ):
            digest = Digest.from_raw(bytes(raw))
            await self._skip(layout.TagCurrentKey(origin, name), origin, f"tag {name} ({digest})")
        total = self._inventory.count("migrate_tag")
        conditional = bool(total) and (await self._target.capabilities()).conditional_put
        rows = self._rows(_TAGS.format(looked_at="present" if conditional else "true"))
        done = 0

        for number, chunk in enumerate(_chunks(rows, tag_record.LINES)):
            lines = {
                (row[1], row[2]): TagLine(
                    source=self._source.url,
                    place=self._place,
                    origin=row[0],
                    repository=row[1],
                    tag=row[2],
                    digest=Digest.from_raw(bytes(row[3])),
                    time=row[4],
                    was=Digest.from_raw(bytes(row[6])) if row[6] is not None else None,
                )
                for row in chunk
            }
            seen = {(row[1], row[2]): _Seen.of(row[5], row[7], row[8]) for row in chunk}
            await tag_record.write_tags(self._target, self._name, number, list(lines.values()), done=False)
            lost: list[tuple[str, str]] = []

            async def one(
                line: TagLine,
                seen: dict[tuple[str, str], _Seen] = seen,
                lost: list[tuple[str, str]] = lost,
            ) -> None:
                nonlocal done
                place = (line.repository, line.tag)
                if not await self._set_tag(line, seen[place], conditional):
                    lost.append(place)
                done += 1
                self._on_event(Progress(phase="setting tags", done=done, total=total, unit="tags"))

            await for_each(lines.values(), one, concurrency=self._options.concurrency)
            for place in lost:
                del lines[place]
            await tag_record.write_tags(self._target, self._name, number, list(lines.values()), done=True)

    async def _set_tag(self, line: TagLine, seen: _Seen, conditional: bool) -> bool:
        """False when somebody set it since the target was listed: then it is kept."""
        key, body = layout.TagCurrentKey(line.repository, line.tag), layout.link_body(line.digest)
        text, put = layout.encode(key), self._options.put
        found: bytes | None = None
        if self._options.overwrite_tags:
            await self._target.put(text, body, options=put)
        elif seen.present or not conditional:
            found = await replace_tag(
                self._target,
                key,
                body,
                expected={None} if line.was is None else {None, layout.link_body(line.was)},
                known=seen.history,
                ours={line.digest, *seen.written},
                options=put,
            )
        else:
            try:
                await self._target.put(text, body, if_absent=True, options=put)
            except AlreadyExists:
                found = await self._body(text) or b""
        if found is not None and found != body:
            self._conflict(line, found)
            return False
        self._result.tags += 1
        return True

    async def _body(self, key: str) -> bytes | None:
        try:
            return await self._target.get(key)
        except NotFound:
            return None

    def _conflict(self, line: TagLine, found: bytes) -> None:
        there = layout.parse_link(found)
        self._result.conflicts += (
            Conflict(
                repository=line.repository,
                tag=line.tag,
                source=str(line.digest),
                target=str(there) if there else "",
            ),
        )


def _chunks(rows: Iterator[tuple[Any, ...]], size: int) -> Iterator[Sequence[tuple[Any, ...]]]:
    chunk: list[tuple[Any, ...]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
