"""The tags of a pass: written down in the record, set where nobody else has meanwhile, and what was set noted there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from regstore import layout
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import AlreadyExists, NotFound
from regstore.events import Progress
from regstore.migrate.links import Links
from regstore.migrate.result import Conflict
from regstore.migrate.work import Work
from regstore.state import tag_record
from regstore.state.tag_record import TagLine
from regstore.tagging import replace_tag


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


@dataclass(frozen=True)
class _Tag:
    line: TagLine
    seen: _Seen


class Tags:
    """Sets those of one pass. `links` leaves out those whose manifests are not whole."""

    def __init__(self, work: Work, links: Links) -> None:
        self._work = work
        self._links = links
        self._target = work.target
        self._done = self._total = 0

    async def set(self) -> None:
        """Set them, so many at a time as one file of the record holds: written there before, and again after."""
        for origin, name, raw in self._work.rows("tags_left_out"):
            digest = Digest.from_raw(bytes(raw))
            await self._links.skip(layout.TagCurrentKey(origin, name), origin, f"tag {name} ({digest})")
        self._total = self._work.inventory.count("migrate_tag")
        conditional = bool(self._total) and (await self._target.capabilities()).conditional_put
        rows = self._work.rows("tags", looked_at="present" if conditional else "true")
        for number, chunk in enumerate(_chunks(rows, tag_record.LINES)):
            await self._set_some(number, [self._tag(row) for row in chunk], conditional)

    def _tag(self, row: tuple[Any, ...]) -> _Tag:
        origin, repository, tag, raw, time, present, was, written, history = row
        line = TagLine(
            source=self._work.source.url,
            place=self._work.place,
            origin=origin,
            repository=repository,
            tag=tag,
            digest=Digest.from_raw(bytes(raw)),
            time=time,
            was=Digest.from_raw(bytes(was)) if was is not None else None,
        )
        return _Tag(line, _Seen.of(present, written, history))

    async def _set_some(self, number: int, tags: Sequence[_Tag], conditional: bool) -> None:
        lines = {(tag.line.repository, tag.line.tag): tag.line for tag in tags}
        name, write = self._work.name, tag_record.write_tags
        await write(self._target, name, number, list(lines.values()), done=False)
        lost: list[tuple[str, str]] = []

        async def one(tag: _Tag) -> None:
            if not await self._set_tag(tag.line, tag.seen, conditional):
                lost.append((tag.line.repository, tag.line.tag))
            self._done += 1
            self._work.on_event(Progress(phase="setting tags", done=self._done, total=self._total, unit="tags"))

        await for_each(tags, one, concurrency=self._work.options.concurrency)
        for place in lost:
            del lines[place]
        await write(self._target, name, number, list(lines.values()), done=True)

    async def _set_tag(self, line: TagLine, seen: _Seen, conditional: bool) -> bool:
        """False when somebody set it since the target was listed: then it is kept."""
        key, body = layout.TagCurrentKey(line.repository, line.tag), layout.link_body(line.digest)
        text, put = layout.encode(key), self._work.options.put
        found: bytes | None = None
        if self._work.options.overwrite_tags:
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
        self._work.result.tags += 1
        return True

    async def _body(self, key: str) -> bytes | None:
        try:
            return await self._target.get(key)
        except NotFound:
            return None

    def _conflict(self, line: TagLine, found: bytes) -> None:
        there = layout.parse_link(found)
        self._work.result.conflicts += (
            Conflict(
                repository=line.repository,
                tag=line.tag,
                source=str(line.digest),
                target=str(there) if there else "",
            ),
        )


def _chunks(rows: Iterator[tuple[Any, ...]], size: int) -> Iterator[Sequence[tuple[Any, ...]]]:
    while chunk := list(islice(rows, size)):
        yield chunk
