"""Retention and broken revisions in whole runs: offline, serving, and with clients in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from regstore.digest import Digest
from regstore.gc.plan import GcOptions
from regstore.gc.policy import BrokenScope, Policy
from regstore.gc.run import GcRunOptions
from regstore.layout import BlobKey, TagCurrentKey, encode, repository_prefix
from regstore.storage.base import Page
from tests.gc.scenes import Watch, both, collect, copy_of, model_storage, options, registry
from tests.gc.test_retention import Lines, generated, policies, tagged_registries, write_record
from tests.model.builder import Builder
from tests.model.gc_oracle import expected
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, GRACES, NOW, UPLOADS_OLDER_THAN
from tests.model.retention_oracle import Record, choose
from tests.model.store import ModelStore


def run_options(policy: Policy | None, *, offline: bool, grace: int = DAY, **plan: Any) -> GcRunOptions:
    base = options(offline=offline, grace=grace, delete_untagged=bool(plan.pop("delete_untagged", False)))
    return replace(base, plan=replace(base.plan, policy=policy, **plan))


@settings(generated, max_examples=10)
@given(tagged_registries(), policies(), st.sampled_from(GRACES), st.booleans())
def test_a_run_leaves_what_the_model_says(
    made: tuple[ModelStore, Record, Lines], policy: Policy, grace: int, offline: bool
) -> None:
    before, record, lines = made

    async def check() -> None:
        run = replace(
            run_options(policy, offline=offline, grace=grace), unmatched=True
        )  # a rule may match nothing here
        storage = model_storage(before)
        await write_record(storage, lines)
        wanted = expected(
            before,
            now=NOW,
            delete_untagged=run.plan.delete_untagged,
            grace=grace,
            uploads_older_than=UPLOADS_OLDER_THAN,
            consent=choose(before, policy, now=NOW, grace=grace, record=record).consent(),
        )
        report = await collect(storage, run)
        assert registry(storage.store) == before.without(wanted.dead)
        assert report.kept_back == 0 and report.healed.nothing and not report.failures
        assert report.tags == len(wanted.tag_currents)
        Watch(before).check(storage.store)

    asyncio.run(check())


class Client(ModelStorage):
    """Calls `act` once, just before the repository is listed alone: after the plan, before anything goes."""

    act: Callable[[ModelStore], None] | None = None
    repository = "team/app"

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        if self.act is not None and prefix.startswith(repository_prefix(self.repository)):
            act, self.act = self.act, None
            act(self.store)
        async for page in super().list(prefix, start_after=start_after):
            yield page


def pushed(b: Builder, tag: str, age: int) -> Digest:
    b.mtime = NOW - age
    digest = b.image(b.blob(b"config " + tag.encode()), [b.blob(b"layer " + tag.encode())])
    b.push("team/app", digest, tag)
    return digest


def client(b: Builder, act: Callable[[ModelStore], None] | None = None) -> Client:
    storage = Client(copy_of(b.store), now=NOW)
    storage.act = act
    return storage


def tags_of(store: ModelStore) -> set[str]:
    prefix = "docker/registry/v2/repositories/team/app/_manifests/tags/"
    return {key[len(prefix) :].split("/")[0] for key in store if key.startswith(prefix) and "/current/" in key}


NEWEST_TWO = Policy.parse("delete_untagged = true\n[[rule]]\nkeep_newest = 2\nnewest_by = 'created'")


@both
async def test_tags_go_with_what_they_reach(offline: bool) -> None:
    b = Builder()
    for age in 50, 40, 30:
        pushed(b, f"v{age}", age * DAY)
    storage = client(b)
    report = await collect(storage, run_options(NEWEST_TWO, offline=offline))
    assert tags_of(storage.store) == {"v40", "v30"}
    assert (report.tags, report.revisions, report.layer_links, report.blobs) == (1, 1, 2, 3)


@both
async def test_without_delete_untagged_only_tags_go(offline: bool) -> None:
    b = Builder()
    for age in 50, 40, 30:
        pushed(b, f"v{age}", age * DAY)
    storage = client(b)
    report = await collect(storage, run_options(replace(NEWEST_TWO, delete_untagged=False), offline=offline))
    assert tags_of(storage.store) == {"v40", "v30"}
    assert (report.tags, report.revisions, report.layer_links, report.blobs) == (1, 0, 0, 0)


async def test_a_push_meanwhile_takes_no_more_tags_with_it() -> None:
    b = Builder()
    for age in 50, 40, 30:
        pushed(b, f"v{age}", age * DAY)

    def push(store: ModelStore) -> None:
        other = Builder()
        other.store = store
        pushed(other, "new", 0)

    storage = client(b, push)
    report = await collect(storage, run_options(NEWEST_TWO, offline=False, grace=0))
    assert tags_of(storage.store) == {"v40", "v30", "new"}
    assert report.tags == 1


async def test_a_tag_deleted_meanwhile_lets_another_stay() -> None:
    b = Builder()
    for age in 50, 40, 30:
        pushed(b, f"v{age}", age * DAY)

    def delete(store: ModelStore) -> None:
        del store.objects[encode(TagCurrentKey("team/app", "v30"))]

    storage = client(b, delete)
    before = copy_of(b.store)
    report = await collect(storage, run_options(NEWEST_TWO, offline=False))
    assert tags_of(storage.store) == {"v50", "v40"}
    assert report.tags == 0 and report.kept_back
    Watch(before).check(storage.store)


async def test_a_tag_set_again_meanwhile_stays_with_all_it_names() -> None:
    b = Builder()
    for age in 50, 40, 30:
        pushed(b, f"v{age}", age * DAY)
    before = copy_of(b.store)

    def push_again(store: ModelStore) -> None:
        other = Builder()
        other.store = store
        pushed(other, "v50", 0)

    storage = client(b, push_again)
    await collect(storage, run_options(NEWEST_TWO, offline=False, grace=0))
    assert tags_of(storage.store) == {"v50", "v40", "v30"}
    Watch(before).check(storage.store)


@both
async def test_a_tag_that_will_not_go_keeps_its_blobs(offline: bool) -> None:
    b = Builder()
    for age in 50, 40, 30:
        pushed(b, f"v{age}", age * DAY)
    before = copy_of(b.store)
    stubborn = encode(TagCurrentKey("team/app", "v50"))

    class Stubborn(Client):
        async def delete_many(self, keys):  # type: ignore[no-untyped-def]
            from regstore.errors import StorageError

            outcomes = await super().delete_many([key for key in keys if key != stubborn])
            return outcomes | ({stubborn: StorageError("no")} if stubborn in keys else {})

    storage = Stubborn(copy_of(b.store), now=NOW)
    report = await collect(storage, run_options(NEWEST_TWO, offline=offline))
    assert report.failures
    assert stubborn in storage.store
    Watch(before).check(storage.store)


@both
async def test_broken_revisions_go(offline: bool) -> None:
    b = Builder()
    pushed(b, "good", 30 * DAY)
    lost = pushed(b, "lost", 30 * DAY)
    del b.store.objects[encode(BlobKey(lost))]
    scopes = (BrokenScope("team/app", lost),)
    storage = client(b)
    report = await collect(storage, run_options(None, offline=offline))
    assert (report.tags, report.revisions, report.blobs) == (0, 0, 0)
    report = await collect(storage, run_options(None, offline=offline, drop_broken=scopes))
    assert tags_of(storage.store) == {"good"}
    assert (report.tags, report.revisions, report.layer_links, report.blobs) == (1, 1, 2, 2)
    assert report.healed.nothing
    again = await collect(storage, run_options(None, offline=offline, drop_broken=scopes))
    assert again.healed.nothing and not again.tags


async def test_a_broken_revision_that_is_pushed_again_meanwhile_stays() -> None:
    b = Builder()
    lost = pushed(b, "lost", 30 * DAY)
    body = b.store.objects.pop(encode(BlobKey(lost)))[0]

    def push_again(store: ModelStore) -> None:
        other = Builder()
        other.store = store
        assert pushed(other, "lost", 0) == lost
        assert store.objects[encode(BlobKey(lost))][0] == body

    storage = client(b, push_again)
    run = run_options(None, offline=False, grace=0, drop_broken=(BrokenScope(),))
    report = await collect(storage, run)
    assert (report.tags, report.revisions, report.layer_links, report.blobs) == (0, 0, 0, 0)
    assert tags_of(storage.store) == {"lost"}
    assert all(encode(BlobKey(Digest.of(content))) in storage.store for content in (b"config lost", b"layer lost"))


def test_what_a_policy_says_of_untagged_manifests_holds_for_the_plan() -> None:
    assert GcOptions(policy=NEWEST_TWO).delete_untagged
    assert not GcOptions(policy=replace(NEWEST_TWO, delete_untagged=False)).delete_untagged
