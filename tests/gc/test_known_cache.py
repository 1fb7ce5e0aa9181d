"""What is known of the registry's cache, what of the trash that frees, and how the rest is put into words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from regstore.layout import REGISTRY_STATE
from regstore.state.journal import LATE, STALLED, RunRecord
from regstore.state.known_cache import KnownCache, judge_cache
from regstore.state.not_freed import Obstacle, not_freed
from regstore.state.registry_state import (
    CacheKind,
    CacheWord,
    RegistryState,
    Restart,
    read_state,
    write_state,
)
from regstore.state.trashed import TrashedRun
from tests.gc.scenes import model_storage, small_registry
from tests.model.random_registry import DAY, NOW

SECOND = 1_000_000
KINDS: tuple[CacheKind, ...] = ("none", "inmemory", "redis", "unknown")


def word(kind: CacheKind, source: str = "config.yml", said: int = NOW) -> CacheWord:
    return CacheWord(kind=kind, source=source, said=said)


def restart(began: int, status: int | None = 0) -> Restart:
    return Restart(run="20260101T000000Z-00000000", began=began, seconds=1.5, status=status, output="ok")


def trashed(ended: int, *, blobs: int = 2, done: dict[str, Any] | None = None) -> TrashedRun:
    run = "20260101T000000Z-00000001"
    record = RunRecord(run=run, begun={}, done=done or {}, parts=(), seen=(), written=ended)
    return TrashedRun(
        run=run,
        started=ended,
        ended=ended,
        complete=True,
        command="gc",
        blobs=blobs,
        blob_bytes=blobs * 10,
        record=record,
    )


# -- what is believed


@pytest.mark.parametrize("remembered", [None, *KINDS])
@pytest.mark.parametrize("told", [None, *KINDS])
def test_a_configuration_is_believed_where_it_says_no_less(
    told: CacheKind | None, remembered: CacheKind | None
) -> None:
    old = word(remembered, "option", NOW - DAY) if remembered else None
    new = word(told) if told else None
    known = judge_cache(new, RegistryState(cache=old))
    assert known.kind == (told or remembered or "unknown")
    less = {(old, new) for old in ("inmemory", "redis", "unknown") for new in KINDS if new != old} - {
        ("unknown", "inmemory")
    }
    doubted = (remembered, told) in less
    assert bool(known.doubt) == doubted
    assert known.to_remember() == (None if doubted else new)
    if doubted:
        assert "config.yml says" in known.doubt and f"option said {remembered} on " in known.doubt
        assert f"--registry-cache {told}" in known.settle
        # Nothing frees anything then, no restart either; the word of an option does.
        assert not known.has_forgotten(trashed(NOW - DAY), NOW)
        settled = judge_cache(new, RegistryState(cache=old), by_option=True)
        assert not settled.doubt and settled.to_remember() == new


def test_what_is_said_again_the_same_day_is_no_news() -> None:
    old = word("none", said=NOW)
    assert judge_cache(word("none", said=NOW + 1), RegistryState(cache=old)).to_remember() is None
    tomorrow = word("none", said=NOW + DAY)
    assert judge_cache(tomorrow, RegistryState(cache=old)).to_remember() == tomorrow
    assert str(judge_cache(None, RegistryState(cache=old))) == f"none, as config.yml said on {old.day}"


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_forgotten(kind: CacheKind) -> None:
    run = trashed(NOW - DAY)
    assert KnownCache(kind=kind).has_forgotten(run) == (kind in ("none", "redis"))
    assert not KnownCache(kind="inmemory", restarted_after=run.ended).has_forgotten(run)
    assert KnownCache(kind="inmemory", restarted_after=run.ended + 1).has_forgotten(run)
    assert KnownCache(kind="inmemory").has_forgotten(run, run.ended + 1)
    assert not KnownCache(kind=kind).with_doubt("x", "y").has_forgotten(run, NOW)


def test_a_restart_that_failed_or_lies_ahead_frees_nothing() -> None:
    run = trashed(NOW - DAY)
    state = RegistryState(cache=word("inmemory"), restart=restart(NOW - SECOND))
    assert judge_cache(None, state).as_of(NOW).has_forgotten(run)
    assert not judge_cache(None, state).as_of(NOW - 2 * SECOND).has_forgotten(run)
    for status in (1, -9, None):
        failed = replace(state, restart=restart(NOW - SECOND, status))
        assert not judge_cache(None, failed).has_forgotten(run)
    # It was one of a cache in memory; what nobody knows may be another.
    assert not judge_cache(None, replace(state, cache=None)).has_forgotten(run)
    assert not judge_cache(word("unknown"), replace(state, cache=None)).has_forgotten(run)


# -- what is remembered


async def test_the_state_comes_back_as_it_was_written() -> None:
    storage = model_storage(small_registry())
    assert await read_state(storage) == RegistryState()
    state = RegistryState(cache=word("redis"), restart=restart(NOW), failed_restart=restart(NOW, None))
    await write_state(storage, state)
    assert await read_state(storage) == state


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"[]",
        b"{",
        b'{"cache": "none"}',
        b'{"cache": {"kind": "nothing", "source": "x", "said": 1}}',
        b'{"cache": {"kind": ["none"], "source": "x", "said": 1}}',
        b'{"cache": {"kind": "none", "source": "x", "said": 1e30}}',
        b'{"cache": {"kind": "none", "source": "x", "said": Infinity}}',
        b'{"cache": {"kind": "none", "source": "x"}}',
        b'{"restart": {"run": "x", "began": NaN, "seconds": 1, "status": 0, "output": ""}}',
        b'{"restart": {"run": "x", "began": 1e30, "seconds": 1, "status": 0, "output": ""}}',
        b"\xff",
        b"[" * 100_000,
    ],
)
async def test_what_can_not_be_read_was_never_said(damaged: bytes) -> None:
    storage = model_storage(small_registry())
    await storage.put(REGISTRY_STATE, damaged)
    assert await read_state(storage) == RegistryState()


# -- what is not freed yet


@pytest.mark.parametrize(
    ("run", "known", "older_than", "obstacle", "until"),
    [
        (trashed(NOW - 9 * DAY), KnownCache(), 7 * DAY, Obstacle.CACHE, None),
        (trashed(NOW), KnownCache(kind="inmemory"), 7 * DAY, Obstacle.CACHE, None),
        (trashed(NOW), KnownCache(kind="none"), 7 * DAY, Obstacle.AGE, NOW + 7 * DAY),
        (trashed(NOW), KnownCache(kind="none"), 0, Obstacle.PUSH, NOW + STALLED),
        (trashed(NOW), KnownCache(kind="none"), None, Obstacle.PUSH, NOW + STALLED),
        (trashed(NOW, done={"failures": ["x"]}), KnownCache(kind="none"), 0, Obstacle.CUT_SHORT, NOW + LATE),
        (trashed(NOW - DAY), KnownCache(kind="none"), 0, Obstacle.NOTHING, None),
        (trashed(NOW), KnownCache(kind="inmemory", restarted_after=NOW + 1), 0, Obstacle.NOTHING, None),
    ],
)
def test_what_stands_in_the_way(
    run: TrashedRun, known: KnownCache, older_than: int | None, obstacle: Obstacle, until: int | None
) -> None:
    left = not_freed([run, replace(run, blobs=0)], known, now=NOW + 2, older_than=older_than)
    (part,) = left.parts
    assert (part.obstacle, part.until) == (obstacle, until)
    assert (left.blobs, left.blob_bytes, part.runs) == (2, 20, (run.run,))
    assert part.because and part.to_free


def test_a_bucket_with_versions() -> None:
    left = not_freed([], KnownCache(kind="none"), now=NOW)
    assert left.with_versions(None) == left.with_versions((0, 0)) == left
    (part,) = left.with_versions((3, 30)).parts
    assert (part.obstacle, part.blob_bytes) == (Obstacle.VERSIONS, 30)
