"""A backup, opened for reading: its snapshots, packs and blobs, each checked against its name."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from regstore import layout
from regstore.backup import format as form
from regstore.backup.dating import doubtful
from regstore.backup.format import Pack, Snapshot
from regstore.backup.soundness import contradiction
from regstore.concurrency import for_each
from regstore.errors import InputError, IntegrityError, NotARegistry, NotFound, Refused, StorageError
from regstore.storage.base import TEMPORARY, PutOptions, Storage
from regstore.storage.outage import OutageWatch, Sample
from regstore.storage.streams import is_fatal

#: Bytes of a pack's text that are hashed at once.
_CHUNK: Final = 1 << 20


class NotABackup(NotARegistry):
    """Nothing of a backup is there. Comes out as its base, NotARegistry."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What is below `snapshots/`: the readable, oldest first; and of each other key, what is wrong with it. doubtful:
    of each run whose date can't be right, why (`dating`)."""

    snapshots: tuple[Snapshot, ...]
    keys: dict[str, str]
    damaged: dict[str, str]
    doubtful: dict[str, str] = field(default_factory=dict)


async def check_marker(storage: Storage) -> bool:
    """Whether the place says that it is a backup. InputError where it is one of a later version."""
    try:
        body = await storage.get(form.MARKER)
    except NotFound:
        return False
    try:
        known = json.loads(body)
        version = known["version"] if known["format"] == form.FORMAT else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    if version != form.VERSION:
        raise InputError(f"{storage.url} is a backup of version {version}; this regstore reads {form.VERSION}")
    return True


async def prepare(storage: Storage, put: PutOptions | None, *, first: Callable[[], Awaitable[None]]) -> bool:
    """Make an empty place a backup, after `first`; whether it was one. Refused where there is something else in it."""
    if layout.PREFIX in f"{storage.url}/":
        raise InputError(f"{storage.url} lies within a registry's storage: a backup must not look like a registry")
    if await check_marker(storage):
        return False
    await first()
    async for page in storage.list(""):
        other = next((key for key in page.keys if not (key.startswith(layout.STATE) or is_nothing(key))), None)
        if other is not None:
            if await check_marker(storage):
                return False  # another create has made it meanwhile
            raise Refused(
                f"{storage.url} is no backup and is not empty (there is {other}): give an empty bucket, prefix or "
                f"folder, or put back {form.MARKER} where only that is lost"
            )
    await storage.put(form.MARKER, form.marker_body(await storage.now()), options=put)
    return True


async def list_snapshots(storage: Storage, *, concurrency: int = 16) -> Listed:
    """Read every snapshot. One that vanishes meanwhile was forgotten. NotABackup where there is nothing at all."""
    found: dict[str, int] = {}
    damaged: dict[str, str] = {}
    async for page in storage.list(form.SNAPSHOTS):
        for key, mtime in zip(page.keys, page.mtimes, strict=True):
            if form.parse_snapshot_key(key) is not None:
                found[key] = mtime
            elif not is_nothing(key):
                damaged[key] = "is no snapshot's name"
    if not found and not await check_marker(storage):
        raise NotABackup(f"{storage.url} holds no backup: there is no {form.MARKER} and no snapshot")
    snapshots: list[tuple[str, Snapshot]] = []
    watch = OutageWatch(storage, _others(list(found)))

    async def read(key: str) -> None:
        try:
            body = await storage.get(key)
        except NotFound:
            watch.good()
            return
        except StorageError as error:
            await watch.bad(key, error)
            damaged[key] = f"can't be read: {error}"
            return
        watch.good()
        try:
            snapshots.append((key, form.decode_snapshot(body, key)))
        except IntegrityError as error:
            damaged[key] = str(error)

    await for_each(found, read, concurrency=concurrency)
    await watch.end()
    snapshots.sort(key=lambda pair: pair[1].run)
    readable = tuple(snapshot for _, snapshot in snapshots)
    written = {snapshot.run: found[key] for key, snapshot in snapshots}
    return Listed(
        snapshots=readable,
        keys={snapshot.run: key for key, snapshot in snapshots},
        damaged=damaged,
        doubtful=doubtful(readable, written, await storage.now()) if readable else {},
    )


