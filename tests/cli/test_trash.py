"""trash list, restore and empty; heal; locks; and what gc says of the trash and the registry's cache."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from regstore import layout
from regstore.cli.app import GROUPS
from regstore.cli.run import run_async
from regstore.digest import Digest
from regstore.layout import COUNTS, REGISTRY_STATE
from regstore.state import TRASH
from regstore.state.lock import hold_lock
from regstore.storage.disk import DiskStorage
from tests.cli.conftest import Run, Said
from tests.gc.clock import end_long_ago
from tests.gc.scenes import write_long_ago
from tests.model.store import ModelStore
from tests.servers.s3 import S3Server

#: legacy/import is damaged and left alone, so gc ends with 3.
PARTIAL = 3
BLOBS, LINKS = 7, 8


@pytest.fixture
def store(demo_registry: Path, tmp_path: Path) -> Path:
    return shutil.copytree(demo_registry, tmp_path / "registry")


def collect(run: Run, store: Path, *options: object) -> Said:
    said = run("gc", store, "--delete-untagged", "--settle", "0s", "--yes", *options)
    assert said.code == PARTIAL, said
    return said


def registry_part(folder: Path) -> dict[str, bytes]:
    bodies = ModelStore.from_folder(folder).bodies()
    return {key: body for key, body in bodies.items() if key.startswith("docker/") and "/_uploads/" not in key}


def in_trash(folder: Path) -> list[str]:
    return [key for key in ModelStore.from_folder(folder) if key.startswith(TRASH)]


@pytest.mark.parametrize(
    ("group", "command"), [(name, word) for name, (_, all_) in GROUPS.items() for word in all_]
)
def test_every_command_of_a_group_has_help(run: Run, group: str, command: str) -> None:
    said = run(group, command, "--help")
    assert said.code == 0
    assert f"Usage: regstore {group} {command}" in said.out


# -- list


def test_list(run: Run, store: Path) -> None:
    said = run("trash", "list", store)
    assert (said.code, said.out) == (0, "")
    assert "is empty" in said.err
    said = run("trash", "list", "--json", store)
    listed = said.json
    assert (said.envelope["store"], listed["runs"], listed["not_freed"]["bytes"]) == (str(store), [], 0)
    collect(run, store)
    headings, line, empty, cache, left = (line.split() for line in run("trash", "list", store).out.splitlines())
    assert (empty, cache[:3], left[:6]) == (
        [],
        ["cache:", "not", "known,"],
        ["not", "freed", "yet:", "1.8", "MiB", "in"],
    )
    assert headings == ["RUN", "ENDED", "COMMAND", "BLOBS", "SIZE", "LINKS"]
    assert line[2:] == ["gc", str(BLOBS), "1.8", "MiB", str(LINKS)]
    (found,) = run("trash", "list", "--json", store).json["runs"]
    assert found["run"] == line[0]
    assert found["ended"] == line[1]
    assert (found["complete"], found["command"]) == (True, "gc")
    assert (found["blobs"], found["links"]) == (BLOBS, LINKS)
    assert found["bytes"] == sum(len(ModelStore.from_folder(store).body(key) or b"") for key in in_trash(store))


# -- restore


def test_restore(run: Run, store: Path) -> None:
    before = registry_part(store)
    collect(run, store)
    after = registry_part(store)
    said = run("trash", "restore", store, "--dry-run")
    assert said.code == 0
    assert f"{BLOBS} blobs (1.8 MiB) and {LINKS} links to put back, 0 there already" in said.out
    assert registry_part(store) == after
    said = run("trash", "restore", store)
    assert said.code == 4
    assert "say --yes" in said.err
    assert registry_part(store) == after
    said = run("trash", "restore", store, "--yes")
    assert said.code == 0, said
    assert f"put back {BLOBS} blobs (1.8 MiB) and {LINKS} links of run " in said.out
    assert registry_part(store) == before
    assert len(in_trash(store)) == BLOBS
    assert "nothing to put back" in run("trash", "restore", store, "--yes").out


def test_restore_of_one_repository_or_digest(run: Run, store: Path) -> None:
    before = registry_part(store)
    collect(run, store)
    planned = run("trash", "restore", store, "--repo", "team/app", "--dry-run", "--json").plan
    assert len(planned["blobs"]) == BLOBS - 1  # but for the blob of no repository
    assert all(key.startswith(layout.repository_prefix("team/app")) for key in planned["links"])
    done = run("trash", "restore", store, "--repo", "team/app", "--yes", "--json").report
    assert (done["blobs"], done["links"], done["conflicts"]) == (BLOBS - 1, LINKS, [])
    (orphan,) = before.keys() - registry_part(store).keys()
    key = layout.decode(orphan)
    assert isinstance(key, layout.BlobKey)
    done = run("trash", "restore", store, "--digest", key.digest, "--yes", "--json").report
    assert (done["blobs"], done["links"]) == (1, 0)
    assert registry_part(store) == before


def test_conflicts_are_said_and_3(run: Run, store: Path) -> None:
    before = registry_part(store)
    collect(run, store)
    gone = sorted(before.keys() - registry_part(store).keys())
    link = next(key for key in gone if "/_layers/" in key)
    other = layout.link_body(Digest.of(b"another"))
    (store / link).parent.mkdir(parents=True, exist_ok=True)
    (store / link).write_bytes(other)
    said = run("trash", "restore", store, "--yes")
    assert said.code == PARTIAL
    assert said.err == f"regstore: left as it is: {link}: another link stands there now\n"
    assert (store / link).read_bytes() == other
    (conflict,) = run("trash", "restore", store, "--yes", "--json").plan["conflicts"]
    assert conflict["key"] == link


def test_restore_of_what_is_not_there(run: Run, store: Path) -> None:
    run("trash", "restore", store).failed(2, "no run to undo", "trash list")
    run("trash", "restore", store, "--digest", "nonsense").failed(2, "nonsense")
    run("trash", "restore", store, "--run", "x").failed(2, "no journal of a run x")


def test_list_by_what_a_run_took(run: Run, store: Path) -> None:
    collect(run, store)
    (kept,) = run("trash", "list", store, "--json").json["runs"]
    blob = Digest.parse(f"sha256:{in_trash(store)[0].split('/')[-2]}")
    for options, found in (
        (("--run", kept["run"]), True),
        (("--run", "20200101T000000Z-00000000"), False),
        (("--repo", "team/app"), True),
        (("--repo", "team"), False),
        (("--digest", blob), True),
        (("--digest", Digest.of(b"no such blob")), False),
        (("--repo", "library/base", "--digest", Digest.of(b"no such blob")), False),
    ):
        assert run("trash", "list", store, *options, "--json").json["runs"] == ([kept] if found else [])
    said = run("trash", "list", store, "--repo", "team")
    assert (said.code, said.out) == (0, "") and "no run that took such a thing" in said.err


# -- empty


def test_empty(run: Run, store: Path) -> None:
    collect(run, store)
    kept = in_trash(store)
    run("trash", "empty", store, "--yes").failed(4, "not known", "--restarted-after TIME", "--registry-cache none")
    run("trash", "empty", store, "--yes", "--registry-cache", "inmemory").failed(4, "in the registry's memory")
    run("trash", "empty", store, "--yes", "--registry-cache", "none").failed(
        4, "less than an hour ago", "--offline"
    )
    end_long_ago(store)
    said = run("trash", "empty", store, "--registry-cache", "none")
    assert said.code == 4
    assert "say --yes" in said.err
    said = run("trash", "empty", store, "--registry-cache", "none", "--dry-run")
    assert said.code == 0
    assert f"1 run to empty, {BLOBS} blobs, 1.8 MiB" in said.out
    assert in_trash(store) == kept
    before = registry_part(store)
    said = run("trash", "empty", store, "--registry-cache", "none", "--yes")
    assert (said.code, said.err) == (0, "")
    assert f"emptied 1 run: {BLOBS} blobs (1.8 MiB) deleted\ncache: none, as --registry-cache said on " in said.out
    assert registry_part(store) == before
    assert [key for key in ModelStore.from_folder(store) if key.startswith("regstore/")] == [COUNTS, REGISTRY_STATE]


def test_empty_after_a_restart(run: Run, store: Path) -> None:
    collect(run, store)
    now = datetime.now(UTC)
    early = (now - timedelta(hours=1)).isoformat()
    run("trash", "empty", store, "--yes", "--restarted-after", early).failed(4, "later than the run's end")
    late = (now + timedelta(hours=1)).isoformat()
    run("trash", "empty", store, "--yes", "--restarted-after", late).failed(2, "has not come yet")
    assert run("trash", "empty", store, "--yes", "--restarted-after", "soon").code == 2
    document = run("trash", "empty", store, "--yes", "--restarted-after", now.isoformat(), "--json").report
    assert (document["blobs"], document["kept"], document["versioned"]) == (BLOBS, [], False)


def test_what_was_agreed_to_goes_and_what_ended_meanwhile_stays(
    run: Run, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the question waits for its answer, another run's trash becomes old enough; or another run ends."""
    collect(run, store)
    end_long_ago(store)
    [first] = {key.removeprefix(TRASH).partition("/")[0] for key in in_trash(store)}

    def untag(*_: object, **__: object) -> bool:
        (tag,) = run("tags", store, "team/app", "--json").json["tags"][:1]
        assert run("untag", store, f"team/app:{tag['tag']}", "--yes").code == 0
        end_long_ago(store)
        return True

    monkeypatch.setattr("regstore.cli.trash.empty.confirm", untag)
    said = run("trash", "empty", store, "--registry-cache", "none", "--yes", "--json")
    assert said.code == 0 and said.report["runs"] == [first], said
    [second] = [each["run"] for each in run("trash", "list", store, "--json").json["runs"]]
    monkeypatch.setattr("regstore.cli.trash.restore.confirm", untag)
    assert run("trash", "restore", store, "--yes", "--json").report["run"] == second


