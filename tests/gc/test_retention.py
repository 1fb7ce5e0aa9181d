"""Retention in SQL is what the naive model says, tag by tag; and what the plan makes of it, broken revisions too."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regstore.digest import Digest
from regstore.gc.created import created_of, read_created
from regstore.gc.explain import explain_tags, iter_dropped
from regstore.gc.plan import GcOptions, plan_gc
from regstore.gc.policy import BrokenScope, Pattern, Policy, Rule
from regstore.gc.retention import Fate
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import ScanOptions, scan
from regstore.inventory.tag_times import load_record
from regstore.layout import BlobKey, TagCurrentKey, decode, encode
from regstore.state.tag_record import TagLine, write_tags
from tests.examples import examples
from tests.gc.test_plan_against_oracle import compare
from tests.model.builder import Builder
from tests.model.gc_oracle import expected
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, GRACES, HOUR, NOW, UPLOADS_OLDER_THAN, registries
from tests.model.retention_oracle import Record, choose
from tests.model.store import ModelStore

SCAN = ScanOptions(cache_dir=None, concurrency=4)

generated = settings(
    max_examples=examples(10),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)

MINUTE = 60 * 1_000_000
REPOSITORY_PATTERNS = ("**", "a/**", "a", "*", "team/*", "**/b", "a-?", "[a-b]")
TAG_PATTERNS = ("*", "latest", "1*", "pr-*", "/[0-9]+/", "/pr-[0-4]/", "v?", "[!v]*", "sha256-*")


def patterns(texts: tuple[str, ...], parse: object) -> st.SearchStrategy[tuple[Pattern, ...]]:
    return st.lists(st.sampled_from(texts), max_size=2).map(lambda chosen: tuple(map(parse, chosen)))  # type: ignore


repositories_of = patterns(REPOSITORY_PATTERNS, Pattern.repository)
tags_of = patterns(TAG_PATTERNS, Pattern.tag)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    rules = (
        Rule(
            name=f"rule {number}",
            repositories=draw(repositories_of) or (Pattern.repository("**"),),
            tags=draw(tags_of) or (Pattern.tag("*"),),
            keep_newest=draw(st.one_of(st.none(), st.integers(1, 3))),
            keep_younger_than=draw(st.sampled_from((None, HOUR, DAY, 7 * DAY))),
            keep=draw(tags_of),
            drop=draw(tags_of),
            protect=draw(tags_of),
            newest_by=draw(st.sampled_from(("tag", "created"))),
        )
        for number in range(draw(st.integers(1, 3)))
    )
    return Policy(rules=tuple(rules), protect=draw(tags_of), delete_untagged=draw(st.booleans()))


#: What configs say of their creation: good times, none, and what means none.
CREATED = (
    None,
    "1970-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "2300-01-01T00:00:00Z",
    "yesterday",
    "2023-11-14T22:13:20Z",  # NOW
    "2023-11-14T22:13:20.000001Z",
    "2023-11-14T21:13:20+00:00",
    "2023-11-07T22:13:20Z",
    "2020-01-01T00:00:00.123456789Z",
)
TAGS = ("latest", "1", "1.0", "2", "pr-1", "pr-2", "pr-7", "v1", "v2", "sha256-{}", "sha256-{}.sig", "x")
_config = st.tuples(st.sampled_from(CREATED), st.integers(0, 2))
_times = st.sampled_from(
    (NOW, NOW - HOUR, NOW - HOUR - 1, NOW - DAY, NOW - 7 * DAY, NOW - 7 * DAY - 1, NOW - 30 * DAY)
)
_push = st.tuples(
    st.sampled_from(("a", "a/b", "a-b", "team/x")), st.sampled_from(TAGS), st.integers(0, 9), _times, st.booleans()
)


#: What migrate wrote: the line, when its file was last written, and whether that was after the tag was set.
Lines = list[tuple[TagLine, int, bool]]


@st.composite
def tagged_registries(draw: st.DrawFn) -> tuple[ModelStore, Record, Lines]:
    """Many tags with times of all kinds, on images, indexes and what is missing."""
    b = Builder(NOW - 60 * DAY)
    images = []
    for number, (created, fault) in enumerate(draw(st.lists(_config, min_size=1, max_size=6))):
        document = {"number": number, **({"created": created} if created else {})}
        config = b.blob(orjson.dumps(document))
        images.append(b.image(config, [b.blob(b"layer %d" % number)]))
        if draw(st.integers(0, 5)) == 5:
            if fault:
                del b.store.objects[encode(BlobKey(config))]
            else:
                b.put(BlobKey(config), b"rotten")
    indexes = [
        b.index([images[n % len(images)] for n in numbers])
        for numbers in draw(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), max_size=3))
    ]
    manifests = images + indexes
    record: dict[tuple[str, str], tuple[Digest, int, int]] = {}
    lines = []
    for name, template, number, time, recorded in draw(st.lists(_push, min_size=1, max_size=20)):
        digest = manifests[number % len(manifests)]
        tag = template.format(manifests[(number + 1) % len(manifests)].encoded)
        b.mtime = time
        b.push(name, digest, tag)
        if recorded:
            was = draw(st.sampled_from((digest, manifests[0])))
            set_at = time - draw(st.sampled_from((0, HOUR, 30 * DAY)))
            done = draw(st.booleans())
            written = time + draw(st.sampled_from((0, 1, -1, -10 * MINUTE, -10 * MINUTE - 1, -HOUR)))
            record[name, tag] = was, set_at, written if done else written + 10 * MINUTE
            line = TagLine(source="s3://old", origin=name, repository=name, tag=tag, digest=was, time=set_at)
            lines.append((line, written, done))
    if draw(st.integers(0, 3)) == 3:
        keys = [key for key in b.store if isinstance(decode(key), TagCurrentKey)]
        b.put(keys[0], b"", NOW - 30 * DAY)
    return b.store, record, lines


async def write_record(storage: ModelStorage, lines: Lines) -> None:
    """A file each: the later line of a tag holds."""
    for number, (line, storage.clock, done) in enumerate(lines):
        await write_tags(storage, "0000000001-aaaaaaaa", number, [line], done=done)
    storage.clock = NOW


async def read_times(inventory: Inventory, storage: ModelStorage, policy: Policy) -> None:
    await load_record(storage, inventory)
    await read_created(storage, inventory, policy, SCAN)


@generated
@given(tagged_registries(), policies(), st.sampled_from(GRACES), st.booleans())
def test_fates_of_tags(
    made: tuple[ModelStore, Record, Lines], policy: Policy, grace: int, delete_untagged: bool
) -> None:
    store, record, lines = made
    asyncio.run(check(store, policy, grace, delete_untagged, record=record, lines=lines))


SCOPES = st.sampled_from(((), (), (BrokenScope(),), (BrokenScope("a"),), (BrokenScope("b"), BrokenScope("a/b"))))


@generated
@given(registries(disk=False), policies(), st.sampled_from(GRACES), st.booleans(), SCOPES)
def test_whole_plans(
    store: ModelStore,
    policy: Policy,
    grace: int,
    delete_untagged: bool,
    scopes: tuple[BrokenScope, ...],
) -> None:
    asyncio.run(check(store, policy, grace, delete_untagged, scopes=scopes))


@generated
@given(registries(disk=False), st.sampled_from(GRACES), st.booleans())
def test_broken_revisions_alone(store: ModelStore, grace: int, delete_untagged: bool) -> None:
    asyncio.run(check(store, None, grace, delete_untagged, scopes=(BrokenScope(),)))


async def check(
    store: ModelStore,
    policy: Policy | None,
    grace: int,
    delete_untagged: bool,
    *,
    record: Record | None = None,
    lines: Lines | None = None,
    scopes: tuple[BrokenScope, ...] = (),
) -> None:
    options = GcOptions(
        delete_untagged=delete_untagged,
        grace=grace,
        uploads_older_than=UPLOADS_OLDER_THAN,
        policy=policy,
        drop_broken=scopes,
    )
    storage = ModelStorage(ModelStore(dict(store.objects)), now=NOW)
    await write_record(storage, lines or [])
    choice = choose(store, policy or Policy(), now=NOW, grace=grace, record=record)
    wanted = expected(
        store,
        now=NOW,
        delete_untagged=options.delete_untagged,
        grace=grace,
        uploads_older_than=UPLOADS_OLDER_THAN,
        consent=choice.consent(scopes),
    )
    async with scan(storage, SCAN) as inventory:
        if policy is not None:
            await read_times(inventory, storage, policy)
        found = plan_gc(inventory, options, now=NOW)
        fates = {
            (name, tag): Fate(fate)
            for name, tag, fate in inventory.all(
                "select r.name, f.name, f.fate from gc_tag_fate f join repository r on r.id = f.repository"
            )
        }
        if policy is not None:
            assert fates == choice.fates
        compare(store, inventory, found, wanted)
        dropped = {(tag.repository, tag.tag) for tag in iter_dropped(inventory)}
        assert dropped == {
            (name, tag) for name, tags in choice.dropped.items() for tag in tags if name not in wanted.protected
        }
        assert sum(rule.dropped for rule in found.rules) == len(dropped)
        dead = set(wanted.tag_currents)
        for (name,) in inventory.all("select distinct r.name from tag t join repository r on r.id = t.repository"):
            for reason in explain_tags(inventory, options, name):
                assert reason.goes == (encode(TagCurrentKey(name, reason.tag)) in dead)
                assert reason.reason


# By hand


def at(days: float) -> int:
    return NOW - int(days * DAY)


def versions(ages: dict[str, float], *, repository: str = "team/app") -> Builder:
    b = Builder(at(60))
    for tag, age in ages.items():
        b.mtime = at(age)
        image = b.image(b.blob(tag.encode()), [b.blob(b"layer " + tag.encode())])
        b.push(repository, image, tag)
    return b


async def dropped_of(store: ModelStore, policy: Policy, *, grace: int = DAY) -> set[str]:
    storage = ModelStorage(store, now=NOW)
    options = GcOptions(policy=policy, grace=grace)
    async with scan(storage, SCAN) as inventory:
        await read_times(inventory, storage, policy)
        plan_gc(inventory, options, now=NOW)
        return {f"{tag.repository}:{tag.tag}" for tag in iter_dropped(inventory)}


FIVE = {"v1": 50.0, "v2": 40.0, "v3": 30.0, "v4": 20.0, "latest": 10.0}


@pytest.mark.parametrize(
    ("rules", "gone"),
    [
        ("keep_newest = 2", {"v1", "v2", "v3"}),
        ("keep_newest = 2\nkeep = ['v1']", {"v2", "v3"}),
        ("keep_younger_than = '30d'", {"v1", "v2"}),
        ("keep_newest = 1\nkeep_younger_than = '30d'", {"v1", "v2"}),
        ("drop = ['v*']", {"v1", "v2", "v3", "v4"}),
        ("drop = ['v*']\nkeep_younger_than = '30d'", {"v1", "v2"}),
        ("drop = ['v*']\nkeep_newest = 1", {"v1", "v2", "v3"}),
        ("drop = ['/v[12]/']", {"v1", "v2"}),
        ("drop = ['*']\nprotect = ['v?']", {"latest"}),
        ("keep = ['v1']", set()),
        ("tags = ['v*']\nkeep_newest = 1", {"v1", "v2", "v3"}),
        ("keep_newest = 1\nrepositories = ['other/**']", set()),
        ("repositories = ['team/**']\n[[rule]]\nkeep_newest = 1", set()),
        ("tags = ['v1']\n[[rule]]\nkeep_newest = 2", {"v2", "v3"}),
    ],
)
async def test_rules(rules: str, gone: set[str]) -> None:
    policy = Policy.parse(f"[[rule]]\n{rules}")
    assert await dropped_of(versions(FIVE).store, policy) == {f"team/app:{tag}" for tag in gone}


async def test_nothing_goes_from_a_protected_repository() -> None:
    b = versions(FIVE)
    lost = b.image(b.blob(b"x"), [])
    b.push("team/app", lost)
    del b.store.objects[encode(BlobKey(lost))]
    assert await dropped_of(b.store, Policy.parse("[[rule]]\ndrop = ['*']")) == set()


async def test_the_grace_holds_whatever_the_record_says() -> None:
    b = versions({"old": 20, "fresh": 0.5})
    line = TagLine(
        source="s3://x",
        origin="team/app",
        repository="team/app",
        tag="fresh",
        digest=Digest.parse(b.store.objects[encode(TagCurrentKey("team/app", "fresh"))][0].decode()),
        time=at(300),
    )
    storage = ModelStorage(b.store, now=NOW)
    await write_tags(storage, "00000000000000000001-aaaaaaaa", 0, [line], done=True)
    policy = Policy.parse("[[rule]]\nkeep_newest = 1")
    assert await dropped_of(b.store, policy) == set()  # "old" is the newest now, "fresh" too young
    assert await dropped_of(b.store, policy, grace=0) == {"team/app:fresh"}


@pytest.mark.parametrize(
    ("set_again", "gone"), [(None, {"a:stable"}), (2, set())], ids=["untouched", "pushed again"]
)
async def test_a_tag_pushed_again_since_it_was_migrated_is_as_old_as_that_push(
    set_again: int | None, gone: set[str]
) -> None:
    """By the same digest: nothing but the link's own time tells."""
    b = versions({"stable": 90}, repository="a")
    image = Digest.parse(b.store.objects[encode(TagCurrentKey("a", "stable"))][0].decode())
    line = TagLine(source="s3://x", origin="a", repository="a", tag="stable", digest=image, time=at(400))
    storage = ModelStorage(b.store, now=NOW)
    await write_record(storage, [(line, at(90), True)])
    if set_again is not None:
        b.mtime = at(set_again)
        b.tag("a", "stable", image)
    assert await dropped_of(b.store, Policy.parse("[[rule]]\nkeep_younger_than = '30d'")) == gone


