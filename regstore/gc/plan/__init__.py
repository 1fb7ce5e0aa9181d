"""What gc would remove, as a plan: relations in the inventory, and a summary of them. No I/O, no clock.

The rules, for each repository:

- roots: every revision; with `delete_untagged` every tag, and what is younger than the grace;
- all that roots reach is kept (`inventory.reachability`), and referrers with what they refer to;
- a tag that names a digest (`sha256-<hex>`, cosign's `.sig`, `.att`, `.sbom`) follows the manifest it names, when that
  manifest is a revision of the same repository and the tag's own target does not hold it. One that names a digest cut
  short follows nothing, and is a root;
- a repository with anything that can't be read and verified is *protected*: nothing in it is unlinked, and all it
  links counts as live. So it is, too, where a link is one that the store does not give: a sha256 link's path says what
  it keeps, a tag keeps all that its history names, and of a sha512 link only the body knows, so no blob goes at all;
- a link younger than the grace is a root, whatever names it;
- a tag that a policy drops (`gc.retention`) is no root, and goes;
- a revision that can't be read, where the operator lets such go, goes with the tags that point at it (`protected`).

A blob goes when no repository reaches it, no link that stays names it, no unknown key names it, and it is older
than the grace.

Where each part stands: the plan's relations (`tables.sql`); who is protected (`protected`); roots and what they reach
(`roots`); what goes of each repository (`links`, `litter`); which blobs go (`blobs`); the plan in numbers (`summary`,
of `facts`).

Some repositories of a store can be planned without the others. `shards` says what they must know of each other.
"""

from __future__ import annotations

from dataclasses import replace

from regstore.gc.plan.blobs import Held, find_live, sweep
from regstore.gc.plan.facts import find_facts, find_freed
from regstore.gc.plan.links import collect
from regstore.gc.plan.litter import collect_outer_litter
from regstore.gc.plan.options import HOUR, GcOptions, Step, keeping_all
from regstore.gc.plan.protected import unmatched
from regstore.gc.plan.question import Question
from regstore.gc.plan.roots import mark
from regstore.gc.plan.summary import (
    BrokenRevision,
    Count,
    GcSummary,
    Protected,
    RepositoryShare,
    RuleShare,
    Young,
    summarize,
)
from regstore.inventory.inventory import Inventory
from regstore.inventory.unlinked import find_unlinked

__all__ = [
    "HOUR",
    "BrokenRevision",
    "Count",
    "GcOptions",
    "GcSummary",
    "Held",
    "Protected",
    "RepositoryShare",
    "RuleShare",
    "Step",
    "Young",
    "keeping_all",
    "plan_blobs",
    "plan_gc",
    "plan_links",
    "unmatched",
]


def plan_gc(inventory: Inventory, options: GcOptions, *, now: int) -> GcSummary:
    """Make the plan's tables in the inventory. `now` in microseconds, by the store's clock."""
    question = Question(inventory, options, now)
    mark(question)
    collect(question)
    blocked = find_live(question)
    held = sweep(question, blocked=bool(blocked))
    collect_outer_litter(question)
    facts = find_facts(question)
    unlinked = find_unlinked(inventory, since=facts.newest_link)
    facts = replace(facts, freed=find_freed(question), held=held, unlinked=unlinked)
    return summarize([facts], options.policy, sweep_blocked=blocked)


def plan_links(inventory: Inventory, options: GcOptions, *, now: int) -> None:
    """The same without the blobs, for an inventory that holds some repositories only."""
    question = Question(inventory, options, now)
    mark(question)
    collect(question)


def plan_blobs(inventory: Inventory, options: GcOptions, *, now: int) -> None:
    """gc_dead_blob and gc_protected alone, for a second look, when links are gone already (`keeping_all`)."""
    question = Question(inventory, keeping_all(options), now)
    mark(question)
    sweep(question, blocked=bool(find_live(question, links_go=False)))