def test_empty_by_age(run: Run, store: Path) -> None:
    collect(run, store)
    document = run("trash", "empty", store, "--older-than", "7d", "--dry-run", "--json").plan
    assert document["runs"] == []
    run("trash", "empty", store, "--older-than", "7d", "--run", "x").failed(2, "exclude each other")


def test_what_is_referenced_again_is_given_back_first(run: Run, store: Path) -> None:
    before = registry_part(store)
    collect(run, store)
    revisions = [key for key in before.keys() - registry_part(store).keys() if "/revisions/" in key]
    for key in revisions:  # as a registry whose cache answers for them
        (store / key).parent.mkdir(parents=True, exist_ok=True)
        (store / key).write_bytes(before[key])
    planned = run("heal", store, "--dry-run", "--json").plan
    assert (len(planned["blobs"]), len(planned["links"])) == (BLOBS - 1, 4)
    said = run("trash", "empty", store, "--registry-cache", "none", "--offline", "--yes")
    assert f"given back: {BLOBS - 1} blobs, 4 links" in said.out
    gone = before.keys() - registry_part(store).keys()
    assert {type(layout.decode(key)) for key in gone} <= {layout.BlobKey, layout.TagIndexKey}
    assert len([key for key in gone if "/blobs/" in key]) == 1