async def test_a_config_that_cannot_be_read_keeps_its_tag_and_takes_no_place() -> None:
    b = Builder(at(60))
    for tag, year in {"a": 2019, "b": 2020, "c": 2021}.items():
        config = b.blob(orjson.dumps({"created": f"{year}-01-01T00:00:00Z"}))
        b.push("x", b.image(config, []), tag)
        if tag == "c":
            del b.store.objects[encode(BlobKey(config))]
    policy = Policy.parse("[[rule]]\nkeep_newest = 1\nnewest_by = 'created'")
    assert await dropped_of(b.store, policy) == {"x:a"}
    options = GcOptions(policy=policy)
    async with scan(ModelStorage(b.store, now=NOW), SCAN) as inventory:  # nothing was read: all stay
        found = plan_gc(inventory, options, now=NOW)
        assert not list(iter_dropped(inventory))
        assert found.rules[0].unknown_times == 3


async def test_configs_are_read_once(tmp_path: Path) -> None:
    b = versions(FIVE)
    remembering = ScanOptions(cache_dir=tmp_path, concurrency=4)
    policy = Policy.parse("[[rule]]\nkeep_newest = 1\nnewest_by = 'created'")
    reads = []
    for _ in range(2):
        storage = ModelStorage(b.store, now=NOW)
        async with scan(storage, remembering) as inventory:
            before = storage.counters.total
            await read_created(storage, inventory, policy, remembering)
            reads.append(storage.counters.total - before)
    assert reads == [5, 0]


