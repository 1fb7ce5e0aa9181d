"""A gc every night, against the real registry: after the second night the bytes are gone, and every tag pulls."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regstore.cli.run import run_async
from regstore.layout import REGISTRY_STATE
from regstore.state import TRASH
from regstore.storage import open_storage
from tests.cli.conftest import Run, Said, Start
from tests.gc.clock import end_long_ago, until_all_is_older
from tests.servers import images
from tests.servers.api import Incomplete, pull_complete, push_api
from tests.servers.distribution import Registry
from tests.servers.process import wait_until
from tests.servers.redis_server import RedisServer
from tests.servers.s3 import S3Root

StartRegistry = Callable[..., Registry]
GC = ("--delete-untagged", "--grace", "0s", "--settle", "0s", "--max-delete", "100%", "--trash-days", "0", "--yes")
PARTIAL, REFUSED, USAGE = 3, 4, 2


def push_twice(host: str) -> images.Document:
    """`1` is pushed, looked at through the cache, and replaced; the old one."""
    old = images.image("old", 3)
    push_api(host, "team/app", old, "1")
    pull_complete(host, "team/app", "1")
    push_api(host, "team/app", old, "1")  # every HEAD is answered, and cached
    push_api(host, "team/app", images.image("new", 2), "1")
    return old


def url_of(place: Path | S3Root, monkeypatch: pytest.MonkeyPatch) -> str:
    if isinstance(place, Path):
        return str(place)
    for name, value in place.server.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{place.bucket}{place.rootdirectory}"


def in_trash(url: str) -> list[str]:
    async def look() -> list[str]:
        async with open_storage(url) as storage:
            return [key async for page in storage.list(TRASH) for key in page.keys]

    return run_async(look())


def wait_for_the_clock(url: str) -> None:
    """A run's own time lags a little behind the store's: by two seconds at most."""

    async def wait() -> None:
        async with open_storage(url) as storage:
            await until_all_is_older(storage, by=2_000_000 if url.startswith("s3:") else 0)

    run_async(wait())


@contextmanager
def restarting(registry: Registry, folder: Path) -> Iterator[str]:
    """A command that really restarts the registry, and returns when that is done."""
    wanted, done, over = folder / "wanted", folder / "done", threading.Event()

    def serve() -> None:
        while not over.wait(0.02):
            if wanted.exists():
                wanted.unlink()
                registry.restart()
                done.touch()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"rm -f {done}; touch {wanted}; while [ ! -e {done} ]; do sleep 0.05; done; echo it runs again"
    finally:
        over.set()
        thread.join()


def all_is_well(registry: Registry, old: images.Document) -> None:
    """What stayed pulls, and what went can be pushed again as if it had never been there."""
    pull_complete(registry.host, "team/app", "1")
    push_api(registry.host, "team/app", old, "again")
    assert pull_complete(registry.host, "team/app", "again").keys() == old.closure().keys()


@pytest.mark.parametrize(
    ("registry_storage", "asked"),
    [
        pytest.param("disk", True, id="disk-asked"),
        pytest.param("ceph", False, id="ceph-told"),
        *(
            pytest.param(where, asked, id=f"{where}-{'asked' if asked else 'told'}", marks=pytest.mark.slow)
            for where, asked in (("disk", False), ("ceph", True), ("moto", False), ("moto", True))
        ),
    ],
    indirect=["registry_storage"],
)
def test_a_cache_in_memory_and_a_restart_command(
    asked: bool,
    run: Run,
    start_registry: StartRegistry,
    registry_storage: Path | S3Root,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = start_registry(registry_storage, cache="inmemory")
    old = push_twice(registry.host)
    url = url_of(registry_storage, monkeypatch)
    wait_for_the_clock(url)
    with restarting(registry, tmp_path) as command:
        options = ["--restart-command", command]
        if asked:  # then the processes have to confirm it
            options += ["--registry-debug-url", registry.debug_url]
        first = run("gc", url, *GC, *options, "--registry-cache", "inmemory")
        assert first.code == 0, first
        assert "the registry was restarted, in " in first.out
        assert in_trash(url)
        wait_for_the_clock(url)
        # Known, and restarted: remembered from the first night.
        second = run("gc", url, *GC, *options, "--json").report
    assert len(second["emptied"]["runs"]) == 1, second["not_freed"]
    assert second["restart"] is None  # nothing waits for it any more
    assert (second["cache"]["kind"], second["cache"]["source"]) == ("inmemory", "--registry-cache")
    assert second["not_freed"]["bytes"] == 0
    assert not in_trash(url)
    all_is_well(registry, old)


def test_what_the_cache_let_through_is_back_before_anything_is_freed(
    run: Run, start_registry: StartRegistry, tmp_path: Path
) -> None:
    """Between gc's moves and the restart a push is misled: the next night gives back, and then empties."""
    store = tmp_path / "registry"
    registry = start_registry(store, cache="inmemory")
    old = push_twice(registry.host)
    assert run("gc", store, *GC, "--registry-cache", "inmemory").code == 0
    push_api(registry.host, "team/app", old, "again")
    with pytest.raises(Incomplete):
        pull_complete(registry.host, "team/app", "again")
    with restarting(registry, tmp_path) as command:
        run("gc", store, *GC, "--restart-command", command)
    assert "not freed yet" in run("trash", "list", store).out
    assert run("gc", store, *GC).code == 0
    assert not in_trash(str(store))
    pull_complete(registry.host, "team/app", "again")
    pull_complete(registry.host, "team/app", "1")


