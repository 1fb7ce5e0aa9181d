"""Options that do nothing in this run are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run

HTTP = ("--endpoint-url", "http://localhost:1")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["ls", "STORE", *HTTP], ["--endpoint-url has no effect on a folder"]),
        (["ls", "STORE", "--profile", "x", "--virtual-hosted"], ["--profile has no", "--path-style has no"]),
        (["ls", "STORE", "--ca-bundle", "x"], ["--ca-bundle has no effect: nothing here is reached by TLS"]),
        (["ls", "s3://b", *HTTP, "--ca-bundle", "x"], ["--ca-bundle has no effect"]),
        (["ls", "s3://b", *HTTP, "--region", "x"], []),
        (["migrate", "STORE", "s3://b", "-n", *HTTP, "--region", "x", "--storage-class", "GLACIER_IR"], []),
        (
            ["migrate", "STORE", "OTHER", "-n", "--storage-class", "X"],
            ["--storage-class has no effect on a folder"],
        ),
        (
            ["migrate", "STORE", "OTHER", "-n", "--dst-region", "x"],
            ["--dst-region has no effect: the second place"],
        ),
        (["migrate", "STORE", "OTHER", "-n", "--max-delete", "1%"], ["--max-delete has no effect: it is about"]),
        (["verify", "STORE", "--grace", "1d"], ["--grace has no effect: it is about --drop-broken-tags"]),
        (["verify", "STORE", "--dst-profile", "x"], ["--dst-profile has no effect: there is no second place"]),
        (["gc", "STORE", "-n", "--break-lock", "--settle", "1s"], ["--break-lock has no effect"]),
        (["gc", "STORE", "-n", "--offline", "--settle", "1s"], ["--settle has no effect: it is no wait"]),
        (["ls", "--registry-config", "CONFIG", *HTTP], []),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[:1] != ["--"] else "",
)
def test_what_has_no_effect_is_told(
    run: Run, demo_registry: Path, tmp_path: Path, words: list[str], told: list[str]
) -> None:
    config = tmp_path / "config.yml"
    config.write_text(f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {demo_registry}\n")
    places = {"STORE": demo_registry, "OTHER": tmp_path / "other", "CONFIG": config}
    (tmp_path / "other").mkdir()
    err = run(*[places.get(word, word) for word in words]).err
    assert err.count("has no effect") == len(told), err
    assert all(f"regstore: {each}" in err for each in told), err


def test_what_the_environment_says_is_no_mistake(
    run: Run, demo_registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGSTORE_ENDPOINT_URL", "http://localhost:1")
    said = run("ls", demo_registry)
    assert (said.code, said.err) == (0, "")
