"""The record of what tags were set to (`regstore.state.tag_record`), as a relation, and kept small."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import NotFound, StorageError
from regstore.state.tag_record import (
    LINES,
    TEXTS,
    TagLine,
    list_record,
    next_pass,
    read_lines,
    write_lines,
    write_tags,
)

if TYPE_CHECKING:
    from regstore.inventory.inventory import Inventory
    from regstore.storage.base import Storage

#: So long, in microseconds, a pass may take to set the tags of one file. What it sets is younger than a file that still
#: says `was`, and older than the one that it writes afterwards.
SETTING: Final = 600 * 1_000_000
#: More files than this are merged, where that makes at least half of them superfluous.
MANY: Final = 16
#: Files read at a time.
_AT_ONCE: Final = 16
#: A file that still says `was` and is older than this, in microseconds, is no running pass's.
_ABANDONED: Final = 24 * 3600 * 1_000_000
#: So often a listing may be overtaken by a merge.
_TRIES: Final = 5


class TagTimes:
    """Keeps the times of tags that are set anew and had been set before. Asks nothing of the store before the first.
    source: as in the record."""

    def __init__(self, storage: Storage, source: str) -> None:
        self._storage = storage
        self._source = source
        self._pass = ""
        self._number = 0
        self._beginning = asyncio.Lock()

    def line(self, repository: str, tag: str, digest: Digest, time: int, *, was: Digest | None = None) -> TagLine:
        return TagLine(
            source=self._source,
            origin=repository,
            repository=repository,
            tag=tag,
            digest=digest,
            time=time,
            was=was,
        )

    @asynccontextmanager
    async def setting(self, lines: Sequence[TagLine]) -> AsyncIterator[set[tuple[str, str]]]:
        """Set the tags within, at most LINES of them; those (repository, tag) that are put into the set were not."""
        if not lines:
            yield set()
            return
        async with self._beginning:
            self._pass = self._pass or next_pass(await list_record(self._storage))
            number, self._number = self._number, self._number + 1
        not_set: set[tuple[str, str]] = set()
        await write_tags(self._storage, self._pass, number, lines, done=False)
        yield not_set
        left = [line for line in lines if (line.repository, line.tag) not in not_set]
        await write_tags(self._storage, self._pass, number, left, done=True)

    async def end(self, inventory: Inventory) -> None:
        """Merge what became many files; best effort."""
        if self._number <= MANY:
            return
        try:
            await merge_record(self._storage, inventory, await load_record(self._storage, inventory))
        except StorageError:
            pass  # a later pass of migrate does it


async def own_times(
    storage: Storage, inventory: Inventory, tags: Mapping[tuple[str, str], tuple[Digest, int]]
) -> dict[tuple[str, str], int]:
    """When each tag (repository, tag) was last set, that had this digest and a link of this mtime: what the record says
    of it, else the link's own time. In microseconds."""
    await load_record(storage, inventory)
    rows = inventory.all("select repository, tag, digest, time, set_by from migrate_record")
    recorded = {(row[0], row[1]): row[2:] for row in rows}
    times: dict[tuple[str, str], int] = {}
    for place, (digest, mtime) in tags.items():
        raw, time, set_by = recorded.get(place, (b"", 0, 0))
        times[place] = time if bytes(raw) == digest.raw and mtime <= set_by else mtime
    return times


def empty_record(inventory: Inventory, table: str = "migrate_record") -> None:
    """The table (source, place, origin, repository, tag, digest, time, was, written, set_by), with nothing in it.

    place: null where the line does not say. written: the mtime, in microseconds, of the file: what is set later to
    what it `was` is not of before the pass. set_by: a link that is younger than this was not written by the pass, so
    `time` says nothing of it."""
    inventory.execute(
        f"create or replace table {table} (source varchar, place varchar, origin varchar, repository varchar,"
        " tag varchar, digest blob, time bigint, was blob, written bigint, set_by bigint)"
    )


