"""The pool of worker processes: what goes in and comes out, and what happens when one ends."""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from regstore import __version__
from regstore.errors import NotFound, RegstoreError, StorageError
from regstore.events import Event, Notice
from regstore.storage.base import Storage
from regstore.storage.opening import open_scratch, open_storage
from regstore.tasks import HERE, Pool, WorkerDied
from tests.tasks import jobs

pytestmark = pytest.mark.long


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[Pool]:
    async with Pool(2, concurrency=10) as pool:
        yield pool


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Storage]:
    async with open_storage(tmp_path) as storage:
        await storage.put("a/key", b"its bytes")
        yield storage


def is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


async def test_tasks_run_in_as_many_processes_as_are_wanted(pool: Pool, store: Storage) -> None:
    found = await asyncio.gather(*(pool.run(jobs.process_id, 0.2, store) for _ in range(4)))
    assert len(set(found)) == 2 and os.getpid() not in found
    assert set(found) == set(pool.processes)


async def test_none_is_started_without_need(store: Storage) -> None:
    async with Pool(2) as pool:
        assert not pool.processes
        await pool.run(jobs.process_id, 0.0, store)
        await pool.run(jobs.process_id, 0.0, store)
        [process] = pool.processes
    assert not is_there(process)


async def test_what_only_this_process_can_open_is_worked_on_here(pool: Pool, store: Storage) -> None:
    async with open_scratch() as scratch:
        await scratch.put("key", b"here")
        assert await pool.run(jobs.process_id, 0.0, scratch, store) == os.getpid()
        assert await pool.run(jobs.read_key, "key", scratch) == b"here"
    assert await HERE.run(jobs.read_key, "a/key", store) == b"its bytes"
    assert not pool.processes


async def test_counters_come_out_of_the_store_as_it_was_given(pool: Pool, store: Storage) -> None:
    before = store.counters.total
    assert await pool.run(jobs.read_key, "a/key", store) == b"its bytes"
    once = store.counters.total - before
    await asyncio.gather(*(pool.run(jobs.read_key, "a/key", store) for _ in range(4)))
    assert store.counters.total - before == 5 * once > 0


async def test_errors_come_out_as_they_went_in(pool: Pool, store: Storage) -> None:
    with pytest.raises(NotFound) as not_found:
        await pool.run(jobs.read_key, "no/such", store)
    with pytest.raises(NotFound) as here:
        await store.get("no/such")
    assert (str(not_found.value), not_found.value.key) == (str(here.value), "no/such")
    with pytest.raises(StorageError, match="it failed") as failed:
        await pool.run(jobs.fail, "some/key", store)
    cause = failed.value.__cause__
    assert isinstance(cause, NotFound) and (cause.key, str(cause)) == ("some/key", "no such key: some/key in there")
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        await pool.run(jobs.be_wrong, "a mistake", store)


async def test_events_and_the_share_of_requests(pool: Pool, store: Storage) -> None:
    seen: list[Event] = []
    assert await pool.run(jobs.tell, "a word", store, on_event=seen.append) == 5
    assert seen == [Notice(message="a word")]


async def test_a_task_whose_worker_dies_is_begun_again(pool: Pool, store: Storage) -> None:
    assert await pool.run(jobs.die, 1, store) == 1
    assert await pool.run(jobs.die, 2, store) == 2


async def test_three_deaths_are_an_error_of_the_task_alone(pool: Pool, store: Storage) -> None:
    with pytest.raises(WorkerDied, match=r"ended 3 times while it was to die \(signal SIGKILL\).*--workers 1"):
        await pool.run(jobs.die, 3, store)
    assert await pool.run(jobs.read_key, "a/key", store) == b"its bytes"


async def test_what_a_worker_said_at_its_end_is_told(pool: Pool, store: Storage) -> None:
    with pytest.raises(WorkerDied, match=r"\(exit code 7: MemoryError\)"):
        await pool.run(jobs.end_with_words, "MemoryError", store)


async def test_a_result_that_cannot_travel_is_an_error(pool: Pool, store: Storage) -> None:
    with pytest.raises(Exception, match="pickle"):
        await pool.run(jobs.give_what_cannot_travel, "", store)


async def test_a_task_that_was_cancelled_by_nobody_has_no_result(pool: Pool, store: Storage) -> None:
    """None may be one, of a task that has none to give."""
    with pytest.raises(RegstoreError, match="cancelled by nobody"):
        await pool.run(jobs.be_cancelled_by_nobody, None, store)


async def test_all_that_a_dead_worker_had_is_begun_again(pool: Pool, store: Storage) -> None:
    work = [asyncio.create_task(pool.run(jobs.process_id, 1.0, store)) for _ in range(6)]
    while len(pool.processes) < 2:
        await asyncio.sleep(0.01)
    killed = pool.processes[0]
    os.kill(killed, signal.SIGKILL)
    found = await asyncio.gather(*work)
    assert len(found) == 6 and killed not in found


