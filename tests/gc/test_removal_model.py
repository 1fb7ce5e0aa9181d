"""Removal against a naive model over sets, for random registries and random names: what remains is exactly the model's,
and the way back gives the state before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from regstore.digest import Digest
from regstore.errors import InvalidManifest, Refused
from regstore.gc.removal.named import Named
from regstore.layout import (
    REPOSITORIES,
    BlobKey,
    LayerLinkKey,
    RevisionLinkKey,
    SignatureLinkKey,
    TagCurrentKey,
    TagIndexKey,
    UnknownKey,
    decode,
    encode,
    parse_link,
)
from regstore.manifest import Edge, EdgeKind, parse_manifest
from regstore.reference import is_name, is_tag
from regstore.tagging import UNDER_WAY
from tests.examples import examples
from tests.gc.scenes import model_storage, registry
from tests.gc.test_removal import remove_named, undo
from tests.model.random_registry import NOW, example_registry, registries
from tests.model.store import ModelStore

LINK_MAX = 1024


@dataclass
class Repository:
    """Its keys, and what they say. target None: a link that names nothing."""

    tags: dict[str, Digest | None] = field(default_factory=dict)
    history: dict[str, set[Digest]] = field(default_factory=dict)
    revisions: dict[Digest, Digest | None] = field(default_factory=dict)
    signed: set[Digest] = field(default_factory=set)
    layers: dict[Digest, Digest | None] = field(default_factory=dict)
    unknown: bool = False


def read(store: ModelStore, name: str) -> Repository:
    found = Repository()
    for key, (body, _) in store.objects.items():
        place = decode(key)
        target = parse_link(body) if len(body) <= LINK_MAX else None
        if isinstance(place, UnknownKey):
            found.unknown |= key.startswith(f"{REPOSITORIES}{name}/_manifests/")
        elif getattr(place, "name", None) != name:
            continue
        elif isinstance(place, TagCurrentKey):
            found.tags[place.tag] = target
        elif isinstance(place, TagIndexKey):
            found.history.setdefault(place.tag, set()).add(place.digest)
        elif isinstance(place, RevisionLinkKey):
            found.revisions[place.digest] = target
        elif isinstance(place, SignatureLinkKey):
            found.signed.add(place.revision)
        elif isinstance(place, LayerLinkKey):
            found.layers[place.digest] = target
    return found


class Manifests:
    def __init__(self, store: ModelStore) -> None:
        self._store = store

    def edges(self, digest: Digest) -> list[Edge] | str:
        """Or why there are none: "missing", "bad"."""
        body = self._store.body(encode(BlobKey(digest)))
        if body is None:
            return "missing"
        if not digest.matches(body):
            return "bad"
        try:
            return list(parse_manifest(body).edges)
        except InvalidManifest:
            return "bad"


def must_stay(manifests: Manifests, repository: Repository, tags: set[str], revisions: set[Digest]) -> bool:
    """Whether anything that is left needs one of these revisions, or may."""
    if not revisions:
        return False
    left = {digest: target for digest, target in repository.revisions.items() if digest not in revisions}
    legacy = {each for each in repository.signed if each in repository.layers and each not in repository.revisions}
    linked = left.keys() | (legacy - revisions)
    reached: dict[Digest, bool] = {}
    pending: list[tuple[Digest, bool]] = [(each, True) for each in linked]
    pending += [(target, True) for target in left.values() if target is not None]
    for tag, target in repository.tags.items():
        if tag in tags:
            continue
        if target is None:
            return True
        pending.append((target, True))
    while pending:
        digest, expand = pending.pop()
        expand = expand or digest in left
        if reached.get(digest, -1) >= expand:
            continue
        reached[digest] = expand
        pending += [(alias, False) for alias in (repository.layers.get(digest),) if alias not in (None, digest)]
        for each in left:
            edges = manifests.edges(each)
            if not isinstance(edges, str) and any(
                edge.kind is EdgeKind.SUBJECT and edge.target.digest == digest for edge in edges
            ):
                pending.append((each, True))
        if expand:
            edges = manifests.edges(digest)
            if isinstance(edges, str):
                if edges == "bad" or digest in linked:
                    return True
            else:
                pending += [
                    (edge.target.digest, edge.kind is EdgeKind.MANIFEST)
                    for edge in edges
                    if edge.kind is not EdgeKind.SUBJECT
                ]
    return repository.unknown or not revisions.isdisjoint(reached)


def expected(store: ModelStore, named: Named) -> set[str] | None:
    """The keys that go; None where all is refused."""
    manifests = Manifests(store)
    gone: set[str] = set()
    for name in named.names:
        repository = read(store, name)
        tags = {tag for where, tag in named.tags if where == name}
        revisions = {digest for where, digest in named.revisions if where == name}
        if name in named.repositories:
            tags |= repository.tags.keys() | repository.history.keys()
            revisions |= repository.revisions.keys() | repository.signed
        else:
            tags |= {tag for tag, target in repository.tags.items() if target in revisions}
            if must_stay(manifests, repository, tags, revisions):
                return None
        for key, (body, _) in store.objects.items():
            place = decode(key)
            if getattr(place, "name", None) != name:
                continue
            if (
                (isinstance(place, TagCurrentKey | TagIndexKey) and place.tag in tags)
                or (isinstance(place, RevisionLinkKey) and place.digest in revisions)
                or (isinstance(place, SignatureLinkKey) and place.revision in revisions)
            ):
                if len(body) > LINK_MAX and parse_link(body) is None:
                    return None
                gone.add(key)
    return gone


def being_pushed(store: ModelStore) -> set[str]:
    """Repositories with half a push in them: of these, something may stay."""
    found = set()
    for key, (_, mtime) in store.objects.items():
        place = decode(key)
        if isinstance(place, TagIndexKey) and mtime >= NOW - UNDER_WAY:
            current = store.objects.get(encode(TagCurrentKey(place.name, place.tag)))
            if current is not None and mtime > current[1]:
                found.add(place.name)
    return found


def nameable(store: ModelStore) -> Iterator[tuple[str, str]]:
    """(kind, word) of all that one could name."""
    for key in store:
        place = decode(key)
        name = getattr(place, "name", "")
        if not is_name(name):
            continue
        if isinstance(place, TagCurrentKey | TagIndexKey) and is_tag(place.tag):
            yield "tag", f"{name}:{place.tag}"
        if isinstance(place, RevisionLinkKey):
            yield "revision", f"{name}@{place.digest}"
        if isinstance(place, SignatureLinkKey):
            yield "revision", f"{name}@{place.revision}"
        if isinstance(place, TagCurrentKey | TagIndexKey | RevisionLinkKey | SignatureLinkKey):
            yield "repository", name


@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    print_blob=True,
)
@given(store=registries(disk=False), data=st.data())
def test_it_takes_what_the_model_takes(store: ModelStore, data: st.DataObject) -> None:
    check(store, data)


@settings(max_examples=examples(15), deadline=None, print_blob=True)
@given(data=st.data())
def test_of_the_example(data: st.DataObject) -> None:
    check(example_registry(), data)


def check(store: ModelStore, data: st.DataObject) -> None:
    by_kind: dict[str, set[str]] = {}
    for kind, word in nameable(store):
        by_kind.setdefault(kind, set()).add(word)
    if not by_kind:
        return
    kinds = data.draw(st.lists(st.sampled_from(sorted(by_kind)), min_size=1, max_size=4))
    words = [data.draw(st.sampled_from(sorted(by_kind[kind]))) for kind in kinds]
    named = Named.parse(words, recursive=True)
    wanted = expected(store, named)
    event("refused" if wanted is None else f"{len(kinds)} names")
    storage = model_storage(store)

    async def act() -> None:
        before = registry(storage.store).bodies()
        try:
            report = await remove_named(storage, named)
        except Refused:
            assert wanted is None, "refused"
            assert registry(storage.store).bodies() == before
            return
        assert wanted is not None, "not refused"
        assert not report.failures and not report.given_back
        after = registry(storage.store).bodies()
        if report.kept_back:
            assert being_pushed(store) & set(named.names)
            assert before.keys() - after.keys() < wanted
        else:
            assert before.keys() - after.keys() == wanted
        assert after.items() <= before.items()
        if wanted:
            await undo(storage, report.run)
        assert registry(storage.store).bodies() == before

    asyncio.run(act())