async def load_record(
    storage: Storage,
    inventory: Inventory,
    files: Mapping[str, int] | None = None,
    *,
    table: str = "migrate_record",
) -> Mapping[str, int]:
    """Fill the table with the latest line of each tag. files: what `list_record` gave; returns those that were read.

    StorageError when a file can't be read or understood: without it, what others wrote could pass for ours.
    """
    for tries in range(_TRIES):
        files = await list_record(storage) if files is None or tries else files
        empty_record(inventory, table)
        try:
            keys = sorted(files)
            for start in range(0, len(keys), _AT_ONCE):
                await _load(storage, inventory, keys[start : start + _AT_ONCE], files, table)
            return files
        except NotFound:
            continue  # merged meanwhile
    raise StorageError(f"the record of migrate in {storage.url} changes while it is read; try again")


async def _load(
    storage: Storage, inventory: Inventory, keys: Sequence[str], files: Mapping[str, int], table: str
) -> None:
    found: dict[str, list[dict[str, Any]]] = {}

    async def read(key: str) -> None:
        found[key] = await read_lines(storage, key)

    await for_each(keys, read, concurrency=_AT_ONCE)
    for key in keys:
        rows = found[key]
        written = [row.get("written", files[key]) for row in rows]
        inventory.execute(f"create or replace temp table line as from {table} limit 0")
        inventory.insert(
            "line",
            {
                **{name: ("utf8", [row[name] for row in rows]) for name in TEXTS},
                "place": ("utf8", [row.get("place") for row in rows]),
                "digest": ("binary", [row["digest"].raw for row in rows]),
                "time": ("int64", [row["time"] for row in rows]),
                "was": ("binary", [row["was"].raw if row.get("was") else None for row in rows]),
                "written": ("int64", written),
                "set_by": (
                    "int64",
                    [at + SETTING if "was" in row else at for row, at in zip(rows, written, strict=True)],
                ),
            },
        )
        inventory.execute(f"delete from {table} r using line l where l.repository = r.repository and l.tag = r.tag")
        inventory.execute(f"insert into {table} from line")


async def merge_record(storage: Storage, inventory: Inventory, files: Mapping[str, int]) -> None:
    """Where `files`, which `load_record` read, are many, write what they say into few, and remove them.

    Nothing is removed before the merged files are listed, so a reader always finds every line; a running pass writes
    only into files that are left alone. An error leaves both, which say the same.
    """
    lines = inventory.count("migrate_record")
    if len(files) <= MANY or 2 * -(-lines // LINES) > len(files):
        return
    running = inventory.one("select max(written) from migrate_record where set_by > written")
    if running is not None and running > await storage.now() - _ABANDONED:
        return
    stem = max(files).removesuffix(".ndjson").partition(".merged")[0]
    merged: list[str] = []
    for number, chunk in enumerate(_lines(inventory)):
        merged.append(f"{stem}.merged{number:06}.ndjson")
        await write_lines(storage, merged[-1], chunk)
    listed = await list_record(storage)
    if all(key in listed for key in merged):
        await storage.delete_many([key for key in files if key not in merged])


def _lines(inventory: Inventory) -> Iterator[list[dict[str, Any]]]:
    """The table's lines, some at a time."""
    cursor = inventory.connection.cursor()
    try:
        cursor.execute(
            "select source, place, origin, repository, tag, digest, time, was, written, set_by from migrate_record"
            " order by repository, tag"
        )
        while rows := cursor.fetchmany(LINES):
            yield [_text(row) for row in rows]
    finally:
        cursor.close()


def _text(row: Sequence[Any]) -> dict[str, Any]:
    source, place, origin, repository, tag, digest, time, was, written, set_by = row
    line = TagLine(
        source=source,
        place=place or "",
        origin=origin,
        repository=repository,
        tag=tag,
        digest=Digest.from_raw(bytes(digest)),
        time=time,
        was=Digest.from_raw(bytes(was)) if was is not None else None,
    )
    return line.text(done=set_by == written) | {"written": written}