def test_a_process_that_says_when_it_was_started(run: Run, start_registry: StartRegistry, tmp_path: Path) -> None:
    store = tmp_path / "registry"
    registry = start_registry(store, cache="inmemory")
    old = push_twice(registry.host)
    asking = ("--registry-debug-url", registry.debug_url)
    assert run("gc", store, *GC, *asking).code == 0
    kept = in_trash(str(store))
    assert kept
    # It was started before the run: nothing goes, however old the run is.
    said = run("gc", store, *GC, *asking, "--json").report
    assert said["not_freed"]["parts"][0]["obstacle"] == "cache"
    assert in_trash(str(store)) == kept
    run("trash", "empty", store, "--yes", *asking).failed(REFUSED, "not known", "--registry-debug-url")
    end_long_ago(store)
    registry.restart()
    said = run("gc", store, *GC, "--registry-debug-url", registry.debug_url, "--json").report
    assert len(said["emptied"]["runs"]) == 1
    assert not in_trash(str(store))
    all_is_well(registry, old)


def test_a_process_that_does_not_answer_frees_nothing(
    run: Run, start_registry: StartRegistry, tmp_path: Path
) -> None:
    store = tmp_path / "registry"
    registry, other = start_registry(store, cache="inmemory"), start_registry(store, cache="inmemory")
    push_twice(registry.host)
    assert run("gc", store, *GC, "--registry-cache", "inmemory").code == 0
    end_long_ago(store)
    registry.restart()
    other.stop()
    both = ("--registry-debug-url", registry.debug_url, "--registry-debug-url", other.debug_url)
    said = run("gc", store, *GC, *both)
    assert said.code == 0
    assert f"because the registry's process at {other.debug_url} could not be asked" in said.out
    assert in_trash(str(store))
    run("trash", "empty", store, "--yes", *both).failed(REFUSED, other.debug_url)
    other.start()
    assert run("trash", "empty", store, "--yes", *both).code == 0
    assert not in_trash(str(store))


def test_the_registry_itself_contradicts(run: Run, start_registry: StartRegistry, tmp_path: Path) -> None:
    """Somebody said that there is no cache; the process counts what it asks its cache."""
    store = tmp_path / "registry"
    registry = start_registry(store, cache="inmemory")
    push_twice(registry.host)
    assert run("gc", store, *GC, "--registry-cache", "none").code == 0
    end_long_ago(store)
    pull_complete(registry.host, "team/app", "1")
    said = run("gc", store, *GC, "--registry-debug-url", registry.debug_url)
    assert said.code == 0
    assert f"the registry's process at {registry.debug_url} uses a descriptor cache, and none was said" in said.out
    assert in_trash(str(store))


def test_redis(run: Run, start_registry: StartRegistry, tmp_path: Path, redis: RedisServer) -> None:
    store = tmp_path / "registry"
    registry = start_registry(store, cache="redis", redis_address=redis.address)
    old = push_twice(registry.host)
    # Not known, and it has a Redis: no restart is taken for forgetting.
    registry.restart()
    said = run("gc", store, *GC, "--registry-debug-url", registry.debug_url)
    assert "has a Redis, which no restart empties" in said.out
    end_long_ago(store)
    assert run("gc", store, *GC, "--redis-url", redis.url).code == 0
    assert not in_trash(str(store))
    all_is_well(registry, old)
    # Remembered, but not where: nothing is emptied.
    registry.delete("team/app", old.digest)
    assert run("gc", store, *GC).code == 0
    end_long_ago(store)
    said = run("gc", store, *GC)
    assert "the registry's cache is redis, as --redis-url said on " in said.out
    assert "to free it: say --redis-url, or --registry-config" in said.out
    assert in_trash(str(store))
    assert run("gc", store, *GC, "--redis-url", redis.url).code == 0
    assert not in_trash(str(store))
    all_is_well(registry, old)


def with_config(registry: Registry, cache: str) -> Path:
    registry.cache = cache  # type: ignore[assignment]
    return registry.write_config()


