"""A registry that is told to stop ends what is under way first."""

from __future__ import annotations

import base64
import http.client
import os
import signal
import ssl
from urllib.parse import urlsplit

import pytest

from regstore.deployment.wanted import CA_CERT, Deployment
from tests.deployment.conftest import PASSWORD, USER
from tests.servers.process import Child, wait_until


@pytest.mark.servers
def test_a_push_that_is_under_way_ends_well(asked: Deployment, process: Child) -> None:
    context = ssl.create_default_context(cafile=asked.seen(CA_CERT))
    authorization = {"Authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
    connection = http.client.HTTPSConnection("localhost", asked.port, context=context, timeout=30)
    connection.request("POST", "/v2/team/app/blobs/uploads/", headers=authorization)
    with connection.getresponse() as answer:
        assert answer.status == 202
        place = urlsplit(answer.headers["Location"])
        answer.read()
    connection.putrequest("PATCH", f"{place.path}?{place.query}")
    headers = {"Content-Length": "10", "Content-Type": "application/octet-stream", "Expect": "100-continue"}
    for name, value in {**authorization, **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    # It is under way: a connection that is idle is closed at once.
    assert connection.sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.send(b"12345")
    os.kill(process.pid, signal.SIGTERM)
    wait_until(lambda: "stopping server gracefully" in process.log.read_text(), "the registry to have heard it")
    connection.send(b"67890")
    with connection.getresponse() as answer:
        assert answer.status == 202
        assert answer.headers["Range"] == "0-9"
    connection.close()
    wait_until(lambda: not process.running, "the registry to end")