def _others(keys: Sequence[str]) -> Sample:
    def sample(most: int, failed: Sequence[str]) -> list[str]:
        return sorted(set(keys) - set(failed))[:most]

    return sample


def is_nothing(key: str) -> bool:
    """No part of a backup, and no harm: a folder that a console has made in a bucket, or a temporary file."""
    return not key or key.endswith("/") or is_temporary(key)


def is_temporary(key: str) -> bool:
    """A file that a killed process left beside the one that it was writing (on a disk)."""
    return key.rpartition("/")[2].startswith(TEMPORARY)


async def read_pack(storage: Storage, encoded: str) -> Pack:
    """IntegrityError where it is damaged, or missing, or the store has it and does not give it."""
    key = form.pack_key(encoded)
    try:
        data = await storage.get(key)
    except NotFound as error:
        raise IntegrityError(f"{key} in {storage.url} is missing") from error
    except StorageError as error:
        if is_fatal(error):
            raise
        raise IntegrityError(f"{key} in {storage.url} can't be read: {error}") from error
    pack = form.decode_pack(data, encoded, f"{key} in {storage.url}")
    wrong = contradiction(pack)
    if wrong:
        raise IntegrityError(f"{key} in {storage.url} was not written by a backup: {wrong}")
    return pack


async def is_sound_pack(storage: Storage, encoded: str) -> bool:
    """Whether it is there, and its content has the digest in its name. It is never held whole."""
    unpacking, content = zlib.decompressobj(wbits=form.GZIP), hashlib.sha256()
    try:
        async with storage.open_read(form.pack_key(encoded)) as handle:
            async for chunk in handle:
                if chunk and unpacking.eof:
                    return False  # what follows it makes it unreadable
                while chunk and not unpacking.eof:
                    content.update(unpacking.decompress(chunk, _CHUNK))
                    chunk = unpacking.unconsumed_tail
        content.update(unpacking.flush())
    except (NotFound, IntegrityError, zlib.error):
        return False
    return unpacking.eof and not unpacking.unused_data and content.hexdigest() == encoded


async def read_packs(
    storage: Storage,
    encoded: Iterable[str],
    take: Callable[[str, Pack], None],
    *,
    concurrency: int,
) -> dict[str, str]:
    """Give each pack to `take`; of those that can't be had, why. Outage where the store gives hardly any."""
    encoded = list(encoded)
    damaged: dict[str, str] = {}
    watch = OutageWatch(storage, _others([form.pack_key(one) for one in encoded]))

    async def read(one: str) -> None:
        try:
            pack = await read_pack(storage, one)
        except IntegrityError as error:
            damaged[one] = str(error)
            if isinstance(error.__cause__, StorageError) and not isinstance(error.__cause__, NotFound):
                await watch.bad(form.pack_key(one), error.__cause__)
                return
        else:
            take(one, pack)
        watch.good()

    await for_each(encoded, read, concurrency=concurrency)
    await watch.end()
    return damaged


_LATEST: Final = "latest"


def choose(listed: Listed, text: str, where: str) -> Snapshot:
    """The snapshot that an ID, the beginning of one, `latest`, or a time (ISO 8601, UTC where it names no zone) names.

    `latest` is the newest of the whole registry (without patterns), or where there is none of that, the newest of the
    only scope there is; a time, the same of those that were begun by then. One whose date can't be right is taken only
    where its scope has no other. InputError where that is none, or where it could be one of several.
    """
    same = _with_id(listed, text)
    if same:
        return same[0]
    snapshots = _until(listed.snapshots, text)
    if snapshots is None:
        for key, why in listed.damaged.items():
            if (form.parse_snapshot_key(key) or "").startswith(text):
                raise InputError(f"snapshot {text} of {where} can't be read: {why}")
        raise InputError(f"{where} has no snapshot {text!r}; see `regstore backup list`")
    if not listed.snapshots:
        raise InputError(f"{where} has no readable snapshot")
    if not snapshots:
        raise InputError(f"{where} has no snapshot from {text} or before; the oldest is {listed.snapshots[0].run}")
    snapshots = [one for one in snapshots if not (one.repository_patterns or one.tag_patterns)] or snapshots
    newest = {one.scope: one for one in snapshots if one.run in listed.doubtful}
    newest |= {one.scope: one for one in snapshots if one.run not in listed.doubtful}
    named = [one for one in newest.values() if not any(_goes_on(other, one) for other in newest.values())]
    if len(named) > 1:
        which = "; ".join(f"{one.run} is of {scope_text(one, apart=True)}" for one in named)
        raise InputError(f"{text} could be several snapshots of {where}: {which}; give an ID")
    return named[0]


