"""The plan in numbers and words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

from regstore.gc.one_time import find_one_time
from regstore.gc.plan.blobs import Held
from regstore.gc.plan.options import HOUR
from regstore.gc.plan.question import Question
from regstore.gc.policy import Policy
from regstore.gc.retention import Fate
from regstore.gc.unmatched import Unmatched, find_unmatched
from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import Statements
from regstore.inventory.unlinked import Unlinked, find_unlinked
from regstore.layout import REPOSITORIES
from regstore.words import Moment

#: A time so far ahead of the listing's start, in microseconds, is not that of a push during the listing.
_AHEAD: Final = HOUR

_SQL: Final = Statements(
    "regstore.gc.plan",
    "summary.sql",
    repositories=REPOSITORIES,
    repositories_length=str(len(REPOSITORIES)),
    unknown_time=Fate.UNKNOWN_TIME,
)


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


def summarize(question: Question, *, sweep_blocked: str, held: Held) -> GcSummary:
    """Of a plan whose tables are all made."""
    inventory, policy = question.inventory, question.options.policy
    numbers = _Numbers(question)
    words: dict[str, list[tuple[str, str]]] = {"protected": [], "untagged": [], "problem": []}
    for kind, repository, text in _SQL.run(inventory, "words", question.parameters).fetchall():
        words[kind].append((repository, text))
    shares = tuple(_shares(inventory))
    multipart_unknown = inventory.multipart_uploads_unknown
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
        rules=tuple(_rules(inventory, policy)) if policy is not None else (),
        broken=tuple(_broken(inventory)) if question.options.drop_broken else (),
        one_time=find_one_time(inventory, policy),
        held=held,
        young=numbers.young,
        untagged=tuple(name for name, _ in words["untagged"]),
        unlinked=find_unlinked(inventory),
        unmatched=find_unmatched(inventory, policy),
    )


class _Numbers:
    """How much there is of what, as one statement has counted it."""

    def __init__(self, question: Question) -> None:
        given = question.parameters | {"ahead": question.now + _AHEAD}
        rows = _SQL.run(question.inventory, "numbers", given).fetchall()
        self._rows: dict[str, tuple[Any, ...]] = {what: tuple(row) for what, *row in rows}

    def number(self, what: str) -> int:
        return int(self._rows[what][0])

    def bytes(self, what: str) -> int:
        return int(self._rows[what][1] or 0)

    def count(self, what: str) -> Count:
        return Count(total=self.number(what), dead=self.number(f"dead {what}"))

    @property
    def young(self) -> Young:
        blobs, blob_bytes, links, oldest, ahead, latest = self._rows["young"]
        return Young(
            blobs=blobs, blob_bytes=blob_bytes or 0, links=links, oldest=oldest, ahead=ahead, latest=latest
        )


def _shares(inventory: Inventory) -> Iterator[RepositoryShare]:
    for name, tags, revisions, layer_links, uploads, blob_bytes, emptied in _SQL.run(
        inventory, "shares"
    ).fetchall():
        yield RepositoryShare(
            name=name,
            tags=tags,
            revisions=revisions,
            layer_links=layer_links,
            uploads=uploads,
            blob_bytes=blob_bytes,
            emptied=emptied,
        )


def _rules(inventory: Inventory, policy: Policy) -> Iterator[RuleShare]:
    found = {rule: counts for rule, *counts in _SQL.run(inventory, "rules").fetchall()}
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


def _broken(inventory: Inventory) -> Iterator[BrokenRevision]:
    for name, digest, reason, tags in _SQL.run(inventory, "broken").fetchall():
        yield BrokenRevision(repository=name, digest=digest, reason=reason, tags=tuple(tags))
