"""Worker processes of this machine, started when they are wanted, and ended with who asked."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from typing import Any, Final, Self

from regstore import __version__
from regstore.concurrency import in_thread
from regstore.errors import RegstoreError
from regstore.events import OnEvent, ignore
from regstore.machine import usable_cores, usable_memory
from regstore.storage.base import Counters, Storage
from regstore.storage.optional import OpensElsewhere, StoreAddress
from regstore.tasks.messages import BEAT, PATIENCE, Alive, Answer, Ask, Cancel, Message, Told, frame, read
from regstore.tasks.packing import unpack
from regstore.tasks.runner import Context, Done, Task, Work, WorkerDied

#: Times that a task is begun, where its workers die.
_TRIES: Final = 3
#: Seconds without a sign of life after which a worker hangs: it was stopped, or its event loop stands still.
_SILENT: Final = 60
#: Bytes of the machine's memory for each: several times what one takes.
_MEMORY: Final = 512 << 20
#: Seconds without a task after which a worker ends, and its memory is free.
_IDLE: Final = 2.0
#: An exit code.
_OTHER_VERSION: Final = 78
#: The search path is the parent's, so that both run the same regstore; unless another one was installed meanwhile, of
#: which nothing is loaded.
_PROGRAM: Final = f"""
import sys, json
sys.path[:] = json.loads(sys.argv[2])
import regstore
if regstore.__version__ != sys.argv[3]:
    print(regstore.__version__, file=sys.stderr)
    sys.exit({_OTHER_VERSION})
