"""A store that shows much less than the last run left in it, with no run of ours having taken it."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from regstore.errors import Refused, StorageError
from regstore.gc.caches import NoCache
from regstore.gc.plan import GcOptions
from regstore.gc.policy import Pattern, Policy
from regstore.gc.report import GcReport
from regstore.gc.restore import RestoreOptions, apply_restore, plan_restore
from regstore.gc.run import GcRunOptions
from regstore.gc.trash import Emptied, EmptyOptions, empty_trash
from regstore.layout import COUNTS, PREFIX, REPOSITORIES, TagCurrentKey, decode
from regstore.state.counts import Counts, read_counts, write_counts
from regstore.state.lock import break_locks, hold_lock
from regstore.storage.base import Storage
from regstore.storage.disk import DiskStorage
from regstore.testing.faulty import FaultyStorage, died
from tests.gc.scenes import collect, collect_again, look, options
from tests.gc.test_removal import remove
from tests.model.builder import Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore

RUN = options(offline=True, delete_untagged=False)


def three_repositories() -> ModelStore:
    b = Builder(NOW - 30 * DAY)
    shared = b.blob(b"shared")
    for name in ("team/app", "team/app/nested", "other"):
        for tag in ("v1", "v2"):
            b.push(name, b.image(b.blob(f"{name} {tag}".encode()), [shared]), tag)
    return b.store


@pytest.fixture(params=["disk", "like S3"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    """With three repositories of two tags each, and known to a run."""
    store = three_repositories()
    if request.param == "disk":
        store.write_folder(tmp_path)
    opened = DiskStorage(tmp_path) if request.param == "disk" else ModelStorage(store, now=NOW)
    assert (await collect(opened, RUN)).nothing_went
    yield opened


async def lose(storage: Storage, prefix: str) -> dict[str, bytes]:
    """As an unmounted folder, or a deleted prefix."""
    keys = [key async for page in storage.list(prefix) for key in page.keys]
    assert keys
    lost = {key: await storage.get(key) for key in keys}
    await storage.delete_many(keys)
    return lost


async def snapshot(storage: Storage) -> dict[str, bytes]:
    return {key: await storage.get(key) async for page in storage.list(PREFIX) for key in page.keys}


async def test_a_repository_that_is_not_mounted_any_more(storage: Storage) -> None:
    lost = await lose(storage, f"{REPOSITORIES}team/app/_")
    before = await snapshot(storage)
    for attempt in (look, collect):
        with pytest.raises(
            Refused,
            match=r"team/app \(2 tags\) had tags at the last run and has none now; no run of regstore took them\. If a "
            r"folder is not mounted, .* say --allow-gone team/app once",
        ):
            await attempt(storage, RUN)
    assert await snapshot(storage) == before
    for key, body in lost.items():
        await storage.put(key, body)
    await collect(storage, RUN)


async def test_a_repository_without_tags_that_is_not_mounted_any_more() -> None:
    """As OpenShift's are, and those that are deployed by digest."""
    store = three_repositories()
    b = Builder(NOW - 30 * DAY)
    b.push("stream/a", b.image(b.blob(b"by digest")))
    b.push("stream/b", b.image(b.blob(b"by digest, too")))
    store.objects.update(b.store.objects)
    storage = ModelStorage(store, now=NOW)
    await collect(storage, RUN)
    lost = await lose(storage, f"{REPOSITORIES}stream/a/")
    before = await snapshot(storage)
    with pytest.raises(
        Refused, match=r"^model: stream/a \(1 revision\) had revisions and no tag .* --allow-gone stream/a "
    ):
        await collect(storage, RUN)
    assert await snapshot(storage) == before
    for key, body in lost.items():
        await storage.put(key, body)
    # What a run of ours takes is no loss.
    await collect(storage, options(offline=True))
    assert not [key async for page in storage.list(f"{REPOSITORIES}stream/b") for key in page.keys]
    await collect(storage, RUN)


async def test_a_run_that_was_undone_took_nothing() -> None:
    storage = ModelStorage(three_repositories(), now=NOW)
    await collect(storage, RUN)
    storage.clock += DAY
    run = replace(RUN, plan=GcOptions(policy=Policy.parse('[[rule]]\nrepositories = ["other"]\ndrop = ["**"]')))
    known = await read_counts(storage)
    assert known is not None
    await collect(storage, run)
    await write_counts(storage, known)  # as after another command's run, such as migrate --delete
    async with hold_lock(storage, command="trash restore") as lock:
        plan = await plan_restore(storage, RestoreOptions(concurrency=1))
        assert (await apply_restore(storage, plan, lock, concurrency=1)).links
    await lose(storage, f"{REPOSITORIES}other/")
    with pytest.raises(Refused, match=r"other \(2 tags\) had tags"):
        await collect(storage, RUN)


async def test_the_yes_to_a_repository_that_clients_deleted_is_remembered(storage: Storage) -> None:
    """A client's DELETE of every manifest leaves the layer links."""
    await lose(storage, f"{REPOSITORIES}other/_manifests/")
    with pytest.raises(Refused, match=r"^\S+: other \(2 tags\) had tags"):
        await collect(storage, replace(RUN, allow_gone=(Pattern.repository("team/**"),)))
    report = await collect(storage, replace(RUN, allow_gone=(Pattern.repository("oth*"),)))
    assert report.blobs == 4  # its manifests and configs
    await collect(storage, RUN)


