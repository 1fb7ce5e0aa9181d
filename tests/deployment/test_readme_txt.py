"""README.txt tells the truth: its commands are run, what it names is there, and it can be read at a terminal."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from regstore.deployment import forms, readme_txt, users
from regstore.deployment.wanted import (
    CA_CERT,
    CA_KEY,
    HTPASSWD,
    REGISTRY_ENV,
    REGSTORE_ENV,
    SECRETS_FOLDER,
    SERVER_CERT,
    SERVER_KEY,
    STORE_CA,
    Deployment,
    Form,
    Tls,
)
from tests.deployment.asked import CASES, case
from tests.deployment.conftest import PASSWORD
from tests.deployment.test_wanted import deployment
from tests.servers import debian, images
from tests.servers.process import Child, clean_environment

#: What stands in DIR that no form makes.
STANDING = {CA_CERT, CA_KEY, SERVER_CERT, SERVER_KEY, STORE_CA, HTPASSWD, REGISTRY_ENV, REGSTORE_ENV}
#: How lines begin that say what a file is.
FOLDERS = ("secrets/", "auth/", "tls/", "authority/")


def commands(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.startswith("    ")]


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("name", CASES)
def test_it_can_be_read_and_pasted(name: str, form: Form) -> None:
    asked = case(name, form=form)
    text = readme_txt.render(asked)
    for line in text.splitlines():
        assert line.startswith("    ") or len(line) <= readme_txt.WIDTH
        assert line == line.rstrip()
    for line in commands(text):
        if not line.startswith(("{", "[", "config_path", *FOLDERS)):
            assert shlex.split(line, comments=True) or line == "#"
    assert "{" not in re.sub(r"\{ \"credHelpers\".*|\$\{c\}", "", text), "a field that was not filled in"


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("name", CASES)
def test_the_files_that_it_names_are_there(name: str, form: Form) -> None:
    asked = case(name, form=form)
    there = {file.path for file in forms.generated_files(asked)} | STANDING
    folders = {f"{PurePosixPath(path).parent}/" for path in there} | {f"{SECRETS_FOLDER}/"}
    named = re.findall(
        r"(?<![\w./:-])((?:policies|secrets|tls|auth|authority|systemd|kubernetes)/[\w.-]*|nightly\.\w+|config\.yml|regstore\.toml)",
        readme_txt.render(asked),
    )
    assert {each.rstrip(".") for each in named} <= there | folders
    assert HTPASSWD in named


def test_no_tls_no_trust() -> None:
    text = readme_txt.render(case("behind a proxy", form=Form.COMPOSE))
    assert "certs.d" not in text
    assert "--renew" not in text
    assert "X-Forwarded-Proto" in text


@pytest.mark.parametrize("form", list(Form))
def test_no_password_stands_in_a_command_line(form: Form) -> None:
    """Whoever is on the same computer could read it."""
    for line in commands(readme_txt.render(case("everything", form=form))):
        assert not re.search(r"--(docker-)?password(?!-stdin)|--creds|\$\(|-u NAME:|login .* -p ", line)


def test_who_has_no_backup_is_told() -> None:
    assert "NO BACKUP IS MADE" in readme_txt.render(case("plain", form=Form.COMPOSE))
    assert "NO BACKUP IS MADE" not in readme_txt.render(case("folders", form=Form.COMPOSE))


# -- its commands, run


@pytest.mark.servers
def test_clients_trust_it_as_it_says(asked: Deployment, process: Child, tmp_path: Path) -> None:
    """With podman's folder, that of a user without root; log-in, push, pull, and the health check."""
    text = readme_txt.render(asked)
    home = tmp_path / "home"
    home.mkdir()
    layout = images.write_oci_layout(tmp_path / "layout", {"1": images.image("one", 2)})
    environment = clean_environment(home, XDG_RUNTIME_DIR=str(home))

    def run(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, env=environment, input=given, capture_output=True, text=True, timeout=120, check=False, cwd=home
        )

    log_in = next(shlex.split(line) for line in commands(text) if line.startswith("podman login"))
    log_in = [*(word.replace("NAME", "ann") for word in log_in), "--password-stdin"]
    assert "certificate" in run(*log_in, given=PASSWORD).stderr
    for line in commands(text):
        if "/etc/containers/certs.d" in line:
            mine = line.replace("sudo ", "").replace("/etc/containers", ".config/containers")
            mine = mine.replace("cp ca.crt", f"cp {shlex.quote(asked.seen(CA_CERT))}")
            assert run("/bin/sh", "-c", mine).returncode == 0
    assert run(*log_in, given="wrong").returncode != 0
    said = run(*log_in, given=PASSWORD)
    assert said.returncode == 0, said.stderr
    image = next(shlex.split(line)[-1] for line in commands(text) if line.startswith("docker push"))
    auth = f"{home}/containers/auth.json"
    push = run("skopeo", "--insecure-policy", "copy", "--authfile", auth, f"oci:{layout}:1", f"docker://{image}")
    assert push.returncode == 0, push.stderr
    shown = run("skopeo", "inspect", "--authfile", auth, f"docker://{image}")
    assert json.loads(shown.stdout)["Digest"] == images.image("one", 2).digest

    ask = next(shlex.split(line) for line in commands(text) if "/debug/health" in line)
    debian.require("curl")
    assert run(*ask).stdout.strip() == "{}"


@pytest.mark.servers
def test_the_registry_reads_its_users_anew(asked: Deployment, process: Child) -> None:
    """As README.txt says, and after a replacement, not only after a change in place."""
    assert "reads that file anew by itself" in " ".join(readme_txt.render(asked).split())
    debian.require("curl")

    def status(user: str) -> str:
        ca = asked.seen(CA_CERT)
        url = f"https://localhost:{asked.port}/v2/"
        said = subprocess.run(
            [
                "curl",
                "-s",
                "--cacert",
                ca,
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "-u",
                f"{user}:{PASSWORD}",
                url,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return said.stdout

    assert (status("ann"), status("bob")) == ("200", "401")
    file = Path(asked.seen(HTPASSWD))
    new = file.with_name("new")
    new.write_bytes(users.with_user(file.read_bytes(), "bob", PASSWORD, HTPASSWD))
    new.replace(file)
    assert (status("ann"), status("bob")) == ("200", "200")


def test_an_ipv6_address_is_no_name_for_an_image() -> None:
    text = readme_txt.render(deployment(host="::1"))
    assert "no IPv6 address in an image's name" in " ".join(text.split())
    assert "/etc/docker/certs.d/[::1]:5000" in text
    named = readme_txt.render(deployment(host="::1", names=("192.0.2.7",)))
    assert "/etc/docker/certs.d/192.0.2.7:5000" in named


def test_a_given_certificate_may_need_trust_too() -> None:
    text = readme_txt.render(deployment(tls=Tls.FILES, form=Form.COMPOSE))
    assert "public authority already" in " ".join(text.split())
    assert CA_KEY not in text


def test_the_nightly_jobs_of_two_deployments_are_two_files() -> None:
    """Else the second would take the first one's place, and its backups would end."""
    texts = [
        readme_txt.render(deployment(form=Form.COMPOSE, user="1000", folder=PurePosixPath(folder)))
        for folder in ("/srv/a", "/srv/b")
    ]
    assert [re.findall(r"/etc/cron.d/(\S+)", text) for text in texts] == [["regstore-a"], ["regstore-b"]]
