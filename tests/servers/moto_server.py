"""moto's S3 in a thread of this process: quick to start, kind to nothing but itself."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

from tests import fast
from tests.servers.s3 import S3Server


@contextlib.contextmanager
def moto_server() -> Iterator[S3Server]:
    from moto.server import ThreadedMotoServer

    fast.refuse("moto's S3")

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # it tells every request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _leave_unmeasured(server._server)
    try:
        host, port = server.get_host_and_port()
        yield S3Server(f"http://{host}:{port}", "test", "testtest", name="moto")
    finally:
        server.stop()


def _leave_unmeasured(server: Any) -> None:
    """Coverage follows every line of every thread, whosever it is: tests on moto took a quarter longer."""
    serve = server.process_request_thread

    def untraced(*arguments: Any) -> None:
        sys.settrace(None)
        serve(*arguments)

    server.process_request_thread = untraced
