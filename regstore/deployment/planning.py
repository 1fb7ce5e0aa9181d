"""What has to change in DIR so that it is as wanted: each file that is wanted, against what stands there. Pure.

What people changed by hand is theirs: a generated file that stands otherwise than regstore ever wrote it is left alone
while nothing new is wanted of it, and is a `conflict` when something is. A secret that is there stays.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from regstore.deployment.record import Record, digest_of
from regstore.deployment.wanted import PRIVATE, Deployment, Kind, WantedFile

#: In this order: a key lies there before the certificate that needs it.
_ORDER: Final = (Kind.SECRET, Kind.CERTIFICATE, Kind.USERS, Kind.GENERATED)


_OTHERS_READ: Final = 0o044


class Action(StrEnum):
    NEW = "new"
    SAME = "same"
    CHANGED = "changed"
    MODE = "mode"  # the content is right, and who may read it is not
    KEPT = "kept"  # a secret that is there, or a file changed by hand of which nothing new is wanted
    CONFLICT = "conflict"  # changed by hand, or not regstore's at all, and wanted otherwise
    REMOVED = "removed"  # regstore's, unchanged, and no longer wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A file as it is. mode: permission bits."""

    content: bytes = field(repr=False)
    mode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """before, after: None where there is none. hidden: nobody else may read what stands there."""

    path: str
    action: Action
    kind: Kind
    mode: int
    hidden: bool = False
    before: bytes | None = field(default=None, repr=False)
    after: bytes | None = field(default=None, repr=False)

    @property
    def writes(self) -> bool:
        return self.action in (Action.NEW, Action.CHANGED, Action.MODE)

    @property
    def touches(self) -> bool:
        """Whether something that stood there is no longer as it was."""
        return self.action in (Action.CHANGED, Action.REMOVED)

    def diff(self) -> str:
        """For people, as `diff -u` has it; "" where a secret is, or nothing of it is text."""
        if self.hidden or self.mode == PRIVATE or self.kind in (Kind.SECRET, Kind.USERS, Kind.CERTIFICATE):
            return ""
        before, after = (_lines(content) for content in (self.before, self.after))
        return "".join(difflib.unified_diff(before, after, f"{self.path} (now)", f"{self.path} (wanted)"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """changes: one for each file, in the order in which they are made. record: to be written in the end."""

    changes: tuple[Change, ...]
    record: Record
    before: Record | None

    @property
    def to_do(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.writes or change.action is Action.REMOVED)

    @property
    def conflicts(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.action is Action.CONFLICT)

    @property
    def is_done(self) -> bool:
        return not self.to_do and self.record == self.before

    @property
    def meanwhile(self) -> Record:
        """The record while files are being written."""
        written = {path: set(digests) for path, digests in self.record.written.items()}
        for path, digests in (self.before.written if self.before else {}).items():
            written.setdefault(path, set()).update(digests)
        return Record(
            deployment=self.record.deployment,
            written={path: tuple(sorted(digests)) for path, digests in written.items()},
        )


def plan(
    deployment: Deployment,
    wanted: Sequence[WantedFile],
    standing: Mapping[str, Standing],
    before: Record | None,
    *,
    overwrite: Collection[str] = (),
    unwanted: Collection[str] = (),
    is_part: bool = False,
) -> Plan:
    """overwrite: paths whose conflicts are resolved for regstore. unwanted: certificates that are to go, whoever put
    them there. standing: of all these files, and those in `before`. is_part: what is not in `wanted` stays as it is,
    rather than being no longer wanted.

    Raises ValueError where two files are wanted at one path.
    """
    paths = [file.path for file in wanted]
    if len(set(paths)) < len(paths):
        raise ValueError(f"two files are wanted at one path: {sorted(paths)}")
    known = before.written if before is not None else {}
    changes = [_change(file, standing.get(file.path), known.get(file.path, ()), overwrite) for file in wanted]
    changes += [
        Change(
            path=path,
            action=Action.REMOVED,
            kind=Kind.CERTIFICATE,
            mode=standing[path].mode,
            before=standing[path].content,
        )
        for path in unwanted
        if path in standing
    ]
    if not is_part:
        changes += _no_longer_wanted(set(paths), standing, known)
    changes.sort(key=lambda change: (_ORDER.index(change.kind), change.mode != PRIVATE, change.path))
    written = dict(known if is_part else {}) | dict(_written(changes, known))
    return Plan(changes=tuple(changes), record=Record(deployment=deployment, written=written), before=before)


def _change(
    file: WantedFile, standing: Standing | None, known: Sequence[str], overwrite: Collection[str]
) -> Change:
    def change(action: Action) -> Change:
        return Change(
            path=file.path,
            action=action,
            kind=file.kind,
            mode=file.mode if standing is None else (file.mode & standing.mode) | PRIVATE,
            hidden=standing is not None and not standing.mode & _OTHERS_READ,
            before=standing.content if standing is not None else None,
            after=standing.content if standing is not None and action is Action.MODE else file.content,
        )

    if standing is None:
        return change(Action.NEW)
    # Fewer rights than wanted are somebody's wish, also where the content changes.
    is_open = bool(standing.mode & ~file.mode)
    if standing.content == file.content or file.kind is Kind.SECRET:
        if is_open:
            return change(Action.MODE)
        return change(Action.SAME if standing.content == file.content else Action.KEPT)
    if file.kind is not Kind.GENERATED or file.path in overwrite or digest_of(standing.content) in known:
        return change(Action.CHANGED)
    return change(Action.KEPT if digest_of(file.content) in known else Action.CONFLICT)


def _no_longer_wanted(
    wanted: Collection[str], standing: Mapping[str, Standing], known: Mapping[str, Sequence[str]]
) -> Iterable[Change]:
    for path in sorted(set(known) - set(wanted)):
        found = standing.get(path)
        if found is not None:
            ours = digest_of(found.content) in known[path]
            yield Change(
                path=path,
                action=Action.REMOVED if ours else Action.KEPT,
                kind=Kind.GENERATED,
                mode=found.mode,
                before=found.content,
            )


def _written(
    changes: Iterable[Change], known: Mapping[str, tuple[str, ...]]
) -> Iterable[tuple[str, tuple[str, ...]]]:
    for change in changes:
        if change.kind is not Kind.GENERATED or change.action is Action.REMOVED:
            continue
        if change.action in (Action.KEPT, Action.CONFLICT):
            if change.path in known:
                yield change.path, known[change.path]
        elif change.after is not None:
            yield change.path, (digest_of(change.after),)


def _lines(content: bytes | None) -> list[str]:
    text = (content or b"").decode(errors="replace")
    return [line if line.endswith("\n") else f"{line}\n" for line in text.splitlines(keepends=True)]
