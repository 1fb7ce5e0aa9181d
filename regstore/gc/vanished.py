"""Is what the last run of gc left still there? Where much of it is gone and no run of ours took it, gc stops: an
unmounted folder or a lost prefix looks like repositories that nobody has any more, and their blobs like garbage.

Clients delete repositories, too, by the registry's API: so a person can say yes, and the run that then ends remembers
what stands. What runs of ours took, gc among them, their journals say; when these go with their trash, it is taken off
what the last run left (`excuse`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from regstore.errors import IntegrityError
from regstore.gc.policy import Pattern
from regstore.layout import LayerLinkKey, RevisionLinkKey, TagCurrentKey, decode
from regstore.state.counts import Counts, read_counts, write_counts
from regstore.state.journal import UNLINK, RunRecord, read_parts, read_seen
from regstore.state.lock import Lock
from regstore.storage.base import Storage

_NAMED: Final = 5


@dataclass(frozen=True, kw_only=True)
class Vanished:
    """repositories: that had tags at the last run and have none now, with how many they had; untagged: that had
    revisions only, so many, and have neither now. links: how many fewer
    there are than the `links_before`, tags, revisions and layer links together. What runs since took is not in it."""

    repositories: Mapping[str, int]
    links: int
    links_before: int
    untagged: Mapping[str, int] = field(default_factory=dict)

    def refusal(self, *, allow_gone: Sequence[Pattern], max_lost: float) -> str:
        """Why a run must not go on, "" where it may; both are what the operator allows."""
        reasons, options = [], []
        gone: list[str] = []
        for lost, what in ((self.repositories, "tag"), (self.untagged, "revision")):
            names = [name for name in lost if not any(pattern.matches(name) for pattern in allow_gone)]
            if names:
                named = self._named({name: lost[name] for name in names}, what)
                only = "" if what == "tag" else " and no tag"
                has = "have" if len(names) > 1 else "has"
                reasons.append(f"{named} had {what}s{only} at the last run and {has} none now")
            gone += names
        if gone:
            options.append(f"--allow-gone {gone[0] if len(gone) == 1 else repr('**')}")
        if self.links > self.links_before * max_lost:
            share = self.links / self.links_before
            reasons.append(
                f"{self.links:,} of the {self.links_before:,} links that the last run left ({share:.0%}) are gone, "
                f"more than --max-lost {max_lost:.0%} allows"
            )
            options.append(f"--max-lost {-(-self.links * 100 // self.links_before)}%")
        if not reasons:
            return ""
        return (
            f"{', and '.join(reasons)}; no run of regstore took them. If a folder is not mounted, or a prefix is lost, "
            f"bring it back first; if clients deleted them, say {' '.join(options)} once"
        )

    def _named(self, lost: Mapping[str, int], what: str) -> str:
        shown = [f"{name} ({number:,} {what}{'s' * (number != 1)})" for name, number in list(lost.items())[:_NAMED]]
        if len(lost) > _NAMED:
            shown.append(f"{len(lost) - _NAMED:,} more repositories")
        return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


async def find_vanished(storage: Storage, last: Counts, now: Counts, records: Sequence[RunRecord]) -> Vanished:
    """records: every run whose journal is kept. They are read only where something is gone."""
    gone = {name: tags for name, tags in sorted(last.tagged.items()) if name not in now.tagged}
    untagged = {
        name: revisions
        for name, revisions in sorted(last.untagged.items())
        if name not in now.tagged and name not in now.untagged
    }
    lost = max(0, last.links - now.links)
    if gone or untagged or lost:
        taken = await _taken(storage, [record for record in records if record.run not in last.runs])
        gone = {name: count for name, count in gone.items() if taken.tags[name] < count}
        untagged = {name: count for name, count in untagged.items() if taken.revisions[name] < count}
        lost = max(0, lost - taken.links)
    return Vanished(repositories=gone, links=lost, links_before=last.links, untagged=untagged)


async def without_tags_removed(
    storage: Storage, names: Sequence[str], records: Sequence[RunRecord]
) -> tuple[str, ...]:
    """Those of the repositories of which no removal by name took a tag: where one did, the tags are in the store, and
    somebody chose among them."""
    taken = await _taken(storage, [record for record in records if _is_by_name(record)])
    return tuple(name for name in names if name not in taken.tags)


async def excuse(storage: Storage, records: Sequence[RunRecord], lock: Lock) -> None:
    """The journals of these runs are about to go: what they took is from now on no part of what the last run left. So
    the next run does not miss it, and knows whose tags were removed by name. Killed before the journals go, nothing is
    taken off twice."""
    if not records:
        return
    known = await read_counts(storage)
    last = known or Counts()
    new = [record for record in records if record.parts and record.run not in last.runs]
    taken = await _taken(storage, new) if known is not None else _Taken()
    by_name = await _taken(storage, [record for record in records if record.parts and _is_by_name(record)])
    counts = replace(
        last,
        links=max(0, last.links - taken.links),
        tagged={name: left for name, tags in last.tagged.items() if (left := tags - taken.tags[name]) > 0},
        untagged={
            name: left for name, number in last.untagged.items() if (left := number - taken.revisions[name]) > 0
        },
        runs=last.runs | {record.run for record in new},
        chosen=last.chosen | by_name.tags.keys(),
    )
    if (known is not None and new) or counts.chosen != last.chosen:
        async with lock.batch():
            await write_counts(storage, counts)


def _is_by_name(record: RunRecord) -> bool:
    return record.begun.get("command") in ("rm", "untag")


@dataclass(frozen=True, kw_only=True)
class _Taken:
    """Tags and revisions of each repository, by number, and links in all."""

    tags: Counter[str] = field(default_factory=Counter)
    revisions: Counter[str] = field(default_factory=Counter)
    links: int = 0


async def _taken(storage: Storage, records: Sequence[RunRecord]) -> _Taken:
    """What these runs took: gc, rm, migrate --delete, verify, restore. Not what stood again since, as after an undo."""
    tags: Counter[str] = Counter()
    revisions: Counter[str] = Counter()
    links: set[str] = set()
    for record in records:
        try:
            stood_again = await read_seen(storage, record)
            async for entries in read_parts(storage, record.parts):
                for entry in entries:
                    key = decode(entry.key)
                    if entry.op != UNLINK or entry.key in links or entry.key in stood_again:
                        continue
                    if isinstance(key, TagCurrentKey):
                        tags[key.name] += 1
                    if isinstance(key, RevisionLinkKey):
                        revisions[key.name] += 1
                    if isinstance(key, TagCurrentKey | RevisionLinkKey | LayerLinkKey):
                        links.add(entry.key)
        except IntegrityError:
            continue  # what can't be read excuses nothing
    return _Taken(tags=tags, revisions=revisions, links=len(links))
