"""What the forms that run containers share: which images, what serve is told, and the commands that ask for health."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import regstore
from regstore.deployment import containers
from regstore.deployment.wanted import Deployment, Form, RegistryVersion, Tls
from tests.deployment.asked import case
from tests.deployment.test_wanted import deployment
from tests.servers.process import Child, clean_environment, free_port, wait_until, which


def test_images() -> None:
    assert containers.registry_image(deployment()) == "docker.io/library/registry:2.8.3"
    third = containers.registry_image(deployment(registry=RegistryVersion.V3))
    assert third.startswith("docker.io/library/registry:3.")
    assert containers.regstore_image(deployment()) == f"localhost/regstore:{regstore.__version__}"
    own = case("behind a proxy")
    assert (containers.registry_image(own), containers.regstore_image(own)) == (
        own.registry_image,
        own.regstore_image,
    )


@pytest.mark.parametrize(
    ("form", "tls", "listen"),
    [
        (Form.SYSTEMD, Tls.OWN_CA, ":5002"),
        (Form.SYSTEMD, Tls.NONE, "127.0.0.1:5002"),  # passwords would go in clear
        (Form.COMPOSE, Tls.NONE, ":5002"),  # of the container; what is published is on loopback
    ],
)
def test_what_serve_is_told(form: Form, tls: Tls, listen: str) -> None:
    said = containers.serve_arguments(deployment(form=form, tls=tls))
    assert said[said.index("--listen") + 1] == listen
    assert said[said.index("--registry-url") + 1].endswith("://registry.example.org:5000")
    assert "--htpasswd" in said
    assert ("--tls-cert" in said, "--tls-key" in said) == (tls is not Tls.NONE, tls is not Tls.NONE)


def test_nothing_is_said_by_an_anchor() -> None:
    one = {"a": [1]}
    text = containers.render([{"x": one, "y": one}], "said").decode()
    assert text.startswith("# said\n")
    assert "&" not in text
    assert yaml.safe_load(text) == {"x": one, "y": one}


@pytest.mark.servers
@pytest.mark.parametrize("tls", [Tls.OWN_CA, Tls.NONE])
def test_the_health_of_serve(asked: Deployment, tmp_path: Path, tls: Tls) -> None:
    """serve is started as it is told, and asked as its container would be."""
    made = replace(asked, serve_port=free_port(), tls=tls)
    ask = [sys.executable, *containers.asks_serve(made)[1:]]

    def answers() -> bool:
        return subprocess.run(ask, capture_output=True, timeout=60, check=False).returncode == 0

    assert not answers()
    command = [sys.executable, "-m", "regstore", *containers.serve_arguments(made)]
    child = Child(command, tmp_path / "log", clean_environment(tmp_path))
    try:
        wait_until(answers, "serve to answer")
    finally:
        child.stop()
    assert not answers()


@pytest.mark.servers
def test_the_health_of_the_registry(asked: Deployment, process: Child) -> None:
    program = which("wget")
    if program is None:
        pytest.skip("needs wget")
    for path in ("/debug/health", "/metrics"):
        ask = [program, *containers.asks_registry(asked, path)[1:]]
        assert subprocess.run(ask, timeout=60, check=False).returncode == 0
    process.stop()
    assert subprocess.run(ask, timeout=60, check=False).returncode != 0
