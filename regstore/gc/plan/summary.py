"""The plan in numbers and words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from regstore.gc.plan.blobs import Held, add_held
from regstore.gc.plan.facts import Facts
from regstore.gc.policy import Policy
from regstore.gc.unmatched import Unmatched, find_unmatched
from regstore.inventory.unlinked import Unlinked, add_unlinked
from regstore.words import Moment


@dataclass(frozen=True, kw_only=True)
class Count:
    total: int
    dead: int


@dataclass(frozen=True, kw_only=True)
class Protected:
    """A repository that is left alone, and every reason why."""

    name: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RepositoryShare:
    """What goes from one repository. blob_bytes: of dead blobs that its dead links name (shared ones count in each)."""

    name: str
    tags: int
    revisions: int
    layer_links: int
    uploads: int
    blob_bytes: int
    emptied: bool


@dataclass(frozen=True, kw_only=True)
class RuleShare:
    """What one rule of the policy does. tags: that it is about. unknown_times: that stay because their image's time
    can't be read. own_times: judged by their own time, because their image says none."""

    name: str
    newest_by: str
    tags: int
    dropped: int
    unknown_times: int
    own_times: int


@dataclass(frozen=True, kw_only=True)
class BrokenRevision:
    """One that can't be read and goes, why, and the tags that go with it."""

    repository: str
    digest: str
    reason: str
    tags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Young:
    """What is younger than the grace: it stays, whatever needs it. Sizes in bytes, times in microseconds.

    links: tags, revisions and layer links. oldest: when the eldest of these was written. ahead: blobs and links whose
    time lies in the future, by the store's own clock, and the latest such time: they stay until then, and the grace.
    """

    blobs: int = 0
    blob_bytes: int = 0
    links: int = 0
    oldest: Moment | None = None
    ahead: int = 0
    latest: Moment | None = None


@dataclass(frozen=True, kw_only=True)
class GcSummary:
    """The plan in numbers. Sizes in bytes. untagged: repositories that have no tag, but for such as follow what they
    name, and would lose all revisions, for want of one. unmatched: patterns of the policy that match nothing."""

    blobs: Count
    blob_bytes: int
    dead_blob_bytes: int
    orphan_blobs: int
    orphan_blob_bytes: int
    revisions: Count
    layer_links: Count
    tags: Count
    tag_index: Count
    signatures: Count
    uploads: Count
    dead_upload_bytes: int
    litter: Count
    repositories: int
    emptied: tuple[str, ...]
    protected: tuple[Protected, ...]
    shares: tuple[RepositoryShare, ...]
    unknown: int
    sweep_blocked: str
    uploads_blocked: str
    problems: tuple[str, ...] = field(default=())
    rules: tuple[RuleShare, ...] = ()
    broken: tuple[BrokenRevision, ...] = ()
    held: Held = field(default_factory=Held)
    young: Young = field(default_factory=Young)
    untagged: tuple[str, ...] = ()
    one_time: tuple[str, ...] = ()
    unlinked: Unlinked = field(default_factory=Unlinked)
    unmatched: tuple[Unmatched, ...] = ()

    @property
    def nothing_to_do(self) -> bool:
        return not any(
            count.dead
            for count in (
                self.blobs,
                self.revisions,
                self.layer_links,
                self.tags,
                self.tag_index,
                self.signatures,
                self.uploads,
                self.litter,
            )
        )


