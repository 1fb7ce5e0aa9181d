"""What goes of each repository: the links that nothing keeps, old uploads, and the files that stand beside them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from regstore.gc.plan.litter import collect_litter
from regstore.gc.plan.options import Step
from regstore.gc.plan.question import Question
from regstore.inventory.inventory import Inventory
from regstore.inventory.links import LINK_MAX
from regstore.inventory.statements import Statements

_SQL: Final = Statements(
    "regstore.gc.plan",
    "links.sql",
    link_max=str(LINK_MAX),
    **{step.name.lower(): str(int(step)) for step in Step},
)


def spell_keys(inventory: Inventory, tails: Iterable[str]) -> None:
    """Into gc_unlink, the keys of what the tables say that goes; tails: those that hold anything, by the names of their
    sections."""
    _SQL.run(inventory, "unlink", tails=" union all ".join(_SQL.text(name) for name in tails))


def collect(question: Question) -> None:
    """gc_dead_tag, …_tag_index, …_revision, …_signature, …_layer_link and …_upload, the repositories' own litter, and
    gc_unlink. `roots.mark` has been here; gc_reached_odd holds what any repository reaches, not only these."""
    options, inventory, present = question.options, question.inventory, question.present
    question.make_tables("links")

    def run(section: str) -> int:
        """How many rows came of it."""
        [(rows,)] = _SQL.run(inventory, section, question.parameters).fetchall()
        return int(rows)

    tails = []
    if "digest tags" in present or options.policy is not None or options.drop_broken:
        tails += ["tag_tails"] * bool(run("dead_tag"))
    revisions = run("dead_revision") if options.delete_untagged else 0
    revisions += run("dead_broken_revision") if options.drop_broken else 0
    tails += ["revision_tails"] * bool(revisions)
    if "signatures" in present:
        tails += ["signature_tails"] * bool(run("dead_signature"))
    if run("dead_layer_link"):
        run("keep_one_layer_link")
        tails.append("layer_tails")
    tails += ["tag_index_tails"] * bool(run("dead_tag_index"))
    if "uploads" in present and not inventory.multipart_uploads_unknown:
        tails += ["upload_tails"] * bool(run("dead_upload"))
    if tails:
        spell_keys(inventory, tails)
    if collect_litter(question):
        run("unlink_litter")
