"""What a garbage collection would take now, by the index; nothing is written. Planned when it is first looked at."""

from __future__ import annotations

from dataclasses import dataclass

from regstore.digest import Digest
from regstore.gc.explain import TagReason, explain_tags
from regstore.gc.plan import GcOptions, GcSummary, plan_gc
from regstore.gc.policy import Policy
from regstore.gc.why import Why, why
from regstore.inventory.inventory import Inventory
from regstore.serve.index import View


def _name(delete_untagged: bool, policy: str) -> str:
    return f"plan {delete_untagged} {policy}"


#: The plan without any option, by which `View.known` has it.
PLAIN = _name(False, "")
#: Tags of one repository that are shown with their rule.
TAGS_SHOWN = 500


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A plan in numbers, and what it does to the tags of the repositories that lose some."""

    summary: GcSummary
    tags: dict[str, list[TagReason]]
    #: Repositories whose tags are not shown for want of room.
    more: int = 0


async def plan_of(view: View, *, delete_untagged: bool = False, policy: str = "") -> Tried:
    """The plan with the default grace. policy: the text of a retention policy; InputError where it is none."""
    parsed = Policy.parse(policy, source="the policy") if policy.strip() else None
    options = GcOptions(delete_untagged=delete_untagged, policy=parsed)

    kept_as = _name(delete_untagged, policy)

    def work(inventory: Inventory) -> Tried:
        view.planned = ""
        summary = plan_gc(inventory, options, now=view.scanned_at)
        view.planned = kept_as
        losing = [share.name for share in summary.shares if share.tags]
        shown: dict[str, list[TagReason]] = {}
        room = 4 * TAGS_SHOWN
        for name in losing:
            if room <= 0:
                break
            shown[name] = explain_tags(inventory, options, name)[: min(TAGS_SHOWN, room)]
            room -= len(shown[name])
        return Tried(summary=summary, tags=shown, more=len(losing) - len(shown))

    return await view.once(kept_as, work)


async def plan_plain(view: View) -> None:
    """Make the plan without any option ahead, so that monitors and the page have it at once. Nothing where links are
    not the whole truth."""
    if not view.database:
        await plan_of(view)


async def why_kept(view: View, digest: Digest) -> Why:
    """Why the default plan keeps a digest, or that it goes."""
    options = GcOptions()

    def work(inventory: Inventory) -> Why:
        if view.planned != PLAIN:  # its tables are there otherwise
            view.planned = ""
            plan_gc(inventory, options, now=view.scanned_at)
            view.planned = PLAIN
        return why(inventory, options, digest, now=view.scanned_at)

    return await view.once(f"why {digest}", work)
