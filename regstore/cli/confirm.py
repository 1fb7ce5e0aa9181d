"""A question before a change. `yes` (the option --yes) answers; without a terminal to ask on, it is needed."""

from __future__ import annotations

import contextlib
import sys
from typing import Final

from regstore.cli.output import printable
from regstore.cli.voice import voice
from regstore.errors import Refused

#: What else to do where a dry run shows the plan.
OR_LOOK: Final = ", or look with --dry-run"


def confirm(question: str, *, yes: bool) -> bool:
    if yes:
        return True
    _ask(question)
    return _is_yes(sys.stdin.readline())


async def confirm_meanwhile(question: str, *, yes: bool) -> bool:
    """The same without stopping the loop, which keeps a lock."""
    if yes:
        return True
    _ask(question)
    import asyncio

    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def read() -> None:
        loop.remove_reader(sys.stdin)
        answer.set_result(sys.stdin.readline())

    loop.add_reader(sys.stdin, read)
    try:
        return _is_yes(await answer)
    finally:
        loop.remove_reader(sys.stdin)


async def confirm_shown(question: str, *, yes: bool) -> bool:
    """The same of a plan that was shown."""
    refuse_unasked(yes=yes, else_say=OR_LOOK)
    return await confirm_meanwhile(question, yes=yes)


def refuse_silent(*, yes: bool, else_say: str = "") -> None:
    """Refused with --json and -q, which show no plan before it is carried out."""
    for option, silent in (("--json", voice().as_json), ("-q", voice().quiet)):
        if silent and not yes:
            raise Refused(f"with {option} no plan is shown that one could agree to: say --yes{else_say}")


def refuse_unasked(*, yes: bool, else_say: str = "") -> None:
    """Refused where nobody can be asked. Before the work begins, where the question comes in its midst."""
    if yes:
        return
    refuse_silent(yes=yes, else_say=else_say)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Refused(f"this needs a yes, and there is no terminal to ask on: say --yes{else_say}")


def _ask(question: str) -> None:
    refuse_unasked(yes=False)
    _forget_typed()
    print(f"{printable(question)} [y/N] ", end="", file=sys.stderr, flush=True)


def _forget_typed() -> None:
    """What was typed before the question is no answer to it."""
    import termios

    with contextlib.suppress(OSError, ValueError, termios.error):
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)


def _is_yes(answer: str) -> bool:
    return answer.strip().lower() in ("y", "yes")