def _goes_on(one: Snapshot, other: Snapshot) -> bool:
    """Whether this one is newer than the other, which an older version made of a source that is written the same: then
    it is taken, and `untold` says so."""
    same = one.source == other.source and one.scope[1:] == other.scope[1:]
    return bool(one.place) and not other.place and same and one.run > other.run


def untold(listed: Listed, text: str, chosen: Snapshot) -> list[str]:
    """What older versions did not write down, of the chosen snapshot or of those that it was taken instead of."""
    if _with_id(listed, text):
        return []
    unknown = [one for one in listed.snapshots if not one.place and one.source == chosen.source]
    if not unknown:
        return []
    many = (
        f"{len(unknown):,} snapshots, such as {unknown[-1].run}, do"
        if len(unknown) > 1
        else f"{unknown[0].run} does"
    )
    return [
        f"{many} not say which store {chosen.source} was, as an older regstore made it: another server's, or another "
        f"computer's, may have been written the same; {chosen.run} was taken, see `regstore backup list`"
    ]


def passed_over(listed: Listed, text: str, chosen: Snapshot) -> list[str]:
    """The snapshots that `text` may have meant instead of the chosen one, and what is wrong with them: damaged ones,
    and those whose date can't be right."""
    if _with_id(listed, text):
        return []
    moment = None if text == _LATEST else _parse_time(text)
    odd = [
        f"snapshot {one.run} {listed.doubtful[one.run]}: "
        + ("it was taken, for there is no other" if one.run == chosen.run else f"{chosen.run} was taken instead")
        for one in listed.snapshots
        if one.run in listed.doubtful and one.scope == chosen.scope and one.run >= chosen.run
    ]
    return odd + [
        f"{why}; it is newer than {chosen.run}, which was taken instead"
        for key, why in sorted(listed.damaged.items())
        if (run := form.parse_snapshot_key(key)) is not None
        and run > chosen.run
        and (moment is None or form.time_of(run) <= moment)
    ]


def scope_text(snapshot: Snapshot, *, apart: bool = False) -> str:
    """`s3://bucket`, `repositories library/* of s3://bucket`, `tags v1.* of …`, as a user reads it. apart: also what
    tells the source from others that are written the same."""
    source = place_text(snapshot) if apart else snapshot.source
    parts = (("repositories", snapshot.repository_patterns), ("tags", snapshot.tag_patterns))
    told = [f"{what} {', '.join(patterns)}" for what, patterns in parts if patterns]
    return " of ".join([" and ".join(told), source] if told else [source])


def place_text(snapshot: Snapshot) -> str:
    """The source, and what tells it from others that are written the same."""
    source, place = snapshot.source, snapshot.place
    if not place:
        return f"{source} (an older regstore did not say which)"
    return place if place.startswith(source) else f"{source} ({place})"


def _with_id(listed: Listed, text: str) -> list[Snapshot]:
    """The one that has this ID or beginning of one; InputError where several have."""
    same = [snapshot for snapshot in listed.snapshots if snapshot.run.startswith(text)] if text else []
    if len(same) > 1:
        raise InputError(f"{len(same)} snapshots begin with {text}: say more of the one that is meant")
    return same


def _until(snapshots: Sequence[Snapshot], text: str) -> list[Snapshot] | None:
    """Those that were begun by the time that the text says; None where it says none."""
    if text == _LATEST:
        return list(snapshots)
    moment = _parse_time(text)
    return None if moment is None else [snapshot for snapshot in snapshots if snapshot.begun <= moment]


def _parse_time(text: str) -> int | None:
    from datetime import UTC

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1_000_000)