async def test_several_are_named_with_the_way_out(storage: Storage) -> None:
    await lose(storage, f"{REPOSITORIES}team/")
    with pytest.raises(
        Refused,
        match=r"team/app \(2 tags\) and team/app/nested \(2 tags\) had tags at the last run and have none now, and 14 "
        r"of the 21 links that the last run left \(67%\) are gone, more than --max-lost 50% allows; .* say "
        r"--allow-gone '\*\*' --max-lost 67% once",
    ):
        await collect(storage, RUN)
    await collect(storage, replace(RUN, allow_gone=(Pattern.repository("**"),), max_lost=0.67))
    await collect(storage, RUN)


async def test_links_that_are_lost_though_every_tag_stands(storage: Storage) -> None:
    for name in ("team/app", "team/app/nested", "other"):
        await lose(storage, f"{REPOSITORIES}{name}/_layers/")
    with pytest.raises(Refused, match=r"9 of the 21 links .* \(43%\) are gone, more than --max-lost 40% allows"):
        await collect(storage, replace(RUN, max_lost=0.4))
    await collect(storage, RUN)
    await collect(storage, replace(RUN, max_lost=0.4))


async def test_what_a_run_of_ours_took_is_not_lost(storage: Storage) -> None:
    """It was killed before it could say what it left; its journal says what it took."""
    policy = Policy.parse('[[rule]]\nrepositories = ["team/**"]\ndrop = ["*"]')
    drop = replace(RUN, plan=GcOptions(grace=DAY, policy=policy))

    def fail(operation: str, key: str) -> None:
        if operation == "put" and key == COUNTS:
            raise StorageError("the power is gone")

    with pytest.raises(StorageError, match="the power is gone"):
        await collect(FaultyStorage(storage, before=fail), drop)
    assert not [
        key
        for key in await snapshot(storage)
        if isinstance(tag := decode(key), TagCurrentKey) and tag.name != "other"
    ]
    report = await collect_again(storage, RUN)
    assert isinstance(report, GcReport)
    # That run is known from now on, and excuses nothing that goes later.
    await lose(storage, f"{REPOSITORIES}other/")
    with pytest.raises(Refused, match="other"):
        await collect(storage, RUN)


async def empty(storage: Storage) -> Emptied:
    async with hold_lock(storage, command="trash empty") as lock:
        wanted = EmptyOptions(offline=True, scan=RUN.scan)
        return await empty_trash(storage, wanted, lock, cache=NoCache("none"))


@pytest.mark.parametrize("killed", [False, True])
async def test_what_was_removed_by_name_is_not_missed_when_its_trash_is_emptied(
    storage: Storage, killed: bool
) -> None:
    """The journal that says so went with the trash; gc came by only after that."""
    await remove(storage, "other:v1", "other:v2", "team/app:v1")
    if killed:  # when the counts are written, and the journal stands yet
        faulty = FaultyStorage(storage, die_at=2, when="after")
        assert await died(empty(faulty))
        assert [mutation.key for mutation in faulty.mutations][1:] == [COUNTS]
        await break_locks(storage)
    assert (await empty(storage)).runs
    for name in ("team/app", "team/app/nested"):
        await lose(storage, f"{REPOSITORIES}{name}/_manifests/tags/")
    gone = r": team/app \(1 tag\) and team/app/nested \(2 tags\) had tags at the last run and have none now;"
    with pytest.raises(Refused, match=gone):
        await collect(storage, RUN)
    await collect(storage, replace(RUN, allow_gone=(Pattern.repository("team/**"),)))
    # Nor do tags that somebody chose to remove look like tags that are kept elsewhere, now or in a later run.
    (stop,) = (await look(storage, options(offline=True, grace=0, untagged_repositories=False))).stops
    assert "(team/app/nested)" in stop


async def test_an_older_journal_excuses_nothing(storage: Storage) -> None:
    """A run took one tag of the repository; what is lost later was not its work."""
    policy = Policy.parse('[[rule]]\nrepositories = ["other"]\ndrop = ["v1"]')
    assert (await collect(storage, replace(RUN, plan=GcOptions(grace=DAY, policy=policy)))).tags == 1
    await lose(storage, f"{REPOSITORIES}other/")
    with pytest.raises(Refused, match=r"other \(1 tag\) had tags"):
        await collect(storage, RUN)


async def test_counts_of_an_older_version_are_read() -> None:
    storage = ModelStorage(three_repositories(), now=NOW)
    await storage.put(COUNTS, b'{"blobs": 4, "links": 2}')
    assert await read_counts(storage) == Counts(blobs=4, links=2)
    await collect(storage, RUN)
    for damage in (
        b'{"blobs": 4, "links": 2, "tagged": "!"}',
        b'{"blobs": 4, "links": 2, "tagged": "AAAA"}',
        b'{"blobs": Infinity, "links": 2}',
        b'{"blobs": 4, "links": 2, "runs": 7}',
        b"[" * 100_000,
        b"[]",
        b"",
    ):
        await storage.put(COUNTS, damage)
        assert await read_counts(storage) is None


async def test_many_repositories_take_few_bytes() -> None:
    storage = ModelStorage(ModelStore(), now=NOW)
    teams = random.Random(1).sample(range(10**6), 20_000)
    counts = Counts(
        blobs=1, links=2, tagged={f"team-{n % 50}/service-{n}": n % 40 + 1 for n in teams}, runs=frozenset({"x"})
    )
    await write_counts(storage, counts)
    assert await read_counts(storage) == counts
    assert len(await storage.get(COUNTS)) < 10 * len(teams)
    known = json.loads(await storage.get(COUNTS))
    assert (known["blobs"], known["links"]) == (1, 2)  # what older versions read


def test_options_out_of_range() -> None:
    with pytest.raises(ValueError, match="--max-lost"):
        GcRunOptions(max_lost=1.5)