# -- heal, locks


def test_heal(run: Run, store: Path) -> None:
    said = run("heal", store)
    assert (said.code, said.err) == (0, "")
    assert "nothing that is referenced is missing" in said.out
    collect(run, store)
    orphanage = next(key for key in in_trash(store) if "/blobs/" in key)
    digest = layout.decode(orphanage.split("/", 3)[3])
    assert isinstance(digest, layout.BlobKey)
    link = layout.encode(layout.LayerLinkKey("team/worker", digest.digest))
    (store / link).parent.mkdir(parents=True)
    (store / link).write_bytes(layout.link_body(digest.digest))
    assert run("heal", store, "--json").report["blobs"] == [str(digest.digest)]
    assert layout.encode(digest) in registry_part(store)


def test_locks(run: Run, store: Path) -> None:
    said = run("locks", store)
    assert (said.code, said.out) == (0, "")
    assert "is not locked" in said.err

    async def locked() -> tuple[Said, Said, Said, Said]:
        import asyncio

        async with hold_lock(DiskStorage(store), command="gc"):
            ask = (
                lambda: run("locks", store),
                lambda: run("locks", store, "--json"),
                lambda: run("trash", "restore", store, "--yes"),
                lambda: run("locks", store, "--break-lock"),
            )
            one, two, three, four = [await asyncio.to_thread(each) for each in ask]
            return one, two, three, four

    collect(run, store)
    text, document, refused, broken = run_async(locked())
    assert re.search(r"^\S+  gc +\S+@\S+ +\d+  20\S+Z$", text.out, re.MULTILINE)
    (lock,) = document.json["locks"]
    assert (lock["command"], lock["expired"]) == ("gc", False)
    assert refused.code == 5
    assert "locked by `gc`" in refused.err
    assert "stop before their next change" in broken.err
    assert run("locks", store, "--json").json["locks"] == []
    (store / "regstore/locks").mkdir(exist_ok=True)
    odd = store / "regstore/locks/20260101T000000Z-00000000"
    odd.write_text('{"command": "gc", "lease": Infinity, "pid": 1e400}')
    (lock,) = run("locks", store, "--json").json["locks"]
    assert (lock["command"], lock["pid"], lock["expired"]) == ("gc", 0, False)
    assert "gc" in run("locks", store, "--break-lock").out
    assert not odd.exists()


