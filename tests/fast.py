"""`--fast`: what a change is tried with while it is written. It leaves out what starts a server or a program, and what
is marked `long`; Hypothesis tries a fifth of its examples.

Whatever is not left out may be run so, also on a machine that has none of the servers: a test that starts a program,
or moto, then fails, and so does one that takes more than a few seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

#: Whoever uses one of these has a server or a program started.
FIXTURES: Final = frozenset(
    {"ceph", "moto", "redis_session", "spark_cluster", "start", "start_registry", "with_skopeo"}
)
#: Files whose tests all start programs, or take seconds each: end to end, killed at each step, under load.
LONG: Final = (
    "backup/test_check.py",
    "backup/test_damage.py",
    "backup/test_dating.py",
    "backup/test_end_to_end.py",
    "backup/test_interrupted.py",
    "backup/test_prune.py",
    "backup/test_publish.py",
    "backup/test_round_trip.py",
    "backup/test_whose.py",
    "cli/test_allocator.py",
    "cli/test_backup.py",
    "cli/test_demo.py",
    "cli/test_full_store.py",
    "cli/test_gc.py",
    "cli/test_health.py",
    "cli/test_inside_a_registry.py",
    "cli/test_migrate.py",
    "cli/test_nightly.py",
    "cli/test_program.py",
    "cli/test_retention.py",
    "cli/test_terminal.py",
    "cli/test_trash.py",
    "cli/test_unreadable.py",
    "cli/test_whose.py",
    "gc/test_caches.py",
    "gc/test_confirm.py",
    "gc/test_end_to_end.py",
    "gc/test_faults.py",
    "gc/test_killed.py",
    "gc/test_known_cache.py",
    "gc/test_plan_against_oracle.py",
    "gc/test_process_start.py",
    "gc/test_proofs.py",
    "gc/test_races.py",
    "gc/test_restart.py",
    "gc/test_retention.py",
    "gc/test_retention_run.py",
    "gc/test_run.py",
    "gc/test_state_machine.py",
    "gc/test_times_of_tags.py",
    "gc/test_trash.py",
    "gc/test_under_fire.py",
    "gc/test_unreadable.py",
    "gc/test_vanished.py",
    "gc/test_whose.py",
    "gc/test_why.py",
    "migrate/test_estimate.py",
    "migrate/test_migrate.py",
    "migrate/test_model.py",
    "migrate/test_pushed_meanwhile.py",
    "migrate/test_s3.py",
    "migrate/test_unfinished.py",
    "registry/test_sync.py",
    "test_bench_endpoint.py",
    "test_private.py",
    "test_process.py",
    "test_readme.py",
    "verify/test_against_oracle.py",
    "verify/test_busy.py",
    "verify/test_damage.py",
    "verify/test_killed.py",
    "verify/test_pushed_meanwhile.py",
    "verify/test_reading.py",
    "verify/test_unreadable.py",
)
#: Seconds of processor time. Twice what a quiet machine needs for the longest.
LIMIT: Final = 4.0
_STARTS: Final = ("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen")
_REMEDY: Final = "mark it @pytest.mark.long, so that --fast leaves it out"

_running = False
_broken: list[str] = []


def is_fast(item: pytest.Item) -> bool:
    names = set(getattr(item, "fixturenames", ()))
    names |= {value for value in _parameters(item).values() if isinstance(value, str)}
    marked = any(item.get_closest_marker(name) for name in ("long", "servers", "slow"))
    return not (marked or names & FIXTURES or item.path.as_posix().endswith(LONG))


def _parameters(item: pytest.Item) -> dict[str, Any]:
    found: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    return found


def watch() -> None:
    """From now on, tell of every program that a test starts. It can't be taken back in this process,
    and does not go with tracing (coverage) in threads."""

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if _running and event in _STARTS:
            refuse(f"a program ({event}: {str(arguments[0])[:100] if arguments else ''})")

    sys.addaudithook(heard)


def refuse(what: str) -> None:
    """Fails the test where it is one of --fast."""
    if _running:
        _broken.append(f"--fast starts no program and no server, and this test started {what}: {_REMEDY}")
        raise AssertionError(_broken[-1])


@contextmanager
def held(seconds: float | None = LIMIT) -> Iterator[None]:
    """Around a test: it fails where it did what a fast test may not do, whatever it made of the error. seconds: of
    processor time."""
    global _running
    _running, began = True, time.process_time()
    try:
        yield
    finally:
        _running = False
        broken, _broken[:] = list(_broken), []
    took = time.process_time() - began
    if seconds is not None and took > seconds:
        broken.append(
            f"this test took {took:.1f} s of processor time, more than the {seconds:g} of --fast: {_REMEDY}"
        )
    if broken:
        pytest.fail(broken[0], pytrace=False)
