"""Units as systemd reads them: its own check, and every word of odd paths."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from regstore.deployment import systemd
from regstore.deployment.wanted import Deployment
from regstore.errors import InputError
from tests.deployment.asked import CASES, ODD, case
from tests.deployment.running import Unit
from tests.deployment.test_wanted import deployment


def write(asked: Deployment, folder: Path) -> dict[str, Unit]:
    (folder / systemd.FOLDER).mkdir()
    for file in systemd.files(asked):
        (folder / file.path).write_bytes(file.content)
    return {path.name: Unit.read(path) for path in (folder / systemd.FOLDER).iterdir()}


def test_what_runs(tmp_path: Path) -> None:
    units = write(deployment(with_serve=True, port=443, user="registry", backup="/srv/backup"), tmp_path)
    assert sorted(units) == [
        "regstore-registry-nightly.service",
        "regstore-registry-nightly.timer",
        "regstore-registry-serve.service",
        "regstore-registry.service",
    ]
    registry = units["regstore-registry.service"]
    assert registry.command == ["/usr/bin/docker-registry", "serve", "/srv/registry/config.yml"]
    assert registry.all("User") == ["registry"]
    assert registry.all("EnvironmentFile") == ["/srv/registry/secrets/registry.env"]
    assert registry.all("AmbientCapabilities") == registry.all("CapabilityBoundingSet") == ["CAP_NET_BIND_SERVICE"]
    assert registry.all("Restart") == ["always"]
    job = units["regstore-registry-nightly.service"]
    assert job.command == ["/usr/local/bin/regstore", "run", "nightly"]
    assert "REGSTORE_CONFIG=/srv/registry/regstore.toml" in job.all("Environment")
    assert job.all("KillMode") == ["mixed"]  # a stop reaches the step once, by the job
    assert job.all("ReadWritePaths") == ["/srv/backup"]
    assert job.all("CapabilityBoundingSet") == [""]
    assert units["regstore-registry-nightly.timer"].all("OnCalendar") == ["*-*-* 02:30:00"]
    assert "--htpasswd" in units["regstore-registry-serve.service"].command


def test_odd_paths_are_words_of_their_own(tmp_path: Path) -> None:
    units = write(case("folders", folder=PurePosixPath(ODD)), tmp_path)
    name = next(name for name in units if name.endswith("nightly.service"))
    settings = [shlex.split(line)[0].replace("%%", "%") for line in units[name].all("Environment")]
    assert f"REGSTORE_CONFIG={ODD}/regstore.toml" in settings
    (registry,) = (unit for unit in units.values() if "docker-registry" in unit.path.read_text())
    assert registry.command[-1] == f"{ODD}/config.yml"
    as_pattern = ODD.replace("\\", "\\\\").replace("%", "%%")
    assert registry.all("EnvironmentFile") == [f"{as_pattern}/secrets/registry.env"]


def test_the_file_of_secrets_is_no_pattern() -> None:
    """Of `[1]`, `*` and a backslash systemd would look for other files, and the registry would not start."""
    made = systemd.files(deployment(folder=PurePosixPath("/srv/a[1]*?\\")))
    text = next(file.content.decode() for file in made if b"docker-registry" in file.content)
    assert "\nEnvironmentFile=/srv/a\\[1]\\*\\?\\\\/secrets/registry.env\n" in text


@pytest.mark.parametrize("name", ["folder", "backup"])
def test_no_path_ends_a_line(name: str) -> None:
    path = "/srv/a\nExecStart=/bin/evil"
    with pytest.raises(InputError, match="control characters"):
        systemd.files(deployment(**{name: PurePosixPath(path) if name == "folder" else path}))


def test_temporary_folders_are_its_own_unless_it_lies_there(tmp_path: Path) -> None:
    units = write(deployment(folder=PurePosixPath("/tmp/registry")), tmp_path)
    assert units["regstore-registry.service"].all("PrivateTmp") == ["no"]


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_systemd_takes_them(name: str, tmp_path: Path) -> None:
    """Its own word, where it is installed: what is not known, or not a path, it says."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("needs systemd-analyze")
    units = write(case(name, registry_program="/bin/true", regstore_program="/bin/true", user="root"), tmp_path)
    done = subprocess.run(
        [program, "verify", "--man=no", *(str(unit.path) for unit in units.values())],
        capture_output=True,
        text=True,
        check=False,
        env={"SYSTEMD_LOG_LEVEL": "warning"},
    )
    mine = [line for line in done.stderr.splitlines() if "regstore-" in line and "Failed to" not in line]
    assert not mine, done.stderr
