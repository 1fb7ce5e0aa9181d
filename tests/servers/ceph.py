"""A Ceph RADOS gateway over a one-node cluster in memory (`rgw.sh`): a real, strict S3 server."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.servers.process import ServerError, clean_environment, free_port
from tests.servers.s3 import S3Server

_SCRIPT: Final = Path(__file__).with_name("rgw.sh")
_ATTEMPTS: Final = 4
PROGRAMS: Final = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "ceph", "curl")


@contextlib.contextmanager
def ceph_server(*, extra_conf: str = "", store: str = "memstore") -> Iterator[S3Server]:
    """A fresh, empty gateway, gone with its data at the end. Starts in about two seconds."""
    folder = Path(tempfile.mkdtemp(prefix="regstore-ceph-"))
    try:
        port = _start(folder, extra_conf, store)
        yield S3Server(f"http://127.0.0.1:{port}", "test", "testtest", name="ceph")
    finally:
        _run("stop", folder, {})
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, extra_conf: str, store: str) -> int:
    said = ""
    for _ in range(_ATTEMPTS):
        # The daemons bind later than we look, so another process can take a port in between: then again, elsewhere.
        port, v2, v1 = free_port(), free_port(), free_port()
        osd = random.randrange(20000, 30000, 50)
        settings = {
            "RGW_PORT": str(port),
            "RGW_MON_PORT_V2": str(v2),
            "RGW_MON_PORT_V1": str(v1),
            "RGW_OSD_PORT_MIN": str(osd),
            "RGW_OSD_PORT_MAX": str(osd + 49),
            "RGW_STORE": store,
            "RGW_EXTRA_CONF": extra_conf,
            "RGW_OWNER": str(os.getpid()),
        }
        result = _run("start", folder, settings)
        if result.returncode == 0:
            return port
        said = result.stderr[-3000:]
    raise ServerError(f"the Ceph gateway did not start in {_ATTEMPTS} attempts:\n{said}")


def _run(command: str, folder: Path, settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    with (folder / "said").open("w+") as said:
        # Not a pipe: the daemons inherit it and would keep it open.
        code = subprocess.run(
            ["bash", str(_SCRIPT), command, str(folder)],
            env=clean_environment(folder, **settings),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            timeout=240,
            check=False,
        ).returncode
        said.seek(0)
        return subprocess.CompletedProcess([command], code, "", said.read())