def summarize(parts: Sequence[Facts], policy: Policy | None, *, sweep_blocked: str) -> GcSummary:
    """Of a plan whose tables are all made, in one inventory or in shards."""
    numbers = _Numbers(parts)
    words: dict[str, list[tuple[str, str]]] = {"protected": [], "untagged": [], "problem": []}
    for kind, repository, text in sorted(row for part in parts for row in part.words):
        words[kind].append((repository, text))
    shares = tuple(_shares(parts))
    multipart_unknown = next((why for part in parts if (why := part.multipart_uploads_unknown)), "")
    return GcSummary(
        blobs=numbers.count("blob"),
        blob_bytes=numbers.bytes("blob"),
        dead_blob_bytes=numbers.bytes("dead blob"),
        orphan_blobs=numbers.number("orphan"),
        orphan_blob_bytes=numbers.bytes("orphan"),
        revisions=numbers.count("revision"),
        layer_links=numbers.count("layer link"),
        tags=numbers.count("tag"),
        tag_index=numbers.count("tag index"),
        signatures=numbers.count("signature"),
        uploads=numbers.count("upload"),
        dead_upload_bytes=numbers.bytes("dead upload"),
        litter=numbers.count("litter"),
        repositories=numbers.number("repository"),
        emptied=tuple(share.name for share in shares if share.emptied),
        protected=tuple(
            Protected(name=name, reasons=tuple(reason for _, reason in rows))
            for name, rows in groupby(words["protected"], key=lambda row: row[0])
        ),
        shares=shares,
        unknown=numbers.number("unknown"),
        sweep_blocked=sweep_blocked,
        uploads_blocked=(
            f"no upload is removed, for the store does not list multipart uploads: {multipart_unknown}"
            if multipart_unknown
            else ""
        ),
        problems=tuple(text for _, text in words["problem"]),
        rules=tuple(_rules(parts, policy)) if policy is not None else (),
        broken=tuple(
            BrokenRevision(repository=name, digest=digest, reason=reason, tags=tags)
            for name, digest, reason, tags in sorted(row for part in parts for row in part.broken)
        ),
        one_time=tuple(sorted(name for part in parts for name in part.one_time)),
        held=add_held([part.held for part in parts]),
        young=numbers.young,
        untagged=tuple(name for name, _ in words["untagged"]),
        unlinked=add_unlinked(
            max((part.newest_link for part in parts if part.newest_link is not None), default=None),
            [part.unlinked for part in parts],
        ),
        unmatched=find_unmatched(policy, [part.matches for part in parts]),
    )


class _Numbers:
    """How much there is of what, in all parts together."""

    def __init__(self, parts: Sequence[Facts]) -> None:
        self._parts = parts

    def _sum(self, what: str, place: int) -> int:
        return sum(part.numbers[what][place] or 0 for part in self._parts if what in part.numbers)

    def number(self, what: str) -> int:
        return int(self._sum(what, 0))

    def bytes(self, what: str) -> int:
        return int(self._sum(what, 1))

    def count(self, what: str) -> Count:
        return Count(total=self.number(what), dead=self.number(f"dead {what}"))

    @property
    def young(self) -> Young:
        rows = [part.numbers["young"] for part in self._parts if "young" in part.numbers]
        return Young(
            blobs=self.number("young"),
            blob_bytes=self.bytes("young"),
            links=self._sum("young", 2),
            oldest=min((row[3] for row in rows if row[3] is not None), default=None),
            ahead=self._sum("young", 4),
            latest=max((row[5] for row in rows if row[5] is not None), default=None),
        )


def _shares(parts: Sequence[Facts]) -> Iterator[RepositoryShare]:
    """Those that lose most bytes first."""
    freed: Counter[str] = Counter()
    for part in parts:
        freed.update(part.freed)
    rows = sorted((-freed[row[0]], row) for part in parts for row in part.shares)
    for _, (name, tags, revisions, layer_links, uploads, emptied) in rows:
        yield RepositoryShare(
            name=name,
            tags=tags,
            revisions=revisions,
            layer_links=layer_links,
            uploads=uploads,
            blob_bytes=freed[name],
            emptied=emptied,
        )


def _rules(parts: Sequence[Facts], policy: Policy) -> Iterator[RuleShare]:
    found: dict[int, tuple[Any, ...]] = {}
    for part in parts:
        for number, row in part.rules.items():
            found[number] = tuple(map(sum, zip(found.get(number, (0,) * len(row)), row, strict=True)))
    for number, rule in enumerate(policy.rules):
        tags, dropped, unknown, own = found.get(number, (0, 0, 0, 0))
        yield RuleShare(
            name=rule.name,
            newest_by=rule.newest_by,
            tags=tags,
            dropped=dropped,
            unknown_times=unknown,
            own_times=own if rule.newest_by == "created" else 0,
        )
