"""What each repository keeps: its roots, and all that they reach, to a fixpoint.

A tag that follows a manifest is a root as soon as that is reached. A repository that comes to reach what can't be read
is protected, and then all that it holds is a root.
"""

from __future__ import annotations

from typing import Final

from regstore.gc.plan.protected import find_protected, spare
from regstore.gc.plan.question import Question
from regstore.gc.retention import Fate, choose_tags
from regstore.inventory.reachability import Reachability
from regstore.inventory.statements import Statements
from regstore.manifest import EdgeKind

#: Stands for repositories whose keys can't be decoded.
NOWHERE: Final = -1

_SQL: Final = Statements(
    "regstore.gc.plan",
    "roots.sql",
    nowhere=str(NOWHERE),
    manifest=str(int(EdgeKind.MANIFEST)),
    subject=str(int(EdgeKind.SUBJECT)),
    protected=Fate.PROTECTED,
)


def mark(question: Question) -> None:
    """gc_tag_fate and gc_dropped_tag, gc_protected, the broken revisions that may go, gc_follower, reach, and what of
    it is of another algorithm than sha256: gc_reached_odd."""
    inventory, options = question.inventory, question.options
    question.make_tables("roots")
    if options.policy is not None:
        choose_tags(inventory, options.policy, now=question.now, grace=options.grace)
    find_protected(question)
    _find_followers(question)
    sound = "gc_sound_revision" if options.drop_broken else "revision_link"
    reach = Reachability(inventory, "reach", revisions=sound, also=_SQL.text("with_subject"))
    reach.add(_SQL.text("roots", sound=sound), question.parameters)
    while newly := _newly_protected(question):
        given = {"newly": newly}
        spare(question, "select unnest($newly::integer[])", given)
        reach.add(_SQL.text("protected_roots"), given)
    _SQL.run(inventory, "reached_odd")


def _find_followers(question: Question) -> None:
    """gc_follower: tags that stay only as long as the manifest that they name."""
    inventory, options = question.inventory, question.options
    if "digest tags" not in question.present or not (options.delete_untagged or options.drop_broken):
        return
    subjects = "revision_link" if options.delete_untagged else "gc_broken_revision"
    [(found,)] = _SQL.run(inventory, "followers", question.parameters, subjects=subjects).fetchall()
    if not found:
        return
    _SQL.run(inventory, "held")
    front, rounds = _SQL.text("targets"), 0
    while True:
        [(more,)] = _SQL.run(inventory, "hold", {"round": rounds + 1}, front=front).fetchall()
        if not more:
            break
        front, rounds = _SQL.text("met"), rounds + 1
    if rounds:
        _SQL.run(inventory, "ordinary")


def _newly_protected(question: Question) -> list[int]:
    """Protect repositories for what they reach; the ids of those."""
    found = []
    if "unreadable" in question.present:
        found += _SQL.run(question.inventory, "protect_reaching").fetchall()
    if question.options.drop_broken:
        found += _SQL.run(question.inventory, "protect_needing").fetchall()
    return sorted({repository for (repository,) in found})
