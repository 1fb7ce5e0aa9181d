"""The Containerfile has what the forms that run containers rely on."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Final

import regstore
from regstore.deployment import containers, nightly
from regstore.deployment.wanted import Form
from tests.deployment.asked import case

ROOT: Final = Path(__file__).parents[2]
FILE: Final = ROOT / ".github" / "Containerfile"
#: Of the Containerfile's reference.
INSTRUCTIONS: Final = {"ARG", "FROM", "COPY", "RUN", "ENV", "USER", "ENTRYPOINT"}


def instructions() -> list[tuple[str, str]]:
    lines = [line for line in FILE.read_text().splitlines() if line and not line.startswith("#")]
    parted = (
        re.sub(r"\s+", " ", line).partition(" ") for line in "\n".join(lines).replace("\\\n", "").splitlines()
    )
    return [(name, rest) for name, _, rest in parted]


def all_of(name: str) -> list[str]:
    return [rest for found, rest in instructions() if found == name]


def test_it_is_one() -> None:
    assert {name for name, _ in instructions()} == INSTRUCTIONS
    assert instructions()[0][0] == "ARG"
    # Both stages have the same base, for a virtual environment names its Python.
    assert [each.split()[0] for each in all_of("FROM")] == ["${BASE}", "${BASE}"]


def test_it_is_what_the_forms_rely_on() -> None:
    assert all_of("ENTRYPOINT") == ['["regstore"]']
    # Kubernetes runs nobody who is not a number; `python` asks for health, and is that of the virtual environment.
    assert all_of("USER") == ["65532:65532"]
    assert containers.asks_serve(case("everything", form=Form.COMPOSE))[0] == "python"
    assert all_of("ENV") == ["PATH=/opt/regstore/bin:$PATH"]
    assert f"mkdir -m 1777 {nightly.CACHE_FOLDER}" in all_of("RUN")


def test_what_it_installs_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r"/src\[([\w,]+)\]", all_of("RUN")[0])
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    for line in all_of("COPY")[:2]:
        for path in line.split()[:-1]:
            assert (ROOT / path).exists()
    # What hatchling wants to read.
    assert {project["readme"], *project["license-files"], "pyproject.toml"} <= set(all_of("COPY")[0].split())
    assert f"localhost/regstore:{regstore.__version__}" in FILE.read_text()


def test_the_command_that_builds_it_is_the_one_that_readme_txt_says() -> None:
    from regstore.deployment import readme_txt

    (line,) = re.findall(r"docker build .*", FILE.read_text())
    assert line in readme_txt.render(case("plain", form=Form.COMPOSE))
