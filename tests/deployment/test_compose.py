"""The compose file: valid by the specification and for Debian's docker-compose, and it says what was asked."""

from __future__ import annotations

import json
import subprocess
from importlib import resources
from pathlib import Path, PurePosixPath
from string import Template
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from regstore.deployment import compose, config_yml, containers
from regstore.deployment.wanted import REGISTRY_ENV, REGSTORE_ENV, Cache, Form
from regstore.errors import InputError
from tests.deployment.asked import CASES, ODD, case
from tests.servers.debian import require
from tests.servers.process import which


def written(name: str, **changed: Any) -> dict[str, Any]:
    files = {file.path: file.content for file in compose.files(case(name, form=Form.COMPOSE, **changed))}
    found: dict[str, Any] = yaml.safe_load(files["compose.yaml"])
    return found


def substituted(value: Any) -> Any:
    """As compose reads it, with no variable set: one that is asked for is an error."""
    if isinstance(value, dict):
        return {key: substituted(each) for key, each in value.items()}
    if isinstance(value, list):
        return [substituted(each) for each in value]
    return Template(value).substitute({}) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def specification() -> Any:
    schema = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    return jsonschema.Draft7Validator(json.loads(schema.read_bytes()))


@pytest.mark.parametrize("name", CASES)
def test_it_keeps_to_the_specification(name: str, specification: Any) -> None:
    found = written(name)
    specification.validate(found)
    assert substituted(found) == compose.tree(case(name, form=Form.COMPOSE))
    for service in found["services"].values():
        confined = (service["read_only"], service["cap_drop"], service["security_opt"])
        assert confined == (True, ["ALL"], ["no-new-privileges:true"])
        assert "restart" in service


@pytest.mark.long
def test_docker_compose_reads_it(tmp_path: Path) -> None:
    require("docker-compose")
    for name in ("everything", "folders"):
        asked = case(name, form=Form.COMPOSE)
        folder = tmp_path / f"{name} $x 'y'"
        for file in [*compose.files(asked), *config_yml.files(asked)]:
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            (folder / file.path).write_bytes(file.content)
        (folder / "secrets").mkdir()
        (folder / REGISTRY_ENV).write_text("REGISTRY_HTTP_SECRET=0123\n")
        (folder / REGSTORE_ENV).write_text("AWS_ACCESS_KEY_ID=AKIA\n")
        program = which("docker-compose")
        assert program is not None
        command = [program, "--profile", compose.NIGHTLY_SERVICE, "-f", compose.COMPOSE, "config"]
        result = subprocess.run(
            command,
            cwd=folder,
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, "")
        # What it prints is escaped again.
        said = substituted(yaml.safe_load(result.stdout))["services"]
        assert set(said) == {"registry", "serve", "nightly"}
        assert said["registry"]["environment"]["REGISTRY_HTTP_SECRET"] == "0123"
        assert said["registry"]["command"] == ["serve", "/etc/registry/config.yml"]
        sources = {mount["target"]: mount["source"] for mount in said["registry"]["volumes"]}
        assert sources["/etc/registry/auth"] == str(folder / "auth")
        if asked.on_disk:
            assert sources["/var/lib/registry"] == f"{ODD}/store"


def test_a_container_has_what_it_needs_and_no_more() -> None:
    services = written("folders")["services"]

    def mounts(name: str) -> dict[str, bool]:
        return {mount["target"]: mount.get("read_only", False) for mount in services[name]["volumes"]}

    configuration = {"/etc/registry/config.yml": True, "/etc/registry/auth": True, "/etc/registry/tls": True}
    assert mounts("registry") == {**configuration, "/var/lib/registry": False}
    assert mounts("serve") == {**configuration, "/var/lib/registry": True, "/var/cache/regstore": False}
    assert mounts("nightly") == {
        "/etc/registry/config.yml": True,
        "/etc/registry/regstore.toml": True,
        "/var/lib/registry": False,
        "/var/lib/regstore-backup": False,
        "/var/cache/regstore": False,
    }
    assert services["registry"]["env_file"] == [REGISTRY_ENV]
    assert services["nightly"]["env_file"] == services["serve"]["env_file"] == [REGSTORE_ENV]


def test_what_is_published() -> None:
    plain, behind = written("plain")["services"], written("behind a proxy")["services"]
    assert plain["registry"]["ports"] == ["5000:5000"]
    assert "serve" not in plain
    # Passwords would go in clear.
    assert behind["registry"]["ports"] == ["127.0.0.1:5000:5000"]
    assert behind["serve"]["ports"] == ["127.0.0.1:5002:5002"]
    everything = written("everything")["services"]
    assert everything["registry"]["ports"] == ["443:443"]
    # Who is not root listens at a port below 1024 in a network of its own only.
    assert everything["registry"]["sysctls"] == {"net.ipv4.ip_unprivileged_port_start": 0}
    assert "sysctls" not in everything["nightly"]
    assert "sysctls" in written("plain", port=1023)["services"]["registry"]
    assert "sysctls" not in written("plain", port=1024)["services"]["registry"]
    assert "5001" not in json.dumps([service.get("ports") for service in everything.values()])


def test_the_nightly_job_is_started_by_itself() -> None:
    services = written("everything")["services"]
    assert [name for name in services if "profiles" in services[name]] == ["nightly"]
    # Only the registry's own loopback says when its memory was last empty.
    assert services["nightly"]["network_mode"] == "service:registry"
    assert "network_mode" not in written("everything", cache=Cache.NONE)["services"]["nightly"]


def test_an_image_that_is_not_published_is_never_pulled() -> None:
    assert written("plain")["services"]["nightly"]["pull_policy"] == "never"
    assert "pull_policy" not in written("behind a proxy")["services"]["nightly"]
    assert containers.is_built_here("localhost/regstore:1")
    assert not containers.is_built_here("localhost.example.org/regstore")


def test_users_are_numbers() -> None:
    assert written("folders")["services"]["registry"]["cap_add"] == ["DAC_OVERRIDE"]
    assert "cap_add" not in written("folders", user="1000")["services"]["registry"]
    assert "cap_add" not in written("plain")["services"]["registry"]
    assert written("everything")["services"]["registry"]["user"] == "1000:1000"
    assert written("plain")["services"]["registry"]["user"] == "0:0"
    with pytest.raises(InputError, match="id -u registry"):
        written("plain", user="registry")


@pytest.mark.long
def test_cron_gets_at_the_folder() -> None:
    line = compose.cron(case("everything", form=Form.COMPOSE)).splitlines()[-1]
    assert line.startswith("30 2 * * * root cd ")
    # As cron gives it to a shell.
    command = line.removeprefix("30 2 * * * root ").replace("\\%", "%")
    moved = command.replace("cd ", "printf %s ", 1).partition(" && docker")[0]
    assert subprocess.run(["/bin/sh", "-c", moved], capture_output=True, check=True).stdout.decode() == ODD
    with pytest.raises(InputError, match="control characters"):
        compose.cron(case("plain", form=Form.COMPOSE, folder=PurePosixPath("/srv/a\nb")))


@settings(max_examples=50)
@example("\x85")
@example("")
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20))
def test_any_folder_is_mounted_as_it_is_named(text: str) -> None:
    folder = f"/srv/of {text}"
    storage = {"filesystem": {"rootdirectory": folder}}
    found = written("plain", store=folder, storage=storage, folder=PurePosixPath("/srv/x"))
    sources = [mount["source"] for mount in substituted(found)["services"]["registry"]["volumes"]]
    assert str(PurePosixPath(folder)) in sources
