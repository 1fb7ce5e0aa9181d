"""A quick look at whether a store is in health: reachable, permitted, seeded, unlocked, tidy. Reads keys, not blobs.

Nothing is written, unless `write_probe` allows one small object, deleted again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final

from regstore import layout
from regstore.errors import AccessDenied, NoSuchBucket, RegstoreError, StorageError, Unsupported
from regstore.events import OnEvent, Progress, ignore
from regstore.inventory.unlinked import KeysOnly
from regstore.inventory.whose import database_in_use
from regstore.layout import (
    BlobKey,
    LayerLinkKey,
    RevisionLinkKey,
    TagCurrentKey,
    TagIndexKey,
    UnknownKey,
    UploadKey,
)
from regstore.seed.probe import probe_permissions
from regstore.seed.result import Check, Outcome, SeedOptions
from regstore.seed.seeding import seed
from regstore.state.journal import find_runs
from regstore.state.known_cache import judge_cache
from regstore.state.lock import find_locks
from regstore.state.not_freed import look_at_trash
from regstore.state.registry_state import CacheWord, read_state
from regstore.state.trashed import strangers_in_trash
from regstore.storage.base import Storage
from regstore.storage.optional import TellsDate
from regstore.verify.fault import FaultKind
from regstore.verify.run import verify

_SECOND: Final = 1_000_000
_DAY: Final = 24 * 3600 * _SECOND
#: S3 refuses requests whose time is 15 minutes off; SigV4 clients correct for it, registries do not.
_SKEW_BAD: Final = 5 * 60 * _SECOND
_SKEW_ODD: Final = 30 * _SECOND
#: Tags that are named.
_TAGS: Final = 5
_RESTORE: Final = (
    "restore them, copy them to a class that is read at once, and keep lifecycle rules from archiving a registry"
)
_UPLOAD_STALE: Final = 7 * _DAY
_LINKS: Final = (LayerLinkKey, RevisionLinkKey, TagCurrentKey, TagIndexKey)


class State(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    #: Not tried: it takes a write.
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing looked at. advice: what to do, "" where nothing is to be done."""

    name: str
    state: State
    detail: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """database: what says that the metadata is in a database, so that links are not the whole truth; "" for nothing."""

    lines: tuple[Line, ...]
    database: str = ""


async def examine(
    storage: Storage,
    *,
    write_probe: bool = False,
    cache: CacheWord | None = None,
    database: str = "",
    list_keys: bool = True,
    on_event: OnEvent = ignore,
) -> Examination:
    """Everything that was looked at. Raises nothing about the store itself: that is a line.

    cache: what the registry's configuration says of its descriptor cache, beside what the store remembers.
    database: what it says of a metadata database (`inventory.whose.database_told`). list_keys: look at every key of the
    store; without, a few requests are made.
    """
    try:
        await anext(storage.list(layout.PREFIX), None)
    except NoSuchBucket as error:
        return Examination(lines=(_fail("reachable", str(error), "create it, or see `regstore seed-bucket`"),))
    except RegstoreError as error:
        failed = _fail("reachable", str(error), "check the address, the credentials and the network")
        return Examination(lines=(failed,))
    lines = [_ok("reachable", f"{storage.url} answers")]
    try:
        database = database or await database_in_use(storage)
        lines.append(_metadata(database))
    except RegstoreError as error:
        lines.append(_fail("metadata", str(error), "see whether the credentials allow it"))
    for name, look in (
        ("permissions", _permissions),
        ("store", _capabilities),
        ("clock", _clock),
        ("locks", _locks),
        ("runs", _runs),
        ("trash", partial(_trash, told=cache)),
        ("keys", _keys),
        ("uploads", _uploads),
    ):
        on_event(Progress(phase=f"looking at {name}", done=0, unit="checks"))
        if look is _keys and not list_keys:
            continue
        try:
            lines += await look(storage, write_probe)
        except RegstoreError as error:
            lines.append(_fail(name, str(error), "see whether the credentials allow it"))
    return Examination(lines=tuple(lines), database=database)


def _ok(name: str, detail: str) -> Line:
    return Line(name=name, state=State.OK, detail=detail)


def _skip(name: str, detail: str, advice: str = "") -> Line:
    return Line(name=name, state=State.SKIP, detail=detail, advice=advice)


def _warn(name: str, detail: str, advice: str) -> Line:
    return Line(name=name, state=State.WARN, detail=detail, advice=advice)


def _fail(name: str, detail: str, advice: str) -> Line:
    return Line(name=name, state=State.FAIL, detail=detail, advice=advice)


def _metadata(database: str) -> Line:
    if not database:
        return _ok("metadata", "nothing says that tags and manifests are anywhere but in the store")
    return _warn(
        "metadata",
        f"tags and manifests are in a database: {database} says so",
        "leave garbage to GitLab's online collection, and back the database up with the store: what goes by links "
        "(gc, backup, restore, repairs) is refused here",
    )


