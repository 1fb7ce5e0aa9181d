"""What retention rules must say of every tag, said naively.

Nothing is shared with the planner but the patterns and the parsers.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from regstore.digest import Digest
from regstore.gc.policy import BrokenScope, Pattern, Policy
from regstore.gc.retention import Fate
from regstore.manifest import EdgeKind
from tests.model.gc_oracle import Consent, Repository, Store
from tests.model.store import ModelStore

_DIGEST_TAG = re.compile(r"sha256-[0-9a-f]{64}(\..+)?|sha512-([0-9a-f]{128}|[0-9a-f]{64})(\..+)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

#: (repository, tag) -> (digest, time, until): what migrate recorded, and when at the latest it wrote the tag's link.
Record = Mapping[tuple[str, str], tuple[Digest, int, int]]


@dataclass
class Choice:
    """fates: by (repository, tag). dropped, guarded: names of tags by repository, guarded those that never go."""

    fates: dict[tuple[str, str], Fate] = field(default_factory=dict)
    dropped: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    guarded: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def consent(self, scopes: tuple[BrokenScope, ...] = ()) -> Consent:
        return Consent(
            dropped=dict(self.dropped),
            guarded=dict(self.guarded),
            broken=lambda name, digest: any(
                scope.name is None or (scope.name == name and scope.digest in (None, digest)) for scope in scopes
            ),
            named=lambda name, digest: any((scope.name, scope.digest) == (name, digest) for scope in scopes),
        )


def choose(model: ModelStore, policy: Policy, *, now: int, grace: int, record: Record | None = None) -> Choice:
    store = Store(model)
    choice = Choice()
    for repository in store.repositories.values():
        _choose(store, repository, policy, now, grace, record or {}, choice)
    return choice


def _matches(patterns: tuple[Pattern, ...], name: str) -> bool:
    return any(pattern.matches(name) for pattern in patterns)


def _choose(
    store: Store,
    repository: Repository,
    policy: Policy,
    now: int,
    grace: int,
    record: Record,
    choice: Choice,
) -> None:
    name = repository.name
    counted: dict[int, list[tuple[int, int, str]]] = defaultdict(list)
    for tag, link in repository.tags.items():
        about = [
            number
            for number, rule in enumerate(policy.rules)
            if _matches(rule.repositories, name) and _matches(rule.tags, tag)
        ]
        protects = [*policy.protect]
        for rule in policy.rules:
            if _matches(rule.repositories, name):
                protects += rule.protect
        if _matches(tuple(protects), tag):
            choice.guarded[name].add(tag)
            fate = Fate.PROTECTED
        elif _DIGEST_TAG.fullmatch(tag):
            fate = Fate.NAMES_DIGEST
        elif not about:
            fate = Fate.NO_RULE
        elif link.target is None:
            fate = Fate.DAMAGED
        else:
            rule = policy.rules[about[0]]
            if _matches(rule.keep, tag):
                fate = Fate.KEPT
            elif not rule.takes or (rule.drop and not _matches(rule.drop, tag)):
                fate = Fate.NOT_MEANT
            else:
                digest, set_at, until = record.get((name, tag), (None, 0, 0))
                migrated = digest == link.target and link.mtime <= until
                time: int | None = set_at if migrated else link.mtime
                if rule.newest_by == "created" and rule.needs_time:
                    made = created(store, link.target, now)
                    time = None if made == "unreadable" else time if made is None else int(made)
                if time is None:
                    fate = Fate.UNKNOWN_TIME
                else:
                    counted[about[0]].append((time, link.mtime, tag))
                    continue
        choice.fates[name, tag] = fate
    for number, tags in counted.items():
        rule = policy.rules[number]
        for place, (time, mtime, tag) in enumerate(sorted(tags, reverse=True), 1):
            if rule.keep_newest is not None and place <= rule.keep_newest:
                fate = Fate.NEWEST
            elif rule.keep_younger_than is not None and time >= now - rule.keep_younger_than:
                fate = Fate.YOUNGER
            elif mtime >= now - grace:
                fate = Fate.GRACE
            else:
                fate = Fate.GOES
                choice.dropped[name].add(tag)
            choice.fates[name, tag] = fate


def created(store: Store, digest: Digest, now: int) -> int | str | None:
    """The newest time of the images below a manifest; "unreadable" when one can't be told, None when none says."""
    seen: set[Digest] = set()
    waiting = [digest]
    times: list[int] = []
    while waiting:
        digest = waiting.pop()
        manifest = store.manifest(digest)
        if digest in seen or manifest is None:
            continue
        seen.add(digest)
        for edge in manifest.edges:
            if edge.kind is EdgeKind.MANIFEST:
                waiting.append(edge.target.digest)
            if edge.kind is EdgeKind.CONFIG:
                blob = store.blobs.get(edge.target.digest)
                if blob is None or not edge.target.digest.matches(blob.body):
                    return "unreadable"
                try:
                    document = json.loads(blob.body)
                    time = (datetime.fromisoformat(document["created"]) - _EPOCH) // _MICROSECOND
                except (ValueError, TypeError, KeyError):
                    continue
                if time >= 347_155_200_000_000 and time <= now + 86_400_000_000:  # from 1981 to tomorrow
                    times.append(time)
    return max(times, default=None)
