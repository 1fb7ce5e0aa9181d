"""What migrate, a restore or an undo wrote into a store: the record that lies in the store itself, under
`regstore/migrate/`.

    regstore/migrate/tags/<pass>-<number>.ndjson

A line is a JSON object for one tag:

    source      where it came from, as `s3://bucket/root` or a path; of a restore the backup's, of an undo the run
    place       the same, so that no other store has it, of whatever computer (`storage.identity.place_of`). Lines of
                older versions lack it, or say less, and those of a restore or an undo lack it: they never are the
                record of a source that is asked about
    origin      the repository's name there
    repository  its name here
    tag         its name
    digest      what was written, such as "sha256:…"
    time        when the tag was last set at the source: microseconds since 1970, UTC. It is the tag's own time as
                long as the tag has this digest and nobody wrote its link since the pass that wrote this line
    was         (only while the pass runs) what the tag named here before, or null
    written     (only where files were merged) the mtime of the file that the line was in, in microseconds

`<pass>` is a number of ten digits, one more than any before, and a random word: later passes sort later, and of two
lines for one tag the later one holds. A file is written before the links that it names, and
again without `was` once they are there. So a pass that was killed leaves `was`, and the tag has one of the two.

Many files are merged into `<pass>-<number>.merged<number>.ndjson`, which sort as the latest of them did; then they are
removed. Whoever finds a file of the listing gone lists again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import InvalidDigest, NotFound, StorageError
from regstore.layout import STATE

if TYPE_CHECKING:
    from regstore.inventory.inventory import Inventory
    from regstore.storage.base import Storage

TAGS: Final = f"{STATE}migrate/tags/"
#: Lines of one file.
LINES: Final = 10_000
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TagLine:
    """time in microseconds; was: None when the tag was not there, or is written."""

    source: str
    origin: str
    repository: str
    tag: str
    digest: Digest
    time: int
    was: Digest | None = None
    place: str = ""

    def text(self, *, done: bool) -> dict[str, Any]:
        line: dict[str, Any] = {
            "source": self.source,
            **({"place": self.place} if self.place else {}),
            "origin": self.origin,
            "repository": self.repository,
            "tag": self.tag,
            "digest": str(self.digest),
            "time": self.time,
        }
        if not done:
            line["was"] = str(self.was) if self.was else None
        return line


def next_pass(keys: Iterable[str]) -> str:
    """A name that sorts after those of the passes that wrote these files."""
    numbers = [key[len(TAGS) :].partition("-")[0] for key in keys]
    last = max((int(number) for number in numbers if number.isdecimal()), default=0)
    return f"{last + 1:010}-{secrets.token_hex(4)}"


async def write_tags(storage: Storage, name: str, number: int, lines: Sequence[TagLine], *, done: bool) -> None:
    await _write(storage, f"{TAGS}{name}-{number:06}.ndjson", [line.text(done=done) for line in lines])


async def _write(storage: Storage, key: str, lines: Sequence[dict[str, Any]]) -> None:
    import orjson

    await storage.put(key, b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines))


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


async def list_record(storage: Storage) -> dict[str, int]:
    """The files of the record with their mtimes in microseconds, oldest first: one LIST a thousand."""
    found: dict[str, int] = {}
    async for page in storage.list(TAGS):
        found |= {key: at for key, at in zip(page.keys, page.mtimes, strict=True) if key.endswith(".ndjson")}
    return found


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
        found[key] = await _read(storage, key)

    await for_each(keys, read, concurrency=_AT_ONCE)
    for key in keys:
        rows = found[key]
        written = [row.get("written", files[key]) for row in rows]
        inventory.execute(f"create or replace temp table line as from {table} limit 0")
        inventory.insert(
            "line",
            {
                **{name: ("utf8", [row[name] for row in rows]) for name in _TEXTS},
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


_TEXTS: Final = ("source", "origin", "repository", "tag")


async def _read(storage: Storage, key: str) -> list[dict[str, Any]]:
    import orjson

    body = await storage.get(key)
    try:
        rows = [orjson.loads(line) for line in body.splitlines()]
        for row in rows:
            row["digest"] = Digest.parse(row["digest"])
            if row.get("was"):
                row["was"] = Digest.parse(row["was"])
            numbers = (row["time"], row.get("written", 0))
            texts = [row[name] for name in _TEXTS] + [row.get("place") or ""]
            if not all(isinstance(each, str) for each in texts) or not all(
                isinstance(each, int) for each in numbers
            ):
                raise KeyError(key)
    except (orjson.JSONDecodeError, InvalidDigest, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"{storage.url}/{key} is not a record of migrate; look at it, and delete it if it is damaged"
        ) from error
    return rows


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
        await _write(storage, merged[-1], chunk)
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
