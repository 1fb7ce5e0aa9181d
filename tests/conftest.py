"""Servers as fixtures, and an environment that knows nothing of the machine's own settings."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, settings

from tests import fast
from tests.examples import set_factor
from tests.in_one_duckdb import OneDuckDb
from tests.servers import ceph as ceph_module
from tests.servers import debian, distribution, redis_server, skopeo, spark
from tests.servers.distribution import Registry
from tests.servers.moto_server import moto_server
from tests.servers.s3 import S3Root, S3Server

_PROGRAMS_OF_FIXTURE = {
    "ceph": ceph_module.PROGRAMS,
    "redis_session": (redis_server.PROGRAM,),
    "spark_cluster": (spark.PROGRAM,),
    "start_registry": (distribution.PROGRAM,),
    "with_skopeo": (skopeo.PROGRAM,),
}
#: They run the same lines again and again, as do all cases of a test but its first; others measure these. Coverage
#: would cost them half as much again.
_UNMEASURED = (
    "backup/test_end_to_end.py",
    "backup/test_prune.py",
    "gc/test_end_to_end.py",
    "gc/test_faults.py",
    "gc/test_killed.py",
    "gc/test_plan_against_oracle.py",
    "gc/test_retention.py",
    "gc/test_state_machine.py",
    "gc/test_under_fire.py",
    "inventory/test_listing.py",
    "migrate/test_model.py",
    "migrate/test_s3.py",
    "model/test_oracle.py",
    "verify/test_against_oracle.py",
    "verify/test_killed.py",
)
#: They run the same commands at many points each. Their small inventories are asked without DuckDB's optimizer, as are
#: those of cli/, and of all cases of a test but its first: a plan of such a statement takes a third longer to make with
#: it, and its rows are the same. The optimizer's plans are what other first cases, property tests and programs run on.
_SAME_STATEMENTS = (
    "backup/test_end_to_end.py",
    "backup/test_interrupted.py",
    "backup/test_live.py",
    "gc/test_claims.py",
    "gc/test_faults.py",
    "gc/test_killed.py",
    "gc/test_killed_workers.py",
    "gc/test_races.py",
    "gc/test_removal_races.py",
    "gc/test_state_machine.py",
    "gc/test_tasks_races.py",
    "gc/test_unreadable.py",
    "gc/test_vanished.py",
    "migrate/test_pushed_meanwhile.py",
    "migrate/test_s3.py",
    "verify/test_killed.py",
    "verify/test_pushed_meanwhile.py",
)
#: Minutes in one file, for the cluster that it starts.
_LONGEST = "spark/test_cluster.py"
#: It is about the plans that DuckDB makes.
_PLANS = "tests/test_spilling.py"
_homes = itertools.count()
_OPTIMIZES: pytest.StashKey[bool] = pytest.StashKey()
_PROGRAMS: pytest.StashKey[set[str]] = pytest.StashKey()
_optimizes = True
_FORGOTTEN_PREFIXES = ("AWS_", "REGISTRY_", "REGSTORE_", "BOTO_", "XDG_")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")

# Two shared cores are sometimes slow: time is not what these tests are about.
settings.register_profile(
    "regstore", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True, database=None
)
# The same examples in every run of CI, which tells of a change; others in everybody's own, and with --slow.
settings.register_profile("ci", settings.get_profile("regstore"), derandomize=True)
settings.load_profile("regstore")


# -- options, markers


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run tests that take minutes or gigabytes")
    parser.addoption("--fast", action="store_true", help="only what starts nothing and is not long (tests/fast.py)")
    parser.addoption("--examples", type=int, metavar="N", help="N examples of Hypothesis, where --slow tries more")


def pytest_configure(config: pytest.Config) -> None:
    factor = 20 if config.getoption("--slow") else Fraction(1, 5) if config.getoption("--fast") else 1
    is_same = bool(os.environ.get("CI")) and factor == 1 and config.getoption("--examples") is None
    set_factor(factor, config.getoption("--examples"), is_same=is_same)
    if is_same:
        settings.load_profile("ci")
    if config.getoption("--fast"):
        fast.watch()
    gc.set_threshold(50_000, 20, 20)  # as the command line does
    _take_signals_as_usual()
    # Servers of session scope start before any function fixture: forget the machine's settings here already.
    _isolate(os.environ, Path(tempfile.gettempdir()) / "regstore-tests-no-home")


def _take_signals_as_usual() -> None:
    """In the background of a shell that is not interactive SIGINT and SIGQUIT are ignored, and SIGHUP below nohup. What
    a test starts would inherit that, and never hear of its Ctrl-C."""
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            with contextlib.suppress(ValueError):  # not the main thread
                signal.signal(number, handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--fast"):
        config.hook.pytest_deselected(items=[item for item in items if not fast.is_fast(item)])
        items[:] = [item for item in items if fast.is_fast(item)]
    # Files of few and long tests first: one that is left for the end keeps one of two cores waiting.
    long = {item.path for item in items if not fast.is_fast(item)}
    items.sort(key=lambda item: (not item.path.as_posix().endswith(_LONGEST), item.path not in long))
    measured = set()
    for item in items:
        programs = _programs_of(item)
        function, path = item.nodeid.partition("[")[0], item.path.as_posix()
        if function in measured or path.endswith(_UNMEASURED):
            item.add_marker("no_cover")
        again = function in measured or path.endswith(_SAME_STATEMENTS) or "/tests/cli/" in path
        item.stash[_OPTIMIZES] = not again or path.endswith(_PLANS)
        measured.add(function)
        if item.get_closest_marker("servers"):
            programs |= debian.PACKAGE_OF.keys()  # it may use any of them
        elif programs:
            item.add_marker("servers")
        item.stash[_PROGRAMS] = programs
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))


def _programs_of(item: pytest.Item) -> set[str]:
    """What its fixtures start, also those that a parameter names."""
    names = set(getattr(item, "fixturenames", ()))
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    names |= {value for value in parameters.values() if isinstance(value, str)}
    return {program for name in names for program in _PROGRAMS_OF_FIXTURE.get(name, ())}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    global _optimizes
    debian.require(*item.stash[_PROGRAMS])
    _optimizes = item.stash[_OPTIMIZES]
    with fast.held(seconds=None) if item.config.getoption("--fast") else contextlib.nullcontext():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with fast.held() if item.config.getoption("--fast") else contextlib.nullcontext():
        return (yield)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    lines = {line.partition("apt-get install ")[2].rstrip("')\"") for line in skipped if "apt-get install" in line}
    if lines:
        packages = sorted({package for line in lines for package in line.split()})
        terminalreporter.section("NOT TESTED against real servers", sep="!", red=True)
        terminalreporter.write_line(f"apt-get install {' '.join(packages)}", red=True)


# -- what only takes time: the power does not fail in a test


@pytest.fixture(scope="module", autouse=True)
def no_waiting_for_the_disk(request: pytest.FixtureRequest) -> Iterator[None]:
    """Files are not synced, and temporary inventories of a few dozen keys are kept in memory. Programs that are started
    sync, and have theirs in files, as have the tests of the inventory itself."""
    connect = duckdb.connect

    def connect_in_memory(path: str, config: dict[str, Any]) -> Any:
        if Path(path).name == "inventory.duckdb":  # another name is attached, or kept
            return _one_duckdb(config["memory_limit"], _optimizes).connect()
        return connect(path, config=config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        if request.path.parent.name != "inventory":
            patch.setattr(duckdb, "connect", connect_in_memory)
        yield


@cache
def _one_duckdb(memory_limit: str, optimizes: bool) -> OneDuckDb:
    config = {"memory_limit": memory_limit, "preserve_insertion_order": False, "threads": 1}
    return OneDuckDb(config, optimizes=optimizes)


# -- environment


def _isolate(environment: Any, home: Path) -> None:
    for name in list(environment):
        if name.startswith(_FORGOTTEN_PREFIXES) or name.lower() in _PROXIES:
            del environment[name]
    environment["HOME"] = str(home)
    environment["XDG_CACHE_HOME"] = str(home / "cache")
    environment["XDG_CONFIG_HOME"] = str(home / "config")
    environment["AWS_CONFIG_FILE"] = str(home / "aws-config")
    environment["AWS_SHARED_CREDENTIALS_FILE"] = str(home / "aws-credentials")
    environment["AWS_EC2_METADATA_DISABLED"] = "true"


@pytest.fixture(autouse=True)
def isolated_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of its own for every test; whatever it does to the environment is undone."""
    before = dict(os.environ)
    home = tmp_path_factory.getbasetemp() / f"home{next(_homes)}"  # mktemp would look through those of all tests
    home.mkdir()
    _isolate(os.environ, home)
    try:
        yield home
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