async def test_who_cancels_waits_for_the_end_of_the_work(pool: Pool, store: Storage, tmp_path: Path) -> None:
    tidied = tmp_path / "tidied"
    work = asyncio.create_task(pool.run(jobs.wait_and_tidy_up, tidied, store))
    while not (tmp_path / "begun").exists():
        await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert tidied.exists()
    assert await pool.run(jobs.read_key, "a/key", store) == b"its bytes"


async def test_a_worker_that_has_nothing_to_do_ends(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regstore.tasks.pool._IDLE", 0.05)
    async with Pool(2) as pool:
        process = await pool.run(jobs.process_id, 0.0, store)
        while pool.processes or is_there(process):
            await asyncio.sleep(0.01)
        assert await pool.run(jobs.process_id, 0.0, store) != process


async def test_workers_end_with_who_asked(store: Storage, tmp_path: Path) -> None:
    """Killed -9, it can't tell them."""
    program = (
        "import asyncio, os, signal\n"
        "from regstore.storage.opening import open_storage\n"
        "from regstore.tasks import Pool\n"
        "from tests.tasks import jobs\n"
        "async def main():\n"
        f"    storage = open_storage({str(tmp_path)!r})\n"
        "    pool = Pool(2)\n"
        "    print(await pool.run(jobs.process_id, 0.0, storage), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).parent.parent.parent
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True
    )
    assert done.returncode == -signal.SIGKILL
    worker = int(done.stdout)
    while is_there(worker):
        await asyncio.sleep(0.01)


async def test_a_worker_that_was_stopped_is_replaced(
    pool: Pool, store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never answers, nor does it end: no time-out of a request helps there."""
    monkeypatch.setattr("regstore.tasks.pool._SILENT", 2)
    work = [asyncio.create_task(pool.run(jobs.process_id, 0.5, store)) for _ in range(2)]
    while len(pool.processes) < 2:
        await asyncio.sleep(0.01)
    stopped = pool.processes[0]
    os.kill(stopped, signal.SIGSTOP)
    assert stopped not in await asyncio.gather(*work)
    assert not is_there(stopped)


async def test_who_cancels_does_not_wait_for_a_stopped_one(
    store: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regstore.tasks.pool.PATIENCE", 0.2)
    async with Pool(2) as pool:
        work = asyncio.create_task(pool.run(jobs.wait_and_tidy_up, tmp_path / "tidied", store))
        while not (tmp_path / "begun").exists():
            await asyncio.sleep(0.01)
        [stopped] = pool.processes
        os.kill(stopped, signal.SIGSTOP)
        for _ in range(3):
            work.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await work
    assert not is_there(stopped)


async def test_workers_take_no_signal_but_one(pool: Pool, store: Storage) -> None:
    work = asyncio.create_task(pool.run(jobs.process_id, 1.0, store))
    first = await pool.run(jobs.process_id, 0.0, store)
    for process in pool.processes:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(process, number)
    assert {first, await work} == set(pool.processes)


async def test_a_regstore_that_was_replaced_meanwhile_is_not_asked(
    pool: Pool, store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regstore.tasks.pool.__version__", "0.0.9")
    with pytest.raises(RegstoreError, match=rf"regstore 0.0.9 was replaced by {__version__} while it ran"):
        await pool.run(jobs.process_id, 0.0, store)


async def test_no_process_can_be_started(pool: Pool, store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    for name in ("subprocess.Popen", "socket.socketpair", "tempfile.TemporaryFile"):
        with monkeypatch.context() as patch:
            patch.setattr(f"regstore.tasks.pool.{name}", refuse)
            with pytest.raises(RegstoreError, match=r"can be started: Cannot allocate memory; --workers 1"):
                await pool.run(jobs.process_id, 0.0, store)
    one = await pool.run(jobs.process_id, 0.0, store)
    monkeypatch.setattr("regstore.tasks.pool.subprocess.Popen", refuse)
    found = await asyncio.gather(*(pool.run(jobs.process_id, 0.01, store) for _ in range(4)))
    assert set(found) == {one}, "the one that is there does all"


@pytest.mark.parametrize("around", ["exec {} <&-", "exec {} <&- >&- 2>&-", "ulimit -n 16; exec {}"])
async def test_without_standard_input_and_with_few_files(around: str, store: Storage, tmp_path: Path) -> None:
    program = (
        "import asyncio\n"
        "from regstore.storage.opening import open_storage\n"
        "from regstore.tasks import Pool\n"
        "from tests.tasks import jobs\n"
        "async def main():\n"
        f"    async with open_storage({str(tmp_path)!r}) as storage, Pool(2) as pool:\n"
        "        await storage.put('done', await pool.run(jobs.read_key, 'a/key', storage))\n"
        "asyncio.run(main())\n"
    )
    command = around.format(shlex.join([sys.executable, "-c", program]))
    root = Path(__file__).parent.parent.parent
    await asyncio.to_thread(subprocess.run, ["sh", "-c", command], cwd=root, check=True, timeout=60)
    assert await store.get("done") == b"its bytes"
