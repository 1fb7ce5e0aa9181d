"""`--ping-url`: a monitor is told that a run begins, and how it ended, in the way of healthchecks.io.

URL/start at the beginning; URL itself where the exit code is 0; URL/EXITCODE where it is any other: also 3, for what
was left out (from a backup, say) is to be looked at. A GET each, tried three times, ten seconds each with all that it
waits for, and never a failure of the run: what can't be sent is told. No message has the URL, whose path is a secret,
nor what stands before its host.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

from regstore.errors import InputError

if TYPE_CHECKING:
    from urllib.request import Request

#: Seconds for the whole of a try; tries; seconds between two.
TIMEOUT: Final = 10.0
TRIES: Final = 3
PAUSE: Final = 1.0


def parse_ping_url(text: str) -> SplitResult:
    """InputError where it is no URL of a web server."""
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known or not text.isprintable() or " " in text:
        raise InputError("--ping-url is no URL such as https://hc-ping.com/UUID")
    return parts


@dataclass(frozen=True, kw_only=True)
class Ping:
    """One check of a monitor. pause: sleeps; say: takes what could not be sent."""

    url: SplitResult
    say: Callable[[str], None]
    pause: Callable[[float], None] = time.sleep

    def start(self) -> None:
        self._send("start", "the start")

    def end(self, exit_code: int) -> None:
        self._send("" if exit_code == 0 else str(exit_code), "the end")

    def _send(self, word: str, what: str) -> None:
        problem = ""
        for attempt in range(TRIES):
            if attempt:
                self.pause(PAUSE * attempt)
            problem = self._try(word)
            if not problem:
                return
            if problem.startswith("HTTP 4"):  # no such check
                break
        self.say(f"{self.url.hostname} could not be told of {what} of this run: {problem}")

    def _try(self, word: str) -> str:
        """Why not; "" where it is told. Never with the URL in it. In a thread, for nothing else ends all that a try
        may wait for."""
        found: list[str] = []
        trying = Thread(target=lambda: found.append(self._ask(word)), daemon=True)
        trying.start()
        trying.join(TIMEOUT)
        return found[0] if found else "no answer in time"

    def _ask(self, word: str) -> str:
        from http.client import HTTPException
        from urllib.error import HTTPError, URLError
        from urllib.request import urlopen

        try:
            with urlopen(self._request(word), timeout=TIMEOUT):
                pass  # its status says all
        except HTTPError as error:
            error.close()
            return f"HTTP {error.code}"
        except URLError as error:
            reason = error.reason
            return str(getattr(reason, "strerror", None) or type(reason).__name__) if reason else "no connection"
        except (OSError, HTTPException, ValueError) as error:
            return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
        return ""

    def _request(self, word: str) -> Request:
        from base64 import b64encode
        from urllib.parse import unquote
        from urllib.request import Request

        import regstore

        path = self.url.path.rstrip("/") + (f"/{word}" if word else "")
        host = self.url.netloc.rpartition("@")[2]
        request = Request(urlunsplit(self.url._replace(netloc=host, path=path, fragment="")))
        request.add_header("User-Agent", "/".join(("regstore", regstore.__version__)))
        if self.url.username is not None:
            user = f"{unquote(self.url.username)}:{unquote(self.url.password or '')}"
            request.add_unredirected_header("Authorization", f"Basic {b64encode(user.encode()).decode()}")
        return request
