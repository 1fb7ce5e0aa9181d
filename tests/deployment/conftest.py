"""A registry that is up, made of files as `init` makes them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Final

import pytest

from regstore.cli.run import run_async
from regstore.deployment import authority, config_yml, users
from regstore.deployment.authority import Pair
from regstore.deployment.wanted import CA_CERT, CONFIG, HTPASSWD, SERVER_CERT, SERVER_KEY, Deployment
from regstore.seed import SeedOptions, seed
from regstore.storage import OpenOptions, open_storage
from tests.deployment.test_wanted import deployment
from tests.servers import debian
from tests.servers.process import Child, clean_environment, free_port, wait_until

USER: Final = "ann"
PASSWORD: Final = "a:b $c ü"


@pytest.fixture
def process(tmp_path: Path, asked: Deployment) -> Iterator[Child]:
    """Of the registry, which listens."""
    child = Child(
        ["docker-registry", "serve", asked.seen(CONFIG)],
        tmp_path / "log",
        clean_environment(tmp_path, REGISTRY_HTTP_SECRET="0123"),
    )
    try:
        wait_until(lambda: _listens(asked.port), "the registry to listen")
        yield child
    finally:
        child.stop()


@pytest.fixture
def asked(tmp_path: Path) -> Deployment:
    """At an IPv6 address and at localhost, over a folder."""
    debian.require("docker-registry")
    folder = tmp_path / "d i r"
    made = deployment(
        host="::1",  # no name for an image with many clients
        names=("localhost",),
        port=free_port(),
        debug_port=free_port(),
        store=str(tmp_path / "store"),
        storage={"filesystem": {"rootdirectory": str(tmp_path / "store")}},
        folder=PurePosixPath(folder),
    )
    for path in ("auth", "tls"):
        (folder / path).mkdir(parents=True)
    now, ca_key, key = datetime.now(UTC), authority.new_key(), authority.new_key()
    ca = authority.make_authority(ca_key, made.host, now)
    (folder / CA_CERT).write_bytes(ca)
    (folder / SERVER_CERT).write_bytes(authority.issue(Pair(cert=ca, key=ca_key), key, made.all_names, now))
    (folder / SERVER_KEY).write_bytes(key)
    (folder / HTPASSWD).write_bytes(users.with_user(b"", USER, PASSWORD, HTPASSWD))
    (folder / CONFIG).write_text(config_yml.render(made))
    run_async(_seed(made.store))
    return made


async def _seed(store: str) -> None:
    async with open_storage(store, OpenOptions(create=True)) as storage:
        await seed(storage, SeedOptions())


def _listens(port: int) -> bool:
    with socket.socket(socket.AF_INET6) as connection:
        return connection.connect_ex(("::1", port)) == 0