# -- gc, and the registry's configuration


def test_gc_empties_older_trash_where_it_may(run: Run, store: Path) -> None:
    collect(run, store)
    end_long_ago(store)
    said = run("gc", store, "--delete-untagged", "--settle", "0s", "--yes", "--trash-days", "0")
    assert "not freed yet: 1.8 MiB in 1 run, because the registry's cache is not known" in said.out
    assert len(in_trash(store)) == BLOBS
    said = run("gc", store, "--settle", "0s", "--trash-days", "0", "--registry-cache", "none")
    assert said.code == 4  # deleting for good needs a yes, too
    said = run("gc", store, "--settle", "0s", "--yes", "--trash-days", "0", "--registry-cache", "none")
    assert f"the trash of 1 older run is emptied: {BLOBS} blobs (1.8 MiB) deleted" in said.out
    assert not in_trash(store)


@pytest.mark.parametrize("cache", [None, "inmemory", "redis", "other"])
def test_the_configuration_says_which_cache(run: Run, store: Path, tmp_path: Path, cache: str | None) -> None:
    collect(run, store)
    end_long_ago(store)
    config = tmp_path / "config.yml"
    storage: dict[str, object] = {"filesystem": {"rootdirectory": str(store)}}
    if cache:
        storage["cache"] = {"blobdescriptor": cache}
    config.write_text(yaml.safe_dump({"version": "0.1", "storage": storage}))
    said = run("trash", "empty", "--registry-config", config, "--yes")
    match cache:
        case None:
            assert said.code == 0
            assert not in_trash(store)
        case "redis":
            said.failed(2, "where is the registry's Redis", "--redis-url")
        case _:
            said.failed(4, "--restarted-after")
    if cache in (None, "inmemory"):
        contradiction = run("trash", "empty", "--registry-config", config, "--registry-cache", "redis", "--yes")
        contradiction.failed(2, "says that its cache is", "redis")


def test_words_about_the_cache(run: Run, store: Path) -> None:
    run("heal", store, "--registry-cache", "memcached").failed(2, "none, inmemory or redis, not memcached")
    run("heal", store, "--registry-cache", "none", "--redis-url", "redis://x").failed(2, "exclude each other")
    run("heal", store, "--redis-url", "x://y").failed(2, "redis://")


def test_a_read_only_registry_is_said_and_not_assumed(run: Run, store: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    storage = {
        "filesystem": {"rootdirectory": str(store)},
        "maintenance": {"readonly": {"enabled": True}},
    }
    config.write_text(yaml.safe_dump({"version": "0.1", "storage": storage}))
    said = run("gc", "--registry-config", config, "--settle", "0s", "--yes")
    assert "read-only" in said.err
    assert "--offline" in said.err


def test_a_versioned_bucket_is_said(
    run: Run, moto: S3Server, moto_bucket: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto.environment().items():
        monkeypatch.setenv(name, value)
    moto.client().put_bucket_versioning(Bucket=moto_bucket, VersioningConfiguration={"Status": "Enabled"})
    url = f"s3://{moto_bucket}/reg"

    async def fill() -> None:
        from regstore.storage import open_storage

        async with open_storage(url) as storage:
            await write_long_ago(ModelStore.from_folder(store), storage)

    run_async(fill())
    options = ("--grace", "0s", "--settle", "0s", "--yes", "--registry-cache", "none")
    said = run("gc", url, "--delete-untagged", *options)
    assert said.code == PARTIAL, said
    assert "the bucket keeps versions: nothing is free until noncurrent versions expire" in said.out
    assert "keeps versions" in run("trash", "empty", url, "--yes", "--registry-cache", "none", "--offline").out
