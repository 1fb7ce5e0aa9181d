"""Which Debian package has which program, and what to do where one is missing."""

from __future__ import annotations

import os
from typing import Final

import pytest

from tests.servers.process import which

PACKAGE_OF: Final = {
    "docker-registry": "docker-registry",
    "skopeo": "skopeo",
    "umoci": "umoci",
    "ceph-mon": "ceph-mon",
    "monmaptool": "ceph-common",
    "ceph": "ceph-common",
    "ceph-osd": "ceph-osd",
    "radosgw": "radosgw",
    "radosgw-admin": "radosgw",
    "redis-server": "redis-server",
    "curl": "curl",
    "podman": "podman",
    "buildah": "buildah",
    "chromium": "chromium",
    "docker-compose": "docker-compose",
    "java": "openjdk-17-jre-headless",
}


def packages_missing(*programs: str) -> list[str]:
    return sorted({PACKAGE_OF[program] for program in programs if which(program) is None})


def require(*programs: str) -> None:
    """Skip the test, with the line that installs what it needs; under CI, fail it."""
    absent = packages_missing(*programs)
    if not absent:
        return
    message = f"needs Debian packages: apt-get install {' '.join(absent)}"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
