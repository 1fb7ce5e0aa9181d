"""Which repositories are protected: nothing in them is unlinked, for something there can't be read or understood.

A revision that can't be read is no reason where the operator lets such go (`--drop-broken-revisions`); it goes then,
with the tags that point at it, but never a tag that a policy protects. Left alone all the same: one younger than the
grace, whose push may not be over; a link too long to be read; and a document whose bytes are right, or were never read,
and that is only not understood: that one goes where its digest is named, never as one of many. What could not be read
is not broken (`gc.confirm`, and the state `unreadable`): it may be sound. Where something that stays needs such a
revision, or the repository is protected for another reason, all of it stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from regstore.gc.plan.question import Question
from regstore.gc.policy import BrokenScope
from regstore.gc.retention import Fate
from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import Statements

_PLAIN: Final = Statements("regstore.gc.plan", "protected.sql")
_SQL: Final = Statements("regstore.gc.plan", "protected.sql", link_reason=_PLAIN.text("link_reason"))


def find_protected(question: Question) -> None:
    """gc_protected, gc_broken_revision and gc_broken_tag, by what stands in each repository. gc_tag_fate and
    gc_dropped_tag are made."""
    scopes = question.options.drop_broken
    if scopes:
        named = {
            "scope_names": [scope.name for scope in scopes],
            "scope_digests": [scope.digest.raw if scope.digest else None for scope in scopes],
        }
        _SQL.run(question.inventory, "broken", question.parameters | named, protected=Fate.PROTECTED)
    _SQL.run(question.inventory, "protect", question.parameters)
    spare(question, "select repository from gc_protected")


def spare(question: Question, protected: str, parameters: Mapping[str, Any] | None = None) -> None:
    """Let nothing go from these repositories that is broken, and no tag by the policy. protected: SQL for their ids,
    with its parameters."""
    if question.options.drop_broken or question.options.policy is not None:
        _SQL.run(question.inventory, "spare", parameters, protected=protected)


def unmatched(inventory: Inventory, scopes: Iterable[BrokenScope]) -> list[str]:
    """Those of the scopes in which nothing broken may go, by a plan's tables."""
    found = {(name, bytes(digest)) for name, digest in _SQL.run(inventory, "broken_in").fetchall()}
    names = {name for name, _ in found}

    def matches(scope: BrokenScope) -> bool:
        if scope.name is None:
            return bool(found)
        return (scope.name, scope.digest.raw) in found if scope.digest else scope.name in names

    return [str(scope) for scope in scopes if not matches(scope)]
