"""The journal of a run: every change, written before it is made.

`runs/<run>/<number>.jsonl.gz` holds one JSON object a line, {"op", "key", "size", "mtime", "body"?, "loose"?}:

- op "unlink": the key was to be deleted; body is what the link held, where it is known (text); loose (true) says
  that a tag named a manifest which the repository did not link even then;
- op "trash": the key was to be moved to `trash/<run>/<key>`;
- op "rewrite": the link was damaged, and was to be replaced by what its path says, or a restore of a backup was to
  replace it, or `tag --force` (whose `run.json` says the new digest, for the way back); body is what it held, unknown
  where it was too long: then a copy is kept as for "damaged";
- op "damaged": the blob's bytes were not those of its digest. They were to be kept as `trash/<run>/damaged/<key>`,
  where nothing ever takes them for a good copy, and replaced by the right ones;
- op "abort": the multipart upload of the key, whose id body is, was to be aborted;
- op "create": the link was missing, and was to be put back as another copy of the registry has it; body is that.

A line is an intent: what it names may still stand, when the run was cut short before it, or when the key had
changed. Parts are numbered from 000001 and never rewritten.

Where many processes work for one run, each writes parts of its own,
`runs/<run>/<shard>-<step>-<attempt>-<number>.jsonl.gz`, the shard in six digits. An attempt is one process's try at a
shard's work; whoever tries again, after a death, is another. All parts of a run are its journal, in no order: a key
that two attempts name was the same for both.

`done.json` says how the run ended; repeated_deletes: how many deletes it sent again, not knowing whether the first try
would be done, those of processes that died among them. One of these may take effect when the run is long over, as may
what a run that was cut short had asked for: such a run is not `settled`, and for LATE it counts as acting still.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from regstore.concurrency import for_each
from regstore.errors import AlreadyExists, IntegrityError, NotFound
from regstore.state import RUNS, TRASH, is_run
from regstore.storage.base import Storage

UNLINK: Final = "unlink"
TRASHED: Final = "trash"
REWRITTEN: Final = "rewrite"
DAMAGED: Final = "damaged"
CREATED: Final = "create"
ABORTED: Final = "abort"
#: Why `seen` holds a link: a run saw it stand ("", in the file's name), gave it back, or an undo did.
GIVEN_BACK: Final = "given-back"
RESTORED: Final = "restored"
#: Records read at a time.
_READERS: Final = 16
#: How long a delete may take effect after whoever sent it is gone, in microseconds. S3 takes no signature older than a
#: quarter of an hour; a suspended process goes on with its batch when it wakes.
LATE: Final = 24 * 3600 * 1_000_000
#: How long, in microseconds, a push goes on at most with what it found before a run took it. A registry checks all that
#: a manifest names, then writes; it may stall between the two.
STALLED: Final = 3600 * 1_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One intended change. body None: not known, or not needed to undo it."""

    op: str
    key: str
    size: int
    mtime: int
    body: bytes | None = None
    loose: bool = False


class JournalWriter:
    """What is journaled of a run by one process. stem: of the names of its parts."""

    def __init__(self, storage: Storage, run: str, stem: str = "") -> None:
        self._storage = storage
        self._stem = stem
        self._numbers = 0
        #: Keys of its parts so far.
        self.parts: Final[list[str]] = []
        self.run: Final = run
        self.trash: Final = f"{TRASH}{run}/"

    async def write(self, entries: Iterable[Entry]) -> None:
        """Durable on return; only then make the changes."""
        lines = gzip.compress(b"".join(_line(entry) for entry in entries), 6, mtime=0)
        self._numbers += 1
        key = f"{RUNS}{self.run}/{self._stem}{self._numbers:06d}.jsonl.gz"
        await self._put_part(key, lines)
        self.parts.append(key)

    async def _put_part(self, key: str, data: bytes) -> None:
        await self._storage.put(key, data)


