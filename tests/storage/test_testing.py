"""What `regstore.testing` says of itself works for somebody who has regstore and pytest, and nothing of these tests."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import regstore.testing


def example() -> str:
    """The code in the docstring."""
    lines = (regstore.testing.__doc__ or "").splitlines()
    return textwrap.dedent("\n".join(line for line in lines if line.startswith("    ") or not line))


def pytest_of_another(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\naddopts = --strict-markers\n")
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, "test_theirs.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.mark.long
def test_the_example_passes(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(example())
    # Without Hypothesis; and nothing of regstore's own tests can be found.
    (tmp_path / "conftest.py").write_text(
        "import sys\nsys.modules['hypothesis'] = None\nsys.modules['tests'] = None\n"
    )
    result = pytest_of_another(tmp_path, "-p", "no:hypothesispytest")
    assert result.returncode == 0, result.stdout
    assert " passed" in result.stdout


@pytest.mark.long
def test_what_fails_shows_what_was_compared(tmp_path: Path) -> None:
    """Also when it is not regstore's own configuration that makes pytest rewrite asserts."""
    forgetful = example().replace(".write_bytes(data)", ".write_bytes(data[:-1] + b'!')")
    assert forgetful != example()
    (tmp_path / "test_theirs.py").write_text(forgetful)
    result = pytest_of_another(tmp_path, "-k", "test_a_copy_is_independent")
    assert result.returncode == 1
    assert "assert b'conten!' == b'content'" in result.stdout
