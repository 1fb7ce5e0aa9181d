"""The server's certificate, taken anew when its files change: what renews certificates need not restart the server.

A file that has become none, or no longer fits the other, leaves the certificate that was there, and the log says so.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from regstore.errors import InputError
from regstore.events import Notice, OnEvent
from regstore.serve.access import Stamp, stamp_of

#: Seconds between two looks at the files.
LOOK: Final = 30.0


class Certificate:
    """Of PEM files. `context` is what connections are made by; a renewed certificate is that of the next one."""

    def __init__(self, cert: Path, key: Path, *, on_event: OnEvent) -> None:
        """InputError where the files are no certificate and its key."""
        self._cert = cert
        self._key = key
        self._on_event = on_event
        self._stamps = self._look_at()
        self._failure = ""
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._load(self.context)

    def look(self) -> None:
        """Take the files' certificate if they have changed."""
        stamps = self._look_at()
        if stamps == self._stamps and not self._failure:
            return
        try:
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))  # what fails half-way would be no pair
            self._load(self.context)
        except InputError as error:
            if str(error) != self._failure:
                self._on_event(Notice(message=f"{error}; the one that was there is served on"))
            self._failure = str(error)
        else:
            self._on_event(Notice(message=f"the certificate {self._cert} was renewed"))
            self._failure = ""
        self._stamps = stamps

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Looked at again and again inside the context."""

        async def keep() -> None:
            while True:
                await asyncio.sleep(LOOK)
                self.look()

        task = asyncio.create_task(keep())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _look_at(self) -> tuple[Stamp | None, ...]:
        return tuple(stamp_of(path) for path in (self._cert, self._key))

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._cert, self._key, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"{self._cert} and {self._key} are no certificate and its key: {error}") from error


def _no_password() -> str:
    raise InputError("the key is encrypted: give one that needs no password")
