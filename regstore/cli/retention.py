"""What `regstore gc` says of tags: what the retention rules take, and why things stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regstore.cli.output import count, counted, emit, emit_error, emit_some, emit_warning, moment, table
from regstore.cli.whose import whose_json

if TYPE_CHECKING:
    from regstore.digest import Digest
    from regstore.gc.explain import DroppedTag
    from regstore.gc.plan import BrokenRevision, GcOptions, GcSummary
    from regstore.gc.run import GcRun
    from regstore.gc.why import Why
    from regstore.inventory.inventory import Inventory


def print_retention(inventory: Inventory, options: GcOptions, summary: GcSummary) -> None:
    """The rules, the tags that go, and the revisions that can't be read and go; nothing where there are none."""
    _print_rules(inventory, options, summary)
    if not options.drop_broken:
        return
    from regstore.gc.plan import unmatched

    if summary.broken:
        emit("\nrevisions that can't be read, and go:")
    emit_some(list(map(_broken_text, summary.broken)), "  ({} more, see --json)")
    for scope in unmatched(inventory, options.drop_broken):
        emit_error(f"--drop-broken-revisions {scope}: nothing broken there that may go")


def _broken_text(one: BrokenRevision) -> str:
    tags = f" (with {counted(len(one.tags), 'tag')}: {', '.join(one.tags)})" if one.tags else ""
    return f"  {one.repository}@{one.digest}: {one.reason}{tags}"


def _print_rules(inventory: Inventory, options: GcOptions, summary: GcSummary) -> None:
    for one in summary.unmatched:
        emit_warning(str(one))
    if not summary.rules:
        return
    from regstore.gc.explain import iter_dropped

    emit()
    rows = [
        [rule.name, "image's creation" if rule.newest_by == "created" else "tag's own time"]
        + [count(number) for number in (rule.tags, rule.dropped)]
        for rule in summary.rules
    ]
    emit(table(["RULE", "NEWEST BY", "TAGS", "TO REMOVE"], rows, right=(2, 3)))
    for rule in summary.rules:
        if rule.own_times:
            emit(
                f"rule {rule.name}: {counted(rule.own_times, 'tag')} went by its own time, for its image does not say"
                if rule.own_times == 1
                else f"rule {rule.name}: {rule.own_times:,} tags went by their own time, for their images do not say"
            )
        if rule.unknown_times:
            emit(
                f"rule {rule.name}: {counted(rule.unknown_times, 'tag')} left, for it can't be read when the image "
                "was made"
            )
    dropped = sum(rule.dropped for rule in summary.rules)
    if not dropped:
        return
    emit()
    shown = [
        [
            f"{tag.repository}:{tag.tag}",
            tag.rule,
            "" if tag.time is None else moment(tag.time),
            {"created": "image", "record": "tag, before it was migrated", "link": "tag"}.get(tag.time_by or "", ""),
        ]
        for tag in iter_dropped(inventory)
    ]
    emit(table(["TAG TO REMOVE", "RULE", "TIME", "OF"], shown))
    if not options.delete_untagged:
        emit("their manifests stay: those go only with --delete-untagged")


def retention_json(inventory: Inventory, summary: GcSummary) -> dict[str, Any]:
    """Added to the plan in JSON: every tag that a rule takes, the rules, and broken revisions that go."""
    dropped: list[DroppedTag] = []
    if summary.rules:
        from regstore.gc.explain import iter_dropped

        dropped += iter_dropped(inventory)
    return {
        "rules": list(summary.rules),
        "dropped_tags": dropped,
        "broken_revisions": list(summary.broken),
        "unmatched_patterns": list(summary.unmatched),
    }


def show_reasons(run: GcRun, options: GcOptions, tags: list[str], digests: list[Digest]) -> dict[str, Any]:
    """Print what --explain and --why ask for, and give it as JSON has it."""
    from regstore.gc.explain import explain_tags
    from regstore.gc.why import why

    explained = {}
    for text in tags:
        name, colon, tag = text.partition(":")
        explained[text] = explain_tags(run.inventory, options, name, tag if colon else None)
    whys = [why(run.inventory, options, digest, now=run.inventory.scanned_at) for digest in digests]
    for text, reasons in explained.items():
        emit(f"{text}: {counted(len(reasons), 'tag')}")
        if reasons:
            rows = [[reason.tag, "goes" if reason.goes else "stays", reason.reason] for reason in reasons]
            emit(table(["TAG", "", "WHY"], rows))
        emit()
    for one in whys:
        _print_why(one, run.summary)
    return whose_json(run.database) | {"explain": explained, "why": whys}


def _print_why(one: Why, summary: GcSummary) -> None:
    emit(f"{one.digest}{'' if one.stored else ' (no such blob is stored)'}")
    for chain in one.chains:
        emit(f"  {chain.repository}: {chain.root}")
        for depth, link in enumerate(chain.links, 1):
            emit(f"  {'  ' * depth}-> {f'{link.named_as} ' if link.named_as else ''}{link.digest}")
    if one.repositories > len(one.chains):
        emit(f"  ({one.repositories - len(one.chains):,} more repositories)")
    for reason in one.also:
        emit(f"  kept by {reason}" if not one.goes else f"  {reason}")
    if one.goes:
        emit("  nothing keeps it: it goes")
    elif summary.sweep_blocked:
        emit(f"  {summary.sweep_blocked}")
    elif not one.chains and not one.also:
        emit("  nothing refers to it")
    emit()