# -- S3


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def ceph() -> Iterator[S3Server]:
    debian.require(*ceph_module.PROGRAMS)
    with ceph_module.ceph_server() as server:
        yield server


@pytest.fixture(params=["moto", "ceph"])
def s3_server(request: pytest.FixtureRequest) -> S3Server:
    """Each S3 server in turn."""
    server: S3Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def moto_bucket(moto: S3Server) -> Iterator[str]:
    yield from _bucket(moto)


@pytest.fixture
def ceph_bucket(ceph: S3Server) -> Iterator[str]:
    yield from _bucket(ceph)


@pytest.fixture
def s3_bucket(s3_server: S3Server) -> Iterator[str]:
    """A new bucket on `s3_server`."""
    yield from _bucket(s3_server)


def _bucket(server: S3Server) -> Iterator[str]:
    bucket = server.create_bucket()
    yield bucket
    # A test may have removed it, or locked it; a new one has another name, and the server's end takes all.
    with contextlib.suppress(Exception):
        server.remove_bucket(bucket)


# -- registries


@pytest.fixture
def start_registry() -> Iterator[Callable[..., Registry]]:
    """`start_registry(storage, **options)`: a running Registry, stopped at the test's end."""
    debian.require(distribution.PROGRAM)
    with contextlib.ExitStack() as stack:

        def start(storage: Path | S3Root, **options: Any) -> Registry:
            return stack.enter_context(Registry(storage, **options))

        yield start


@pytest.fixture(params=["disk", pytest.param("moto", marks=pytest.mark.slow), "ceph"])
def registry_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Path | S3Root:
    """A place for a registry on each kind of storage in turn: a folder, or a new bucket with a rootdirectory."""
    if request.param == "disk":
        return tmp_path / "registry"
    server: S3Server = request.getfixturevalue(request.param)
    bucket: str = request.getfixturevalue(f"{request.param}_bucket")
    return S3Root(server, bucket, "/reg")


@pytest.fixture
def with_skopeo() -> None:
    """For tests that push or pull with skopeo."""
    debian.require(skopeo.PROGRAM)


# -- Redis


@pytest.fixture(scope="session")
def redis_session() -> Iterator[redis_server.RedisServer]:
    debian.require(redis_server.PROGRAM)
    with redis_server.redis_server() as server:
        yield server


@pytest.fixture
def redis(redis_session: redis_server.RedisServer) -> redis_server.RedisServer:
    """An empty Redis."""
    import redis as redis_client

    with redis_client.Redis.from_url(redis_session.url) as client:
        client.flushall()
    return redis_session