def test_no_cache_as_the_configuration_says(run: Run, start_registry: StartRegistry, tmp_path: Path) -> None:
    """Said once, remembered with its source and its day; a configuration that says more is believed at once."""
    store = tmp_path / "registry"
    registry = start_registry(store)
    old = push_twice(registry.host)
    config = with_config(registry, "none")
    said = run("gc", "--registry-config", config, *GC)
    assert said.code == 0
    assert f"cache: none, as {config} said on 20" in said.out
    assert "because a push may rely on it that began before the run ended" in said.out
    end_long_ago(store)
    assert f"cache: none, as {config} said on 20" in run("trash", "list", store).out
    assert f"ok    cache: none, as {config} said on 20" in run("doctor", store).out
    with_config(registry, "inmemory")
    said = run("gc", "--registry-config", config, *GC)
    assert f"cache: inmemory, as {config} said on 20" in said.out and "(before: none, as " in said.out
    assert in_trash(str(store))
    # And one that says less now is not, until somebody says that the registry runs with it.
    with_config(registry, "none")
    said = run("gc", "--registry-config", config, *GC)
    assert said.code == 0
    assert f"{config} says that the registry's cache is none, and {config} said inmemory on " in said.out
    assert in_trash(str(store))
    assert "says that the registry's cache is none" in run("doctor", "--registry-config", config).out
    assert run("gc", "--registry-config", config, *GC, "--registry-cache", "none").code == 0
    assert not in_trash(str(store))
    all_is_well(registry, old)


# -- the restart command, without a registry


def collected(run: Run, store: Path, *options: object) -> Said:
    return run("gc", store, *GC, *options)


def test_a_restart_command_wants_a_cache_that_is_known(run: Run, demo_copy: Path) -> None:
    run("gc", demo_copy, *GC, "--restart-command", "true").failed(USAGE, "not known", "--registry-cache")
    assert not (demo_copy / "regstore").exists()


def test_a_restart_command_that_fails(run: Run, demo_copy: Path, tmp_path: Path) -> None:
    command = f"echo no such container; echo x >> {tmp_path}/ran; exit 7"
    said = collected(run, demo_copy, "--registry-cache", "inmemory", "--restart-command", command)
    assert said.code == PARTIAL
    assert "the restart command ended with 7 on 20" in said.err and "and said: no such container" in said.err
    assert "the registry was not restarted since: the restart command ended with 7" in said.out
    end_long_ago(demo_copy)
    # The next night tries again, though there is nothing to collect, and frees nothing.
    said = collected(run, demo_copy, "--restart-command", command, "--json")
    assert said.code == PARTIAL
    assert said.report["restart"]["status"] == 7
    assert (tmp_path / "ran").read_text() == "x\n" * 2
    assert in_trash(str(demo_copy))
    assert "the restart command ended with 7" in run("doctor", demo_copy).out
    said = collected(run, demo_copy, "--restart-command", "true")
    assert said.code == 0 and "was restarted" in said.out
    assert collected(run, demo_copy).code == 0
    assert not in_trash(str(demo_copy))


def test_no_restart_where_nothing_waits_for_it(run: Run, demo_copy: Path, tmp_path: Path) -> None:
    command = f"touch {tmp_path}/ran"
    collected(run, demo_copy, "--registry-cache", "none", "--restart-command", command)
    assert not (tmp_path / "ran").exists()
    run("gc", demo_copy, *GC, "--registry-cache", "inmemory", "--restart-command", command, "--dry-run")
    assert not (tmp_path / "ran").exists()


def test_the_first_run_says_what_to_say_once(run: Run, demo_copy: Path) -> None:
    said = collected(run, demo_copy)
    (line,) = [line for line in said.out.splitlines() if line.startswith("not freed yet: ")]
    assert "the registry's cache is not known" in line
    assert "to free it: say once to gc --registry-cache none, inmemory or redis, or --registry-config" in line
    assert not (demo_copy / REGISTRY_STATE).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_restart_command_too(
    start: Start, demo_copy: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """gc itself was over: its run is complete, the registry is not taken as restarted, and the lock is gone."""
    pids = tmp_path / "pids"
    command = f"sleep 1000 & echo $! $$ > {pids}.new; mv {pids}.new {pids}; wait"
    process = start("gc", demo_copy, *GC, "--registry-cache", "inmemory", "--restart-command", command)
    wait_until(pids.exists, "the restart command to run", 60)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    wait_until(lambda: not any(is_running(int(pid)) for pid in pids.read_text().split()), "them to end", 30)
    state = json.loads((demo_copy / REGISTRY_STATE).read_text())
    assert state.keys() == {"cache"}
    assert not list((demo_copy / "regstore/locks").glob("*"))
    assert list((demo_copy / "regstore/runs").glob("*/done.json"))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
