"""What a summary of the plan adds up: of a whole store, or of a shard of one (`shards`), which can send it anywhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from regstore.gc.one_time import find_one_time
from regstore.gc.plan.blobs import Held
from regstore.gc.plan.options import HOUR
from regstore.gc.plan.question import Question
from regstore.gc.retention import Fate
from regstore.gc.unmatched import Matches, find_matches
from regstore.inventory.statements import Statements
from regstore.inventory.unlinked import UnlinkedBlobs, newest_link
from regstore.layout import REPOSITORIES

#: A time so far ahead of the listing's start, in microseconds, is not that of a push during the listing.
_AHEAD: Final = HOUR

_SQL: Final = Statements(
    "regstore.gc.plan",
    "summary.sql",
    repositories=REPOSITORIES,
    repositories_length=str(len(REPOSITORIES)),
    unknown_time=Fate.UNKNOWN_TIME,
)
#: What is counted of a shard of repositories, of one of blobs, and of the whole, where each holds what is its own.
OF_BLOBS: Final = frozenset({"blob", "dead blob", "orphan", "young"})
OF_WHOLE: Final = frozenset({"litter", "unknown", "dead litter"})
_BY_OTHERS: Final = frozenset({"blob", "dead blob", "orphan", "litter", "unknown"})


@dataclass(frozen=True, kw_only=True)
class Facts:
    """numbers: of what, as `summary.sql` has them. words: (kind, repository, text). shares: (name, tags, revisions,
    layer links, uploads, emptied) of each repository that loses something; freed: bytes of dead blobs by the names of
    those. rules: by their position. broken: as `BrokenRevision` has them."""

    numbers: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    words: tuple[tuple[str, str, str], ...] = ()
    shares: tuple[tuple[str, int, int, int, int, bool], ...] = ()
    freed: Mapping[str, int] = field(default_factory=dict)
    rules: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    broken: tuple[tuple[str, str, str, tuple[str, ...]], ...] = ()
    one_time: tuple[str, ...] = ()
    matches: Matches = field(default_factory=Matches)
    newest_link: int | None = None
    held: Held = field(default_factory=Held)
    unlinked: UnlinkedBlobs = field(default_factory=UnlinkedBlobs)
    multipart_uploads_unknown: str = ""


def find_facts(question: Question) -> Facts:
    """Of a plan whose tables are all made; but what is of blobs alone, `find_blob_facts` finds."""
    inventory, policy = question.inventory, question.options.policy
    _SQL.run(inventory, "freed")
    return Facts(
        numbers=_numbers(question),
        words=tuple(_SQL.run(inventory, "words", question.parameters).fetchall()),
        shares=tuple(_SQL.run(inventory, "shares").fetchall()),
        rules={}
        if policy is None
        else {rule: tuple(row) for rule, *row in _SQL.run(inventory, "rules").fetchall()},
        broken=tuple(
            (name, digest, reason, tuple(tags))
            for name, digest, reason, tags in _SQL.run(inventory, "broken").fetchall()
        )
        if question.options.drop_broken
        else (),
        one_time=find_one_time(inventory, policy),
        matches=Matches() if policy is None else find_matches(inventory, policy),
        newest_link=newest_link(inventory),
        multipart_uploads_unknown=inventory.multipart_uploads_unknown,
    )


def find_shard_facts(question: Question) -> Facts:
    """Of a shard of repositories: no blob is in it, and the unknown keys and the litter are the whole's, too."""
    facts = find_facts(question)
    numbers = {what: row for what, row in facts.numbers.items() if what not in _BY_OTHERS}
    return Facts(**(vars(facts) | {"numbers": numbers}))


def find_blob_facts(question: Question, held: Held, unlinked: UnlinkedBlobs) -> Facts:
    """Of blobs: gc_dead_blob is made, and gc_freed."""
    return Facts(numbers=_numbers(question, OF_BLOBS), freed=find_freed(question), held=held, unlinked=unlinked)


def find_whole_facts(question: Question) -> Facts:
    """Of the whole beside its blobs."""
    make_freed(question)
    return Facts(numbers=_numbers(question, OF_WHOLE))


def find_freed(question: Question) -> dict[str, int]:
    """Bytes of dead blobs that the dead links of each repository name, by its name."""
    return dict(_SQL.run(question.inventory, "bytes").fetchall())


def make_freed(question: Question) -> None:
    """gc_freed, empty: to be filled from shards."""
    _SQL.run(question.inventory, "freed_by_others")


def _numbers(question: Question, of: Collection[str] = ()) -> dict[str, tuple[Any, ...]]:
    given = question.parameters | {"ahead": question.now + _AHEAD}
    rows = _SQL.run(question.inventory, "numbers", given).fetchall()
    return {what: tuple(row) for what, *row in rows if not of or what in of}
