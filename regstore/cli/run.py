"""Runs a command's work: errors to one sentence and an exit code, signals to a clean end."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, Final, TypeVar

import typer

from regstore import errors
from regstore.cli import underway
from regstore.cli.outcome import Failure, Outcome, Result
from regstore.cli.output import emit_error
from regstore.cli.workers import end_workers
from regstore.errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, RegstoreError

T = TypeVar("T")

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_REPORT = "This is a mistake in regstore, please report it"


#: What ends the work cleanly. A dropped session sends SIGHUP.
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Seconds.
_ECHO: Final = 1.0
_echoes: Final = ContextVar("regstore_echoes", default=False)
_WORDS: Final[dict[int, str]] = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "hung up",
}


class Interrupted(BaseException):
    """A signal ended the work, and it was cancelled cleanly."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end. The first SIGINT, SIGTERM or SIGHUP cancels it, and it can tidy up; the second ends the process.

    From the first line on: a signal that comes while the loop is still being made is kept until it runs.
    """
    received, at = 0, 0.0
    cancel: Callable[[], object] = int  # nothing to cancel yet

    def note(number: int, frame: object) -> None:
        nonlocal received, at
        if received:
            if time.monotonic() < at + _ECHO:
                return
            _let_signals_end(before)
            os.kill(os.getpid(), number)
        received, at = number, time.monotonic()
        if not _echoes.get():
            _let_signals_end(before)
        cancel()

    before = take_signals(note)
    try:
        import asyncio

        async def main() -> T:
            nonlocal cancel
            task = asyncio.current_task()
            assert task is not None
            cancel = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel)
            try:
                if received:
                    raise asyncio.CancelledError
                return await work
            finally:
                await end_workers()
                cancel = int

        try:
            return asyncio.run(main())
        except asyncio.CancelledError:
            if received:
                raise Interrupted(received) from None
            raise
    finally:
        work.close()  # where it was never begun
        if received and _echoes.get():  # the process ends, and as it says itself
            before = dict.fromkeys(before, signal.SIG_IGN)
        give_signals_back(before)


def _let_signals_end(numbers: Iterable[int]) -> None:
    for each in numbers:
        signal.signal(each, signal.SIG_DFL)


@contextlib.contextmanager
def hearing_echoes() -> Iterator[None]:
    """Within, a signal that comes again at once is the same: from systemd, which tells each process of a service, and
    from who started this one and passes it on."""
    token = _echoes.set(True)
    try:
        yield
    finally:
        _echoes.reset(token)


def take_signals(handler: Callable[[int, object], None]) -> dict[int, Any]:
    """Handle them all so; what handled each before."""
    before: dict[int, Any] = {}
    for number in _SIGNALS:
        known = signal.getsignal(number)
        if known is None or (number == signal.SIGHUP and known == signal.SIG_IGN):  # nohup
            continue
        try:
            signal.signal(number, handler)
        except ValueError:  # not the main thread: whoever runs it minds the signals
            break
        before[number] = known
    return before


def give_signals_back(before: dict[int, Any]) -> None:
    """Handle them as before again."""
    for number, handler in before.items():
        signal.signal(number, handler)


def guard(work: Callable[[], Result | int | None], *, debug: bool = False) -> Outcome:
    """Do a command's work: its errors become a sentence on stderr. What it gives back is a result, or an exit code."""
    debug = debug or bool(os.environ.get("REGSTORE_DEBUG"))
    try:
        given = work()
        sys.stdout.flush()
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError as error:
        if not _stdout_is_closed():
            return _explain(error, debug)
        _forget_stdout()
        return Outcome(exit_code=128 + signal.SIGPIPE)
    except (KeyboardInterrupt, Interrupted) as interruption:
        return _interrupted(getattr(interruption, "number", signal.SIGINT))
    except BaseException as error:
        if not isinstance(error, (Exception, BaseExceptionGroup)):
            raise  # SystemExit
        return _explain(error, debug)
    if isinstance(given, Result):
        return Outcome(exit_code=given.exit_code, result=given)
    return Outcome(exit_code=given or EXIT_OK)


def _interrupted(number: int) -> Outcome:
    word = f"{_WORDS.get(number, 'interrupted')}{underway.how_far()}"
    with contextlib.suppress(OSError):  # the terminal may be gone
        emit_error(word)
    code = 128 + number if number != signal.SIGINT else EXIT_INTERRUPTED
    return Outcome(exit_code=code, error=Failure(kind="Interrupted", message=word))


def give_up(error: OSError) -> int:
    """For what happens outside a command; the exit code."""
    code = _explain(error, bool(os.environ.get("REGSTORE_DEBUG"))).exit_code
    try:
        sys.stdout.flush()
    except OSError:
        _forget_stdout()
    return code


def _explain(error: BaseException, debug: bool) -> Outcome:
    """Say it in one sentence."""
    cause = _first(error)
    failure, code = _in_words(cause, debug)
    with contextlib.suppress(OSError):  # where nothing can be said, the exit code and who is told of it remain
        if debug:
            import traceback

            traceback.print_exception(error, file=sys.stderr)
        emit_error(failure.message)
    if isinstance(cause, OSError) and cause.errno in _NO_SPACE:
        try:
            sys.stdout.flush()
        except OSError:
            _forget_stdout()
    return Outcome(exit_code=code, error=failure)


def _in_words(cause: BaseException, debug: bool) -> tuple[Failure, int]:
    """And the exit code."""
    if isinstance(cause, RegstoreError):
        kind = next(each.__name__ for each in type(cause).__mro__ if each.__name__ in errors.__all__)
        return Failure(kind=kind, message=str(cause)), cause.exit_code
    if isinstance(cause, typer.BadParameter):  # of a value that is read within the command
        return Failure(kind="InputError", message=cause.format_message()), EXIT_USAGE
    if isinstance(cause, MemoryError):
        return Failure(
            kind="OutOfMemory", message="out of memory; a smaller --concurrency needs less"
        ), EXIT_FAILURE
    if isinstance(cause, OSError) and cause.errno in _NO_SPACE:
        return Failure(kind="OSError", message=f"no space left on the device{_of(cause)}"), EXIT_FAILURE
    if isinstance(cause, OSError) and cause.filename is not None and cause.strerror:
        return Failure(kind="OSError", message=f"{cause.strerror}{_of(cause)}"), EXIT_FAILURE
    advice = "" if debug else " (--debug shows the traceback)"
    return Failure(kind="Unexpected", message=f"{type(cause).__name__}: {cause}. {_REPORT}{advice}"), EXIT_FAILURE


def _first(error: BaseException) -> BaseException:
    """Of a group, the first error of ours, else the first of all."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [_first(each) for each in error.exceptions]
    return next((leaf for leaf in leaves if isinstance(leaf, RegstoreError)), leaves[0])


def _of(error: OSError) -> str:
    return f": {error.filename}" if error.filename is not None else ""


def _stdout_is_closed() -> bool:
    """Whether nobody reads stdout any more (a BrokenPipeError may also come from elsewhere)."""
    import select

    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), select.POLLOUT)
    except (OSError, ValueError):  # no file of the system's, as in tests
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _forget_stdout() -> None:
    """Point stdout nowhere, so that what could not be written does not fail once more at exit."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
