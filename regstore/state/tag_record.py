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

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from regstore.digest import Digest
from regstore.errors import InvalidDigest, StorageError
from regstore.layout import TAG_RECORDS
from regstore.storage.base import Storage

#: Lines of one file.
LINES: Final = 10_000
#: What every line says in words.
TEXTS: Final = ("source", "origin", "repository", "tag")


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
    numbers = [key[len(TAG_RECORDS) :].partition("-")[0] for key in keys]
    last = max((int(number) for number in numbers if number.isdecimal()), default=0)
    return f"{last + 1:010}-{secrets.token_hex(4)}"


async def write_tags(storage: Storage, name: str, number: int, lines: Sequence[TagLine], *, done: bool) -> None:
    await write_lines(storage, f"{TAG_RECORDS}{name}-{number:06}.ndjson", [line.text(done=done) for line in lines])


async def write_lines(storage: Storage, key: str, lines: Sequence[dict[str, Any]]) -> None:
    """One file. lines: as in the record."""
    await storage.put(key, b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines))


async def list_record(storage: Storage) -> dict[str, int]:
    """The files of the record with their mtimes in microseconds, oldest first: one LIST a thousand."""
    found: dict[str, int] = {}
    async for page in storage.list(TAG_RECORDS):
        found |= {key: at for key, at in zip(page.keys, page.mtimes, strict=True) if key.endswith(".ndjson")}
    return found


async def read_lines(storage: Storage, key: str) -> list[dict[str, Any]]:
    """One file, its digests parsed. NotFound where it is gone; StorageError where it can't be read or understood."""
    body = await storage.get(key)
    try:
        rows = [orjson.loads(line) for line in body.splitlines()]
        for row in rows:
            row["digest"] = Digest.parse(row["digest"])
            if row.get("was"):
                row["was"] = Digest.parse(row["was"])
            numbers = (row["time"], row.get("written", 0))
            texts = [row[name] for name in TEXTS] + [row.get("place") or ""]
            if not all(isinstance(each, str) for each in texts) or not all(
                isinstance(each, int) for each in numbers
            ):
                raise KeyError(key)
    except (orjson.JSONDecodeError, InvalidDigest, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"{storage.url}/{key} is not a record of migrate; look at it, and delete it if it is damaged"
        ) from error
    return rows
