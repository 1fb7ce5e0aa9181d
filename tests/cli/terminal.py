"""The program on a pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Shown:
    """What a terminal got, stdout and stderr as they came."""

    code: int
    raw: str

    @property
    def text(self) -> str:
        return _ESCAPE.sub("", self.raw).replace("\r\n", "\n")

    @property
    def widest(self) -> int:
        return max((len(line) for line in self.text.replace("\r", "\n").split("\n")), default=0)


def on_terminal(
    *arguments: object,
    columns: int = 80,
    answer: str = "",
    answers: Sequence[tuple[str, str]] = (),
    until: Callable[[str], bool] | None = None,
    number: int = 0,
    seconds: float = 60.0,
    **environment: str,
) -> Shown:
    """Run it. answer: typed where it asks. answers: words that are waited for, and what is
    typed then, in this order. until, number: send this signal once what is shown is so."""
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "regstore", *map(str, arguments)],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        env=env | {"TERM": "xterm-256color", **environment},
        start_new_session=True,
    )
    os.close(inner)
    left, seen = list(answers), 0
    shown, end = b"", time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            if select.select([outer], [], [], 0.2)[0]:
                try:
                    piece = os.read(outer, 65536)
                except OSError:  # the other end is closed
                    break
                if not piece:
                    break
                shown += piece
            text = shown.decode(errors="replace")
            if answer and "[y/N]" in text:
                os.write(outer, f"{answer}\n".encode())
                answer = ""
            if left and left[0][0] in text[seen:]:
                words, reply = left.pop(0)
                seen = text.index(words, seen) + len(words)
                os.write(outer, f"{reply}\n".encode())
            if until is not None and until(text):
                process.send_signal(number)
                until = None
        code = process.wait(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(outer)
    return Shown(code, shown.decode(errors="replace"))
