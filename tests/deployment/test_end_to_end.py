"""From an empty bucket to a pull, with what `regstore init` wrote and nothing else; then the same from a backup."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import ssl
import stat
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from regstore.deployment.environment_files import variables
from tests.deployment.running import Client, Registry, Unit, command_lines, install, registry_of, regstore
from tests.servers import images
from tests.servers.debian import require
from tests.servers.process import free_port, wait_until
from tests.servers.s3 import S3Server

pytestmark = [pytest.mark.servers, pytest.mark.long]

PASSWORD: Final = "p:a $HOME 'q' ü"
BUCKET: Final = "images.of.init"


@dataclass(frozen=True)
class Place:
    """home: short, for podman takes no other."""

    home: Path
    server: S3Server
    path: str
    seen: set[bytes]
    said: list[str]

    @property
    def folder(self) -> Path:
        return self.home / "registry"

    def init(self, folder: Path | str, *words: object, input: str = "") -> str:
        done = regstore(
            "init", folder, *words, home=self.home, input=input, PATH=self.path, **self.server.environment()
        )
        assert done.returncode == 0, done.stderr
        self.said.append(done.stdout + done.stderr)
        return done.stdout

    def client(self, name: str, registry: Registry | None = None) -> Client:
        home = self.home / name
        home.mkdir()
        client = Client(home)
        if registry is not None:
            client.trust(registry)
        return client


@pytest.fixture(scope="module")
def place(ceph: S3Server) -> Iterator[Place]:
    require("docker-registry", "skopeo", "podman")
    home = Path(tempfile.mkdtemp(prefix="rs-"))
    with command_lines() as seen:
        yield Place(home, ceph, install(home), seen, [])
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def registry(place: Place) -> Iterator[Registry]:
    said = place.init(
        place.folder,
        *("--host", "127.0.0.1", "--name", "localhost", "--port", free_port(), "--debug-port", free_port()),
        *("--store", f"s3://{BUCKET}/reg", "--create", "--backup", place.home / "backup"),
        *("--user", "ann", "--password-stdin"),
        input=f"{PASSWORD}\n",
    )
    assert "bucket made, seeded" in said
    assert '"Action": [' in said
    # With the keys that it wrote, and nothing of ours.
    again = regstore("init", place.folder, home=place.home)
    assert (again.returncode, "nothing to change" in again.stdout) == (0, True), again.stderr
    with registry_of(place.folder, place.home) as running:
        yield running


@pytest.fixture(scope="module")
def layout(place: Place) -> Path:
    folder = place.home / "layout"
    images.write_oci_layout(folder, {"1": images.image("an image")})
    return folder


def test_health_is_green_from_the_start_and_a_password_is_needed(registry: Registry) -> None:
    assert registry.health() == (200, b"{}")
    assert registry.status() == 401
    assert registry.status("ann", PASSWORD) == 200
    assert registry.status("ann", "wrong") == 401
    assert registry.status("ann", PASSWORD.partition(":")[0]) == 401


def test_old_tls_is_refused(registry: Registry) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(registry.folder / "tls/ca.crt")
    context.set_ciphers("ALL:@SECLEVEL=0")
    for version, is_taken in ((ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_1, False)):
        with warnings.catch_warnings(action="ignore"):
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = version
        with socket.create_connection((registry.host, registry.port)) as plain, ExitStack() as stack:
            if not is_taken:
                stack.enter_context(pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"))
            stack.enter_context(context.wrap_socket(plain, server_hostname=registry.host))


def test_the_check_is_green(place: Place, registry: Registry) -> None:
    said = place.init(place.folder, "--check", "--password-stdin", input=f"{PASSWORD}\n")
    assert f"\nhttps://{registry.address}: 17 ok\n" in said
    assert PASSWORD not in said


@pytest.mark.parametrize("program", ["skopeo", "podman"])
def test_clients_log_in_push_and_pull_by_the_authority(
    place: Place, registry: Registry, layout: Path, program: str
) -> None:
    client = place.client(f"c-{program}", registry)
    image = f"{registry.address}/{program}/app:1"
    there, back = f"docker://{image}", f"oci:{client.home}/back:1"
    source = f"oci:{layout}:1"

    def push() -> subprocess.CompletedProcess[str]:
        if program == "skopeo":
            return client.run("skopeo", "copy", source, there)
        return client.run("podman", "push", "-q", pulled, there)

    pulled = ""
    if program == "podman":
        own = client.run("podman", "pull", "-q", source)
        assert own.returncode == 0, own.stderr
        pulled = own.stdout.strip()
    assert "authentication required" in push().stderr
    for user, password in (("ann", "wrong"), ("bob", PASSWORD)):
        assert client.login(program, registry, user, password).returncode != 0
    assert client.login(program, registry, "ann", PASSWORD).returncode == 0
    pushed = push()
    assert pushed.returncode == 0, pushed.stderr
    got = client.run("skopeo", "copy", there, back) if program == "skopeo" else client.run("podman", "pull", image)
    assert got.returncode == 0, got.stderr

    stranger = place.client(f"s-{program}")
    refused = stranger.login(program, registry, "ann", PASSWORD)
    assert refused.returncode != 0
    assert "certificate" in refused.stderr


def test_the_nightly_job_runs_as_its_unit_says(place: Place, registry: Registry, layout: Path) -> None:
    """Backup, gc and verification, with the keys that init wrote; then a second deployment serves the backup."""
    client = place.client("c-nightly", registry)
    assert client.login("skopeo", registry, "ann", PASSWORD).returncode == 0
    for name in ("team/app:1", "team/app:2"):
        copied = client.run("skopeo", "copy", f"oci:{layout}:1", f"docker://{registry.address}/{name}")
        assert copied.returncode == 0, copied.stderr
    (unit,) = (place.folder / "systemd").glob("*-nightly.service")
    done = Unit.read(unit).run(place.home)
    assert done.returncode == 0, done.stdout + done.stderr
    place.said.append(done.stdout + done.stderr)
    assert "gc" in done.stdout
    digest = json.loads(client.run("skopeo", "inspect", f"docker://{registry.address}/team/app:1").stdout)["Digest"]

    second = place.home / "second"
    place.init(
        second,
        *("--host", "127.0.0.1", "--port", free_port(), "--debug-port", free_port()),
        *("--store", "s3://of.backup", "--create", "--user", "eve", "--password-stdin"),
        input="other\n",
    )
    restored = regstore(
        *("restore", place.home / "backup", "s3://of.backup"),
        *("--dst-endpoint-url", place.server.endpoint_url, "--dst-path-style"),
        home=place.home,
        **Unit.read(next((second / "systemd").glob("*-nightly.service"))).environment(place.home),
    )
    assert restored.returncode == 0, restored.stderr
    with registry_of(second, place.home) as served:
        assert served.health() == (200, b"{}")
        assert "17 ok\n" in place.init(second, "--check", "--user", "eve", "--password-stdin", input="other\n")
        other = place.client("c-second", served)
        assert other.login("skopeo", served, "eve", "other").returncode == 0
        for tag in ("1", "2"):
            found = other.run("skopeo", "inspect", f"docker://{served.address}/team/app:{tag}")
            assert json.loads(found.stdout)["Digest"] == digest


def test_users_count_at_once_and_a_renewed_certificate_after_a_restart(place: Place) -> None:
    folder = place.home / "disk"
    place.init(
        folder,
        *("--host", "::1", "--port", free_port(), "--debug-port", free_port(), "--store", place.home / "store"),
        *("--create", "--user", "ann", "--password-stdin", "--with-serve", "--serve-port", free_port()),
        input=PASSWORD,
    )
    (serve,) = (folder / "systemd").glob("*-serve.service")
    ca, cert = ((folder / "tls" / name).read_bytes() for name in ("ca.crt", "server.crt"))
    with registry_of(folder, place.home, "[::1]") as registry:
        with Unit.read(serve).started(place.home) as child:
            wait_until(lambda: "is served" in child.log.read_text(), "serve to listen")
            said = place.init(folder, "--check", "--user", "ann", "--password-stdin", input=PASSWORD)
            assert "18 ok\n" in said
        place.init(folder, "--add-user", "bob", "--password-stdin", input="b\n")
        assert registry.status("bob", "b") == 200
        assert registry.status("ann", PASSWORD) == 200
        place.init(folder, "--remove-user", "bob")
        assert registry.status("bob", "b") == 401
        place.init(folder, "--renew")
    assert (folder / "tls/ca.crt").read_bytes() == ca
    assert (folder / "tls/server.crt").read_bytes() != cert
    with registry_of(folder, place.home, "[::1]") as registry:
        assert registry.status("ann", PASSWORD) == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="to become somebody else")
def test_it_runs_as_another_user_than_who_made_it(place: Place, layout: Path) -> None:
    folder = place.home / "theirs"
    place.home.chmod(0o711)
    place.init(
        folder,
        *("--host", "localhost", "--port", free_port(), "--debug-port", free_port(), "--run-as", "daemon"),
        *("--store", place.home / "theirs-store", "--create", "--user", "ann", "--password-stdin"),
        input=PASSWORD,
    )
    assert (folder / "secrets/registry.env").owner() == "daemon"
    with registry_of(folder, place.home, "localhost") as registry:
        assert (registry.health(), Path(f"/proc/{registry.child.pid}").owner()) == ((200, b"{}"), "daemon")
        client = place.client("c-theirs", registry)
        assert client.login("skopeo", registry, "ann", PASSWORD).returncode == 0
        pushed = client.run("skopeo", "copy", f"oci:{layout}:1", f"docker://{registry.address}/app:1")
        assert pushed.returncode == 0, pushed.stderr
        # root adds a user, and the file stays theirs.
        place.init(folder, "--add-user", "bob", "--password-stdin", input="b\n")
        assert registry.status("bob", "b") == 200


def test_the_readmes_three_commands(place: Place) -> None:
    """As they stand there, but for the folder, the host's name, the bucket, and ports that are free."""
    text = (Path(__file__).parent.parent.parent / "README.md").read_text()
    lines = text.partition("## From an empty bucket to a pull\n\n")[2].partition("\n\n")[0].splitlines()
    hub = place.home / "hub"
    there = {"/srv/hub": str(hub), "registry.example.org": "127.0.0.1", "s3://images": "s3://images.of.readme"}
    made, started, checked = ([there.get(word, word) for word in shlex.split(line)] for line in lines)
    assert made[:3] == checked[:3] == ["regstore", "init", str(hub)]
    ports = ("--port", free_port(), "--debug-port", free_port())
    place.init(*made[2:], *ports, "--password-stdin", input="a b\n")
    assert started[:3] == ["systemctl", "enable", "--now"]
    assert (hub / started[3].removeprefix("/srv/hub/")).exists()
    with registry_of(hub, place.home):
        assert "17 ok\n" in place.init(*checked[2:], "--password-stdin", input="a b\n")