class AttemptJournal(JournalWriter):
    """What an attempt at a shard's work journals, in whatever process. step: a word of small letters."""

    def __init__(self, storage: Storage, run: str, *, shard: int, step: str, attempt: int) -> None:
        assert step.isalpha() and step.islower()
        super().__init__(storage, run, f"{shard:06d}-{step}-{attempt}-")
        self._all_attempts = f"{RUNS}{run}/{shard:06d}-{step}-"

    async def write(self, entries: Iterable[Entry]) -> None:
        """Never over a part that stands, where the store can tell: then under the next number."""
        entries = list(entries)
        while True:
            try:
                return await super().write(entries)
            except AlreadyExists:
                continue

    async def _put_part(self, key: str, data: bytes) -> None:
        conditional = (await self._storage.capabilities()).conditional_put
        await self._storage.put(key, data, if_absent=conditional)

    async def was_begun(self) -> bool:
        """Whether another attempt at this work has journaled anything."""
        async for page in self._storage.list(self._all_attempts):
            if any(key not in self.parts for key in page.keys):
                return True
        return False

    async def written_before(self) -> list[Entry]:
        """What other attempts at this work were about to change."""
        found: list[Entry] = []
        async for page in self._storage.list(self._all_attempts):
            async for entries in read_parts(self._storage, [key for key in page.keys if key not in self.parts]):
                found += entries
        return found


class Journal(JournalWriter):
    """The journal that this run writes."""

    def __init__(self, storage: Storage, run: str) -> None:
        super().__init__(storage, run)
        self._repeated = storage.counters.repeated_deletes

    async def begin(self, what: dict[str, Any]) -> None:
        await self._put("run.json", what)

    async def end(self, what: dict[str, Any]) -> dict[str, Any]:
        """What `done.json` says now."""
        repeated = self._storage.counters.repeated_deletes - self._repeated
        done = {**what, "repeated_deletes": repeated}
        await self._put("done.json", done)
        return done

    async def _put(self, name: str, what: dict[str, Any]) -> None:
        await self._storage.put(f"{RUNS}{self.run}/{name}", json.dumps(what, indent=1, sort_keys=True).encode())


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run of the past: what `run.json` says, what `done.json` says (None: cut short), and its journal's keys.

    began, written: the oldest and the newest of these by the store's clock, in microseconds; `seen` does not count.
    seen: keys of what `write_seen` wrote. What was seen while the run's deletes could still take effect proves nothing,
    and is left out. restored: when an undo of it last wrote links; 0 where none did.
    """

    run: str
    begun: dict[str, Any]
    done: dict[str, Any] | None
    parts: tuple[str, ...]
    seen: tuple[str, ...]
    written: int
    restored: int = 0
    began: int = 0

    @property
    def settled(self) -> bool:
        """It came to its end, and was told the outcome of all that it asked for: nothing of it is under way."""
        return _is_settled(self.done)

    def is_acting(self, now: int) -> bool:
        """What it asked for may still take effect."""
        return not self.settled and self.written > now - LATE


async def find_runs(storage: Storage) -> list[RunRecord]:
    """Every run whose journal is still kept, oldest first."""
    keys: dict[str, dict[str, int]] = {}
    async for page in storage.list(RUNS):
        for key, mtime in zip(page.keys, page.mtimes, strict=True):
            run, _, name = key[len(RUNS) :].partition("/")
            if is_run(run) and name:
                keys.setdefault(run, {})[key] = mtime
    records: dict[str, RunRecord] = {}

    async def read(run: str) -> None:
        records[run] = await _record(storage, run, keys[run])

    await for_each(keys, read, concurrency=_READERS if storage.serves_in_parallel else 1)
    return [records[run] for run in sorted(records)]


async def read_parts(storage: Storage, parts: Sequence[str]) -> AsyncIterator[list[Entry]]:
    """The entries of journal parts, part by part. IntegrityError on one that can't be read."""
    for key in parts:
        try:
            body = await storage.get(key)
        except NotFound:
            continue  # emptied meanwhile
        try:
            entries = [_parse(line) for line in gzip.decompress(body).splitlines()]
        except _DAMAGES as error:
            raise _damaged(storage, key, error) from error
        yield entries


