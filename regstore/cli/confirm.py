"""A question before a change. `yes` (the option --yes) answers; without a terminal to ask on, it is needed."""

from __future__ import annotations

import sys

from regstore.cli.output import printable
from regstore.errors import Refused


def confirm(question: str, *, yes: bool) -> bool:
    if yes:
        return True
    _ask(question)
    return _is_yes(sys.stdin.readline())


async def confirm_meanwhile(question: str, *, yes: bool, else_say: str = "") -> bool:
    """The same without stopping the loop, which keeps a lock. else_say: what else to do where nobody can be asked."""
    if yes:
        return True
    _ask(question, else_say)
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


def _ask(question: str, else_say: str = "") -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Refused(f"this needs a yes, and there is no terminal to ask on: say --yes{else_say}")
    print(f"{printable(question)} [y/N] ", end="", file=sys.stderr, flush=True)


def _is_yes(answer: str) -> bool:
    return answer.strip().lower() in ("y", "yes")
