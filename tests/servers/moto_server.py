"""moto's S3 in a thread of this process: quick to start, kind to nothing but itself."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from tests.servers.s3 import S3Server


@contextlib.contextmanager
def moto_server() -> Iterator[S3Server]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # it tells every request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Server(f"http://{host}:{port}", "test", "testtest", name="moto")
    finally:
        server.stop()