async def test_broken_revision_that_an_index_needs_still_protects() -> None:
    b = Builder(at(60))
    child = b.image(b.blob(b"c"), [])
    b.push("x", b.index([child]), "1")
    other = b.image(b.blob(b"d"), [])
    b.push("x", other, "2")
    del b.store.objects[encode(BlobKey(child))]
    del b.store.objects[encode(BlobKey(other))]
    for scope in BrokenScope(), BrokenScope("x"), BrokenScope("x", other), BrokenScope("y"):
        async with scan(ModelStorage(b.store, now=NOW), SCAN) as inventory:
            found = plan_gc(inventory, GcOptions(drop_broken=(scope,)), now=NOW)
            assert [one.name for one in found.protected] == ["x"]
            assert found.nothing_to_do
            assert found.broken == ()


async def test_broken_revisions_go_with_their_tags() -> None:
    b = Builder(at(60))
    good = b.image(b.blob(b"c"), [b.blob(b"shared")])
    b.push("x", good, "good")
    lost = b.image(b.blob(b"d"), [b.blob(b"shared"), b.blob(b"alone")])
    b.push("x", lost, "lost")
    b.push("x", lost, "lost2")
    del b.store.objects[encode(BlobKey(lost))]
    storage = ModelStorage(b.store, now=NOW)
    async with scan(storage, SCAN) as inventory:
        found = plan_gc(inventory, GcOptions(drop_broken=(BrokenScope("x", lost),)), now=NOW)
        assert [(one.repository, one.digest, one.tags) for one in found.broken] == [
            ("x", str(lost), ("lost", "lost2"))
        ]
        assert not found.protected
        dead = {Digest.from_raw(bytes(raw)) for (raw,) in inventory.all("select digest from gc_dead_blob")}
        assert dead == {Digest.of(b"d"), Digest.of(b"alone")}
        assert found.tags.dead == 2
        # a tag that never goes keeps what it points at, and that protects
        guarded = GcOptions(drop_broken=(BrokenScope(),), policy=Policy(protect=(Pattern.tag("lost2"),)))
        found = plan_gc(inventory, guarded, now=NOW)
        assert found.protected
        assert found.nothing_to_do