from regstore.tasks.process import main
main()
"""


def usual_size() -> int:
    """As many processes as cores may be used, where memory lets them."""
    return max(1, min(usable_cores(), usable_memory() // _MEMORY))


class Pool:
    """A `Runner`. Processes are spawned, not forked, one when all that there are have something to do, up to `size`.

    Each opens a store for itself, at the first task that has it, with an equal share of `concurrency` requests; so a
    store that only this process can open (`OpensElsewhere`) is worked on here. What a worker counts of requests, and
    what it has to tell, comes out of the store as it was given. A worker that dies, or gives no sign of life for a
    minute, is replaced, and its tasks are begun again. Where no more can be started, those that are there do all.
    Workers take no signals but -9: who asked is told, and cancels.
    """

    is_far: Final = False

    def __init__(self, size: int | None = None, *, concurrency: int = 128, eager: bool = False) -> None:
        """size: None for `usual_size`. eager: little work is handed out, too, as it is in tests."""
        self.size: Final = max(1, size or usual_size())
        self._concurrency = concurrency
        self._eager = eager
        self._workers: list[_Worker] = []
        self._most = self.size
        #: Those that were asked to end, or have died.
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """All processes have ended."""
        self._closed = True
        self._let_go(self._workers)
        await asyncio.gather(*self._ending)

    @property
    def share(self) -> int:
        return self.size

    @property
    def near(self) -> Pool:
        return self

    @property
    def processes(self) -> list[int]:
        """Process IDs of the workers that are there."""
        return [worker.process.pid for worker in self._workers]

    def reaches(self, *stores: Storage) -> bool:
        return self.size > 1 and all(isinstance(store, OpensElsewhere) for store in stores)

    def takes(self, count: int, least: int, *stores: Storage) -> bool:
        return (self._eager or count >= least) and self.reaches(*stores)

    async def run(self, task: Task[Work, Done], work: Work, *stores: Storage, on_event: OnEvent = ignore) -> Done:
        if not self.reaches(*stores):
            share = self._concurrency
            return await task(Context(stores=stores, concurrency=share, on_event=on_event), work)
        addresses = tuple(store.address() for store in stores if isinstance(store, OpensElsewhere))
        for attempt in range(_TRIES):
            worker = await self._free_worker()
            try:
                result = await worker.run(task, work, addresses, stores, attempt, on_event)
            except _Gone:
                worker.refuse_another_version()
                continue
            finally:
                if not worker.busy:
                    asyncio.get_running_loop().call_later(_IDLE, self._let_go_if_idle, worker)
            return result  # type: ignore[no-any-return]
        name = task.__name__.replace("_", " ")
        raise WorkerDied(
            f"a worker process ended {_TRIES} times while it was to {name} ({worker.how_it_ended}): where memory is "
            "short, run the command with --workers 1; nothing is lost, and the next run goes on"
        )

    async def _free_worker(self) -> _Worker:
        """The one with the least to do; a new one where all have something, and there may be more."""
        assert not self._closed, "the pool is closed"
        self._let_go([worker for worker in self._workers if worker.gone])
        if all(worker.busy for worker in self._workers) and len(self._workers) < self._most:
            try:
                self._workers.append(_Worker(-(-self._concurrency // self.size)))
            except RegstoreError:
                if not self._workers:
                    raise
                self._most = len(self._workers)
        return min(self._workers, key=lambda worker: worker.busy)

    def _let_go(self, workers: Iterable[_Worker]) -> None:
        leaving = list(workers)
        self._workers = [worker for worker in self._workers if worker not in leaving]
        for worker in leaving:
            task = asyncio.create_task(worker.end())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def _let_go_if_idle(self, worker: _Worker) -> None:
        loop = asyncio.get_running_loop()
        if worker in self._workers and not worker.busy and loop.time() - worker.last_busy >= _IDLE:
            self._let_go([worker])


class _Gone(Exception):
    """The worker ended with the task unanswered."""


class _Worker:
    """One process, and what it has to do."""

    def __init__(self, concurrency: int) -> None:
        try:
            self._begin(concurrency)
        except OSError as error:
            raise RegstoreError(
                f"no worker process can be started: {error.strerror or error}; --workers 1 needs none"
            ) from error
        self.gone = False
        self.last_busy = 0.0
        self._last_word = ""
        self._hangs = False
        self._leaves = False
        self._heard = 0
        self._numbers = 0
        self._open: dict[int, _Call] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading = asyncio.create_task(self._read())
        self._connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watching = asyncio.create_task(self._watch())

    def _begin(self, concurrency: int) -> None:
        with ExitStack() as stack:
            #: What it writes on standard error: nothing, unless it can't even begin.
            self._words = stack.enter_context(tempfile.TemporaryFile())
            ours, its = socket.socketpair()
            stack.enter_context(ours)
            with its:
                self.process = subprocess.Popen(
                    [
                        sys.executable,
                        *_interpreter_flags(),
                        "-c",
                        _PROGRAM,
                        json.dumps({"concurrency": concurrency}),
                        json.dumps(sys.path),
                        __version__,
                    ],
                    stdin=its.fileno(),  # right even where this process has no standard input, and its number is taken
                    stdout=subprocess.DEVNULL,
                    stderr=self._words,
                    process_group=0,  # Ctrl-C is for who asked
                )
            self._socket = ours
            stack.pop_all()

    @property
    def busy(self) -> int:
        """How many tasks it has."""
        return len(self._open)

    @property
    def how_it_ended(self) -> str:
        code = self.process.poll()
        if self._hangs or code is None:
            return "it does not answer"
        if code < 0:
            return f"signal {signal.Signals(-code).name}"
        return f"exit code {code}: {self._last_word}" if self._last_word else f"exit code {code}"

    def refuse_another_version(self) -> None:
        """Of a worker that is gone."""
        if self.process.poll() == _OTHER_VERSION:
            raise RegstoreError(
                f"regstore {__version__} was replaced by {self._last_word} while it ran: run the command again; "
                "nothing is lost, and the next run goes on"
            )

    async def run(
        self,
        task: Task[Any, Any],
        work: Any,
        addresses: tuple[StoreAddress, ...],
        stores: tuple[Storage, ...],
        attempt: int,
        on_event: OnEvent,
    ) -> Any:
        self._numbers += 1
        number = self._numbers
        call = _Call(stores, addresses, on_event)
        self._open[number] = call
        try:
            await self._send(Ask(number=number, task=task, work=work, stores=addresses, attempt=attempt))
            try:
                return await asyncio.shield(call.answer)
            except asyncio.CancelledError:
                await self._cancel(number, call)
                raise
        finally:
            self._open.pop(number, None)
            self.last_busy = asyncio.get_running_loop().time()
            if call.answer.done() and not call.answer.cancelled():
                call.answer.exception()  # seen

    async def _cancel(self, number: int, call: _Call) -> None:
        """What it does has ended on return, or the process has. That this is cancelled once more changes nothing."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        asking = asyncio.create_task(self._ask_to_end(number, call))
        while not asking.done() and (left := deadline - loop.time()) > 0:
            with suppress(asyncio.CancelledError):
                await asyncio.wait([asking], timeout=left)
        if not asking.done():
            self.process.kill()
            asking.cancel()

    async def _ask_to_end(self, number: int, call: _Call) -> None:
        with suppress(_Gone):
            await self._send(Cancel(number=number))
        await asyncio.wait([call.answer])

    async def end(self) -> None:
        """It has ended. What it has to do is cancelled, and gets its time; one without anything needs none."""
        self._leaves = self.busy > 0 and self._writer is not None
        if self._leaves and self._writer is not None:
            self._writer.close()
        else:
            self.process.kill()
        try:
            await asyncio.wait([self._reading])
        finally:
            self.process.kill()
            self._watching.cancel()
            await asyncio.gather(self._watching, self._reading, return_exceptions=True)
            if self._writer is not None:
                self._writer.close()
                with suppress(OSError):
                    await self._writer.wait_closed()

    def _wait(self) -> None:
        """Not for ever: what waits for a disk that does not answer can't even be killed."""
        for _ in range(2):
            try:
                self.process.wait(PATIENCE)
                return
            except subprocess.TimeoutExpired:
                self.process.kill()

    async def _send(self, message: Message) -> None:
        await asyncio.shield(self._connected)
        if self.gone or self._writer is None:
            raise _Gone
        try:
            self._writer.write(frame(message))
            await self._writer.drain()
        except OSError as error:
            raise _Gone from error

    async def _read(self) -> None:
        try:
            reader, self._writer = await asyncio.open_unix_connection(sock=self._socket)
            self._connected.set_result(None)
            while True:
                message = await read(reader)
                self._heard += 1
                if not isinstance(message, Alive):
                    self._take(message)
        except EOFError:
            pass
        finally:
            self.gone = True
            self._watching.cancel()
            if not self._connected.done():
                self._connected.set_result(None)
            if not self._leaves:
                self.process.kill()  # one that closed its end, or sent what can't be read
            await in_thread(self._wait)
            self._last_word = self._read_words()
            for call in self._open.values():
                if not call.answer.done():
                    call.answer.set_exception(_Gone())

    async def _watch(self) -> None:
        """Kill it where it hangs. Counted in turns of this event loop, so that the sleep of a whole machine, or of this
        process, is not held against it."""
        silent = 0
        while silent < _SILENT:
            heard = self._heard
            await asyncio.sleep(BEAT)
            silent = 0 if self._heard > heard else silent + 1
        self._hangs = True
        self.process.kill()

    def _read_words(self) -> str:
        """The last line, which says which error it was."""
        self._words.seek(0)
        lines = self._words.read().decode(errors="replace").splitlines()
        self._words.close()
        return lines[-1].strip() if lines else ""

    def _take(self, message: Answer | Told) -> None:
        call = self._open.get(message.number)
        if call is None:
            return
        if isinstance(message, Told):
            call.on_event(message.event)
            return
        call.count(message.counters)
        if call.answer.done():
            return
        if message.error is not None:
            call.answer.set_exception(unpack(message.error))
        else:
            call.answer.set_result(message.result)


class _Call:
    """One task that a worker has."""

    def __init__(self, stores: tuple[Storage, ...], addresses: tuple[StoreAddress, ...], on_event: OnEvent) -> None:
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.on_event = on_event
        self._counters = {address: store.counters for address, store in zip(addresses, stores, strict=True)}

    def count(self, found: Mapping[StoreAddress, Counters]) -> None:
        for address, counters in found.items():
            self._counters[address].add(counters)


def _interpreter_flags() -> list[str]:
    """Warnings and modes as this process has them."""
    return [f"-W{option}" for option in sys.warnoptions] + (["-B"] if sys.dont_write_bytecode else [])