async def _permissions(storage: Storage, write_probe: bool) -> list[Line]:
    """What a registry needs, as `seed-bucket --check` looks at it: permissions, seeds, the health check."""
    result = await seed(
        storage, SeedOptions(check=True, block_public_access=False, encryption=False, lifecycle=False)
    )
    checks = list(result.checks)
    if write_probe:
        probed = await probe_permissions(storage)
        checks = [check for check in checks if not check.name.startswith("permission ")] + probed
    healthy = all(check.good for check in checks if check.name.startswith("health"))
    lines = []
    for check in checks:
        if check.name in ("bucket", "folder"):
            continue
        if check.name.startswith("seed") and check.outcome is Outcome.MISSING and healthy:
            lines.append(_ok(check.name, f"{check.detail}; not needed as long as other keys are"))
        else:
            lines.append(_line(check))
    return lines


def _line(check: Check) -> Line:
    detail = check.detail or "as it should be"
    if check.outcome is Outcome.SKIPPED:
        return _skip(check.name, f"not tried: {check.detail}", "--write-probe tries it, with a small object")
    if check.good:
        return _ok(check.name, detail)
    if check.name.startswith("permission"):
        return _fail(check.name, detail, "give the credentials what the registry needs")
    if check.name.startswith(("seed", "health")):
        advice = "`regstore seed-bucket`: without seeds, an empty store fails some registries' health check"
        return (_fail if check.name.startswith("health") else _warn)(check.name, detail, advice)
    return _warn(check.name, detail, "see `regstore seed-bucket --check`")


async def _capabilities(storage: Storage, write_probe: bool) -> list[Line]:
    if not write_probe:
        return [_skip("conditional writes", "not tried: that takes a write", "--write-probe tries it")]
    can = await storage.capabilities()
    lines = [
        _ok("conditional writes", "honoured")
        if can.conditional_put
        else _warn("conditional writes", "not honoured, or not permitted", "nothing: regstore does without")
    ]
    if can.versioned:
        lines.append(
            _warn(
                "versions",
                "the bucket keeps old versions",
                "space comes back only when a lifecycle rule expires them",
            )
        )
    return lines


async def _clock(storage: Storage, write_probe: bool) -> list[Line]:
    if not isinstance(storage, TellsDate):
        return []
    before = time.time_ns() // 1000
    date = await storage.date()
    after = time.time_ns() // 1000
    if date is None:
        return [_warn("clock", "the answers bear no Date", "regstore goes by the times of what it puts")]
    # The answer has whole seconds.
    skew = max(0, before - (date + _SECOND), date - after)
    lines = []
    if skew >= _SKEW_ODD:
        make = _fail if skew >= _SKEW_BAD else _warn
        lines.append(
            make("clock", f"the store's is {skew // _SECOND:,} s off this computer's", "set the clock (NTP)")
        )
    if write_probe:
        own = abs(await storage.now() - date)
        if own >= _SKEW_ODD:
            detail = (
                f"the Date of its answers is {own // _SECOND:,} s off the times that the store gives to objects"
            )
            lines.append(_warn("clock", detail, "a proxy's clock? regstore goes by the objects' times"))
    return lines or [_ok("clock", "the store's and this computer's agree")]


async def _locks(storage: Storage, write_probe: bool) -> list[Line]:
    found = await find_locks(storage)
    if not found:
        return [_ok("locks", "none")]
    now = max(lock.written for lock in found) if not write_probe else await storage.now()
    lines = []
    for lock in found:
        holder = lock.holder
        who = f"`{holder.command}` of {holder.user} on {holder.host} (pid {holder.pid})"
        if holder.is_dead or lock.expires < now:
            lines.append(_warn("locks", f"{who} left its lock", "nothing: the next run clears it"))
        else:
            lines.append(_warn("locks", f"{who} holds the lock", "wait; if it is certainly dead, --break-lock"))
    return lines


async def _runs(storage: Storage, write_probe: bool) -> list[Line]:
    locked = {lock.holder.run for lock in await find_locks(storage)}
    records = [record for record in await find_runs(storage) if record.run not in locked]
    cut = [record.run for record in records if record.parts and record.done is None]
    return [
        _warn("runs", f"{len(cut)} cut short, such as {cut[-1]}", "run gc again: it finishes what was begun")
        if cut
        else _ok("runs", f"{len(records)} in the journal, none cut short")
    ]


async def _trash(storage: Storage, write_probe: bool, *, told: CacheWord | None) -> list[Line]:
    known = judge_cache(told, await read_state(storage))
    lines = [_warn("cache", known.doubt, known.settle) if known.doubt else _ok("cache", str(known))]
    left = await look_at_trash(storage, known)
    for part in left.parts:
        detail = (
            f"not freed yet: {part.blobs:,} blobs of {len(part.runs)} runs, {part.blob_bytes:,} bytes, because "
        )
        lines.append(_warn("trash", detail + part.because, f"to free it: {part.to_free}"))
    strangers, size, example = await strangers_in_trash(storage)
    if strangers:
        detail = f"{strangers:,} objects that no run left, {size:,} bytes, such as {example}"
        lines.append(_warn("foreign trash", detail, "no command empties that: look at it, and delete it by hand"))
    return lines if left.parts or strangers else [*lines, _ok("trash", "empty")]