@pytest.mark.parametrize(
    ("config", "created"),
    [
        (b'{"created": "2024-03-01T12:00:00Z"}', datetime(2024, 3, 1, 12, tzinfo=UTC)),
        (b'{"created": "2024-03-01T12:00:00"}', None),
        (b'{"created": 5}', None),
        (b"[]", None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_created_of(config: bytes, created: datetime | None) -> None:
    assert created_of(config) == (None if created is None else int(created.timestamp() * 1_000_000))


async def test_a_digest_tag_that_is_cut_stays_by_itself_and_says_so() -> None:
    """What it names is not known for sure, so it does not go with that."""
    b = versions({"v1": 50.0})
    image = b.by_sha512(b.image(b.blob(b"gone"), []))
    cut = f"sha512-{image.encoded[:64]}.sig"
    b.push("team/app", image)
    b.push("team/app", b.image(b.blob(b"cosign"), []), cut)
    options = GcOptions(policy=Policy.parse("delete_untagged = true\n[[rule]]\ndrop = ['*']"), grace=DAY)
    async with scan(ModelStorage(b.store, now=NOW), SCAN) as inventory:
        plan_gc(inventory, options, now=NOW)
        (reason,) = explain_tags(inventory, options, "team/app", cut)
    assert not reason.goes
    assert reason.reason.startswith("names a digest that is cut: it stays")