def test_no_secret_is_where_others_see_it(place: Place, registry: Registry) -> None:
    """Of all that the tests before did: said, logged, in the list of processes, and in files."""
    folder = place.folder
    secrets = {PASSWORD, place.server.secret_key}
    secrets |= set(variables((folder / "secrets/registry.env").read_bytes()).values()) - {place.server.access_key}
    secrets |= {line.partition(":")[2] for line in (folder / "auth/htpasswd").read_text().splitlines()}
    for name in ("authority/ca.key", "tls/server.key"):
        secrets.add((folder / name).read_text().splitlines()[1])
    assert len(secrets) == 6
    words = {secret.encode() for secret in secrets}

    logs = [path.read_bytes() for path in place.home.glob("*.log")]
    assert any(b"listening" in log for log in logs)
    assert any(b"--password-stdin" in line for line in place.seen)
    for text in (*(text.encode() for text in place.said), *logs, *place.seen):
        assert not [word for word in words if word in text], text
    kept = set()
    for path in folder.rglob("*"):
        if path.is_file() and any(word in path.read_bytes() for word in words):
            kept.add(str(path.relative_to(folder)))
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert kept == {
        "auth/htpasswd",
        "authority/ca.key",
        "secrets/registry.env",
        "secrets/regstore.env",
        "tls/server.key",
    }
