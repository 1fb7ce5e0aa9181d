"""What keeps a plan from being carried out unless somebody says yes: each a sentence that names the option.

A dry run shows the same sentences. Symbolic links stop what gives back, too, and need no plan. Other stops that need
none stand elsewhere: much less than the last run left (`gc.planning`), a metadata database (`inventory.whose`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from regstore import layout
from regstore.errors import Refused
from regstore.gc.plan import GcOptions, GcSummary
from regstore.gc.run_options import GcRunOptions
from regstore.storage.base import Storage

#: Repositories that a sentence names.
_NAMED: Final = 5
_INSTEAD: Final = {
    "Harbor": "Harbor keeps tags in its own database, and those that are made there never reach the store (its own "
    "retention rules and garbage collection know them)",
    "OpenShift": "OpenShift keeps tags in image streams, and none in the store (`oc adm prune images` knows them)",
}


def stops(summary: GcSummary, options: GcRunOptions) -> list[str]:
    """Why `GcRun.apply` refuses this plan; none: it does not."""
    found = [
        _tags_elsewhere(options.plan, options.tags_in) if not options.tags_complete else "",
        _untagged(summary) if not options.untagged_repositories else "",
        _unlinked(summary) if not options.unlinked_blobs else "",
        _one_time(summary) if not options.copied_times else "",
        _unmatched(summary) if not options.unmatched else "",
        _share(summary, options.max_delete),
    ]
    return [why for why in found if why]


def refuse_symbolic_links(storage: Storage) -> None:
    """Refused where the listings so far came upon any in the registry: the scan does not know what they keep."""
    refuse_these(storage.url, storage.symlinks)


def refuse_these(url: str, symlinks: Iterable[str]) -> None:
    """The same of symbolic links that were come upon anywhere."""
    links = sorted(key for key in symlinks if key.startswith(layout.PREFIX))
    if links:
        raise Refused(
            f"{url} holds symbolic links ({len(links)}, such as {links[0]}); what lies behind them "
            "is not seen, so what it keeps would be lost: replace them by bind mounts, or move the data"
        )


def _tags_elsewhere(plan: GcOptions, tags_in: str) -> str:
    by_rules = plan.policy is not None and bool(plan.policy.rules)
    if not tags_in or not (plan.delete_untagged or by_rules):
        return ""
    what = " and ".join(
        word for word, said in (("--delete-untagged", plan.delete_untagged), ("retention rules", by_rules)) if said
    )
    return (
        f"the registry's configuration is {tags_in}'s, so {what} would take what is tagged elsewhere: "
        f"{_INSTEAD.get(tags_in, 'it keeps tags elsewhere')}; leave that away, or if every tag that matters is in the "
        "store, say --tags-are-complete"
    )


def _untagged(summary: GcSummary) -> str:
    """A repository that never shows a tag may be one whose tags are kept elsewhere, or lost. One that loses its last
    tags to this run's rules is another case: its tags are in the store, and somebody chose among them."""
    names = summary.untagged
    if not names:
        return ""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    has, its = ("repository has", "its") if len(names) == 1 else ("repositories have", "their")
    return (
        f"{len(names):,} {has} revisions and no tag but of signatures and the like, and would lose them all "
        f"({', '.join(names[:_NAMED])}{more}): {its} tags may be kept elsewhere, as by Harbor or OpenShift, or be "
        "lost; if nothing in there is needed, say --untagged-repositories"
    )


def _one_time(summary: GcSummary) -> str:
    names = summary.one_time
    if not names:
        return ""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return (
        f"most tags of {', '.join(names[:_NAMED])}{more} were set within one hour, as by a copy of the store, so which "
        "are the newest is not known; go by --newest-by created, or if these are their times, say --copied-times"
    )


def _unmatched(summary: GcSummary) -> str:
    wanted = [str(one) for one in summary.unmatched if one.wanted]
    if not wanted:
        return ""
    return (
        f"{'; '.join(wanted)}: what it was to keep may be among the tags that go; correct it, or if there is nothing "
        "to keep yet, say --unmatched"
    )


def _unlinked(summary: GcSummary) -> str:
    if summary.unlinked.untold and summary.blobs.dead:
        return (
            "no link came for days, and the report of the blobs is so old that it does not show whether blobs did, as "
            "they do from a registry that keeps tags and manifests in a database; leave --blobs-from away, or if there "
            "is no such registry, say --unlinked-blobs"
        )
    if not (summary.unlinked.suspicious and summary.blobs.dead):
        return ""
    return (
        f"{summary.unlinked}, nor is any that was read a manifest: so writes a registry that keeps tags and manifests "
        "in a database, as GitLab's can, and then they are live images; if there is none, say --unlinked-blobs"
    )


def _share(summary: GcSummary, most: float) -> str:
    blobs, tags = summary.blobs, summary.tags
    by_policy = sum(rule.dropped for rule in summary.rules)
    too_many = [
        f"{dead:,} of {total:,} {what} ({dead / total:.0%})"
        for what, dead, total in (
            ("blobs", blobs.dead, blobs.total),
            ("tags, by the retention rules,", by_policy, tags.total),
        )
        if dead > total * most
    ]
    if not too_many:
        return ""
    return (
        f"{' and '.join(too_many)} would go, more than --max-delete {most:.0%} allows; "
        "look at the plan with --dry-run, then allow it"
    )