async def _keys(storage: Storage, write_probe: bool) -> list[Line]:
    total = unknown = 0
    example = ""
    archived: dict[str, str] = {}
    uploads: dict[tuple[str, str], tuple[int, int]] = {}
    times = KeysOnly()
    async for page in storage.list(layout.PREFIX):
        total += len(page)
        archived |= page.archived
        for key, size, mtime in zip(page.keys, page.sizes, page.mtimes, strict=True):
            decoded = layout.decode(key)
            if isinstance(decoded, UnknownKey):
                unknown += 1
                example = example or key
            elif isinstance(decoded, UploadKey):
                upload = (decoded.name, decoded.uuid)
                newest, held = uploads.get(upload, (0, 0))
                uploads[upload] = (max(newest, mtime), held + size)
            elif isinstance(decoded, BlobKey):
                times.blob(size, mtime)
            elif isinstance(decoded, _LINKS):
                times.link(mtime)
    lines = [_ok("keys", f"{total:,}")] if total else [_warn("keys", "none: the store is empty", "push something")]
    if unknown:
        lines.append(
            _warn("unknown keys", f"{unknown:,}, such as {example}", "look at them: regstore never touches them")
        )
    if archived:
        lines.append(await _archived(storage, archived))
    lines.append(_open_uploads(uploads, await storage.now() if uploads else 0))
    unlinked = times.result()
    if unlinked.steady:
        lines.append(
            _warn(
                "unlinked blobs",
                str(unlinked),
                "see that no registry here keeps tags and manifests in a database (GitLab's can): then they are live "
                "images; else repositories were removed, and gc takes what they left",
            )
        )
    links = sorted(storage.symlinks)
    if links:
        lines.append(
            _fail(
                "symbolic links",
                f"{len(links):,}, such as {links[0]}",
                "replace them by bind mounts: what lies behind them is not seen",
            )
        )
    return lines


def _open_uploads(uploads: Mapping[tuple[str, str], tuple[int, int]], now: int) -> Line:
    """uploads: of each, by repository and ID, when it was last written to, and its bytes."""
    stale = {upload: size for upload, (newest, size) in uploads.items() if newest < now - _UPLOAD_STALE}
    if not stale:
        return _ok("uploads", f"{len(uploads):,} under way, none older than 7 days")
    (name, uuid), size = min(stale), sum(stale.values())
    detail = f"{len(stale):,} of {len(uploads):,} older than 7 days, {size:,} bytes, such as {uuid} in {name}"
    return _warn("uploads", detail, "`regstore gc` removes them (--uploads-older-than)")


async def _archived(storage: Storage, archived: Mapping[str, str]) -> Line:
    """Which tags that makes unpullable takes all manifests, so it is asked only here."""
    classes = ", ".join(f"{name} {number:,}" for name, number in sorted(Counter(archived.values()).items()))
    detail = f"{len(archived):,} ({classes}), such as {min(archived)}"
    try:
        findings = (await verify(storage)).findings
    except RegstoreError as error:
        return _fail("archived", f"{detail}; which tags that touches could not be found out: {error}", _RESTORE)
    faults = [fault for fault in findings.faults if fault.kind is FaultKind.ARCHIVED]
    tags = sorted({str(tag) for fault in faults for tag in fault.touched if tag.pull})
    if not faults:
        return _warn("archived", f"{detail}; all that is needed can be read for now", _RESTORE)
    if not tags:
        return _warn("archived", f"{detail}; they keep no tag from being pulled", _RESTORE)
    more = f" and {len(tags) - _TAGS:,} more" if len(tags) > _TAGS else ""
    return _fail("archived", f"{detail}; can't be pulled: {', '.join(tags[:_TAGS])}{more}", _RESTORE)


async def _uploads(storage: Storage, write_probe: bool) -> list[Line]:
    number = stale = size = 0
    now = time.time_ns() // 1000
    try:
        async for upload in storage.list_multipart_uploads(layout.PREFIX):
            number += 1
            if upload.newest < now - _UPLOAD_STALE:
                stale += 1
                size += upload.size
    except (AccessDenied, Unsupported) as error:
        return [
            _warn("multipart uploads", str(error), "allow s3:ListBucketMultipartUploads, or abandoned ones stay")
        ]
    except StorageError as error:
        return [_warn("multipart uploads", str(error), "see whether the server lists them")]
    if stale:
        detail = f"{stale:,} of {number:,} unfinished for more than 7 days, {size:,} bytes"
        return [_warn("multipart uploads", detail, "`regstore gc` removes them; a lifecycle rule would too")]
    return [_ok("multipart uploads", f"{number:,} unfinished, none older than 7 days")]
