"""What migrate wrote into a store: the record that lies in the store itself, under `regstore/migrate/`.

    regstore/migrate/tags/<pass>-<number>.ndjson

A line is a JSON object for one tag:

    source      where it came from, as `s3://bucket/root` or a path
    origin      the repository's name there
    repository  its name here
    tag         its name
    digest      what was written, such as "sha256:…"
    time        when the tag was last set at the source: microseconds since 1970, UTC. It is the tag's own time as
                long as the tag has this digest and nobody wrote its link since the pass that wrote this line
    was         (only while the pass runs) what the tag named here before, or null

`<pass>` is a number of ten digits, one more than any before, and a random word: later passes sort later, and of two
lines for one tag the later one holds. A file is written before the links that it names, and
again without `was` once they are there. So a pass that was killed leaves `was`, and the tag has one of the two.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from regstore.digest import Digest
from regstore.errors import InvalidDigest, StorageError
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

    def text(self, *, done: bool) -> dict[str, Any]:
        line: dict[str, Any] = {
            "source": self.source,
            "origin": self.origin,
            "repository": self.repository,
            "tag": self.tag,
            "digest": str(self.digest),
            "time": self.time,
        }
        if not done:
            line["was"] = str(self.was) if self.was else None
        return line


def next_pass(keys: Sequence[str]) -> str:
    """A name that sorts after those of the passes that wrote these files."""
    numbers = [key[len(TAGS) :].partition("-")[0] for key in keys]
    last = max((int(number) for number in numbers if number.isdecimal()), default=0)
    return f"{last + 1:010}-{secrets.token_hex(4)}"


async def write_tags(storage: Storage, name: str, number: int, lines: Sequence[TagLine], *, done: bool) -> None:
    await _write(storage, f"{TAGS}{name}-{number:06}.ndjson", [line.text(done=done) for line in lines])


async def _write(storage: Storage, key: str, lines: Sequence[dict[str, Any]]) -> None:
    import orjson

    await storage.put(key, b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines))


async def list_record(storage: Storage) -> list[str]:
    """The files of the record, oldest first: one LIST a thousand."""
    return [key async for page in storage.list(TAGS) for key in page.keys if key.endswith(".ndjson")]


def empty_record(inventory: Inventory) -> None:
    """`migrate_record(source, origin, repository, tag, digest, time, was, written, set_by)`, with nothing in it.

    written: the mtime, in microseconds, of the file: what is set later to what it `was` is not of before the pass.
    set_by: a link that is younger than this was not written by the pass, so `time` says nothing of it."""
    inventory.execute(
        "create or replace table migrate_record (source varchar, origin varchar, repository varchar, tag varchar,"
        " digest blob, time bigint, was blob, written bigint, set_by bigint)"
    )


async def load_record(storage: Storage, inventory: Inventory, keys: Sequence[str] | None = None) -> None:
    """Fill `migrate_record` with the latest line of each tag. keys: what `list_record` gave.

    StorageError when a file can't be read or understood: without it, what others wrote could pass for ours.
    """
    empty_record(inventory)
    for key in await list_record(storage) if keys is None else keys:
        rows = await _read(storage, key, ("source", "origin", "repository", "tag", "digest", "time"))
        written = (await storage.stat(key)).mtime
        texts = ("source", "origin", "repository", "tag")
        inventory.execute("create or replace temp table line as from migrate_record limit 0")
        inventory.insert(
            "line",
            {
                **{name: ("utf8", [row[name] for row in rows]) for name in texts},
                "digest": ("binary", [row["digest"].raw for row in rows]),
                "time": ("int64", [row["time"] for row in rows]),
                "was": ("binary", [row["was"].raw if row.get("was") else None for row in rows]),
                "written": ("int64", [written] * len(rows)),
                "set_by": ("int64", [written + SETTING if "was" in row else written for row in rows]),
            },
        )
        inventory.execute(
            "delete from migrate_record r using line l where l.repository = r.repository and l.tag = r.tag"
        )
        inventory.execute("insert into migrate_record from line")


async def _read(storage: Storage, key: str, needed: Sequence[str]) -> list[dict[str, Any]]:
    import orjson

    body = await storage.get(key)
    try:
        rows = [orjson.loads(line) for line in body.splitlines()]
        for row in rows:
            row["digest"] = Digest.parse(row["digest"])
            if row.get("was"):
                row["was"] = Digest.parse(row["was"])
            if any(name not in row for name in needed) or not isinstance(row.get("time", 0), int):
                raise KeyError(key)
    except (orjson.JSONDecodeError, InvalidDigest, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"{storage.url}/{key} is not a record of migrate; look at it, and delete it if it is damaged"
        ) from error
    return rows