def attempt_of(part: str) -> str:
    """Tells the attempts of a run apart by a part's key; "" for the run's own process."""
    return part.rpartition("/")[2].rpartition("-")[0]


async def write_seen(storage: Storage, run: str, by: str, keys: Sequence[str], why: str = "") -> None:
    """Say that links which a run removed were seen again, `by` a run: the first one gives them back no more."""
    lines = b"".join(json.dumps({"key": key}).encode() + b"\n" for key in keys)
    name = f"seen-{by}-{why}" if why else f"seen-{by}"
    await storage.put(f"{RUNS}{run}/{name}.jsonl.gz", gzip.compress(lines, 6, mtime=0))


async def read_seen(storage: Storage, record: RunRecord) -> set[str]:
    """The keys of `write_seen`. IntegrityError where they can't be read."""
    keys = set()
    for key in record.seen:
        try:
            body = await storage.get(key)
        except NotFound:
            continue  # emptied meanwhile
        try:
            keys |= {json.loads(line)["key"] for line in gzip.decompress(body).splitlines()}
        except _DAMAGES as error:
            raise _damaged(storage, key, error) from error
    return keys


#: What reading damaged bytes raises.
_DAMAGES: Final = (ValueError, KeyError, TypeError, AttributeError, RecursionError, EOFError, OSError, zlib.error)


def _damaged(storage: Storage, key: str, error: Exception) -> IntegrityError:
    return IntegrityError(
        f"the journal {key} in {storage.url} is damaged: {error}; put back what was there, or move it away: what "
        "it says was removed then neither heals nor is restored by itself"
    )


async def _record(storage: Storage, run: str, keys: dict[str, int]) -> RunRecord:
    names = {key.rpartition("/")[2]: key for key in keys}
    begun = await _json(storage, names["run.json"]) if "run.json" in names else {}
    done = await _json(storage, names["done.json"]) if "done.json" in names else None
    parts = sorted(key for name, key in names.items() if name[:6].isdigit())
    times = [mtime for key, mtime in keys.items() if not _is_seen(key)]
    written = max(times, default=0)
    seen = sorted(
        key for key, mtime in keys.items() if _is_seen(key) and (_is_settled(done) or mtime > written + LATE)
    )
    return RunRecord(
        run=run,
        begun=begun or {},
        done=done,
        parts=tuple(parts),
        seen=tuple(seen),
        written=written,
        restored=max((mtime for key, mtime in keys.items() if key.endswith(f"-{RESTORED}.jsonl.gz")), default=0),
        began=min(times, default=0),
    )


def _is_seen(key: str) -> bool:
    return key.rpartition("/")[2].startswith("seen-")


def _is_settled(done: dict[str, Any] | None) -> bool:
    return done is not None and not done.get("failures") and not done.get("repeated_deletes")


async def _json(storage: Storage, key: str) -> dict[str, Any] | None:
    try:
        value = json.loads(await storage.get(key))
    except (NotFound, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _line(entry: Entry) -> bytes:
    line: dict[str, Any] = {"op": entry.op, "key": entry.key, "size": entry.size, "mtime": entry.mtime}
    if entry.body is not None:
        line["body"] = entry.body.decode("latin-1")
    if entry.loose:
        line["loose"] = True
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def _parse(line: bytes) -> Entry:
    known = json.loads(line)
    body = known.get("body")
    if not all(type(known[name]) is str for name in ("op", "key")) or not all(
        type(known[name]) is int and abs(known[name]) < 1 << 62 for name in ("size", "mtime")
    ):
        raise ValueError("a line of it has no key, size or time")
    return Entry(
        known["op"],
        known["key"],
        known["size"],
        known["mtime"],
        None if body is None else body.encode("latin-1"),
        bool(known.get("loose")),
    )
