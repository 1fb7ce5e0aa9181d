"""The one object of --json: also on failure, and of wrong usage; and what -q leaves."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from regstore.cli.config.look import every_command
from regstore.cli.voice import Voice, speaking
from tests.cli.conftest import Run
from tests.schema import FILE, RESULTS, text

KEYS = {"schema", "command", "store", "exit_code", "error", "result"}


def test_of_a_result(run: Run, demo_registry: Path) -> None:
    said = run("gc", demo_registry, "--dry-run", "--json")
    assert said.envelope.keys() == KEYS
    assert (said.envelope["schema"], said.envelope["command"], said.envelope["error"]) == (1, "gc", None)
    assert (said.envelope["store"], said.code) == (str(demo_registry), 3)
    assert run("backup", "list", demo_registry, "--json").envelope["command"] == "backup list"


@pytest.mark.parametrize(
    ("words", "command", "store", "code", "kind"),
    [
        (("gc", "STORE/nowhere"), "gc", "STORE/nowhere", 1, "NoSuchBucket"),
        (("tags", "STORE"), "tags", "STORE", 2, "InputError"),
        (("inspect", "STORE", "team/app:nope"), "inspect", "STORE", 1, "TagUnknown"),
        (("gc", "STORE", "--offline"), "gc", "STORE", 4, "Refused"),
        (("gc", "STORE", "--grace", "soon"), "gc", None, 2, "InputError"),
        (("tags", "s3://my-bucket/a/"), "tags", "s3://my-bucket/a", 2, "InputError"),
        (("ls", "s4://key:geheim@host/x"), "ls", None, 2, "InputError"),
        (("backup", "list", "--nope"), "backup list", None, 2, "InputError"),
        (("nope",), None, None, 2, "InputError"),
        (("trash", "nope"), "trash", None, 2, "InputError"),
        (("--nope",), None, None, 2, "InputError"),
    ],
)
def test_of_a_failure(
    run: Run,
    demo_registry: Path,
    words: tuple[str, ...],
    command: str | None,
    store: str | None,
    code: int,
    kind: str,
) -> None:
    place = str(demo_registry)
    said = run(*(word.replace("STORE", place) for word in words), "--json")
    said.failed(code)
    document = said.envelope
    assert document.keys() == KEYS
    assert (document["command"], document["error"]["kind"]) == (command, kind)
    assert document["store"] == (store and store.replace("STORE", place))


def test_without_it_wrong_usage_is_told_as_ever(run: Run) -> None:
    said = run("backup", "list", "--nope")
    assert (said.code, said.out) == (2, "")
    assert "Usage: regstore backup list" in said.err and "No such option: --nope" in said.err


def test_one_object_where_it_was_interrupted(
    run: Run, demo_registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("regstore.cli.ls.progress", interrupted)
    said = run("ls", demo_registry, "--json")
    assert said.code == 130
    assert said.envelope["error"] == {"kind": "Interrupted", "message": "interrupted"}


def test_quiet_prints_problems_only(run: Run, demo_registry: Path, demo_copy: Path) -> None:
    said = run("gc", demo_registry, "--dry-run", "-q")
    assert said.code == 3
    assert [line.strip() for line in said.out.splitlines()[1:2]] == ["left alone: legacy/import"]
    assert "is empty" in said.out and "REPOSITORY" not in said.out
    run("gc", demo_copy, "--offline", "-q").failed(4, "-q", "--yes")
    said = run("gc", demo_copy, "--offline", "--yes", "-q")
    assert (said.code, said.out, said.err) == (0, "", "")
    assert run("ls", demo_copy, "-q").out  # which is all that was asked for
    assert "goes" in run("gc", demo_copy, "-q", "--keep-newest", "1", "--explain", "team/app").out


def test_a_voice_is_the_runs_own() -> None:
    from regstore.cli.voice import voice

    with speaking(Voice(as_json=True)):
        assert voice().as_json
        with speaking(Voice(quiet=True)):
            assert voice().quiet and not voice().as_json
        assert voice().as_json
    assert not voice().as_json


# -- the schema


def test_the_schema_is_made_of_the_code() -> None:
    assert FILE.read_text() == text(), "say: python -m tests.schema"


def test_every_command_that_has_json_is_in_it() -> None:
    commands = {name for name, each in every_command().items() if "as_json" in signature(each.load()).parameters}
    assert commands == set(RESULTS)


def test_it_is_printed(run: Run) -> None:
    whole = orjson.loads(run("schema").out)
    Draft202012Validator.check_schema(whole)
    assert whole == orjson.loads(FILE.read_bytes())
    one = orjson.loads(run("schema", "backup", "create").out)
    Draft202012Validator.check_schema(one)
    assert list(one["$defs"]["results"]) == ["backup create"] and len(one["allOf"]) == 1
    assert run("schema", "gc", "--json").json["properties"]["command"] == {"const": "gc"}
    run("schema", "gcc").failed(2, "no command 'gcc'", "did you mean")


def numbers(value: Any) -> Iterator[int]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from numbers(each)
    elif isinstance(value, int):
        yield value


def test_no_time_is_a_number(run: Run, demo_copy: Path, tmp_path: Path) -> None:
    """Of microseconds since 1970; and what these print is as the schema says, as in all tests."""
    backup = tmp_path / "backup"
    store, json = str(demo_copy), "--json"
    seen = [
        run(*words, json).envelope
        for words in (
            ("gc", store, "--dry-run", "--delete-untagged", "--keep-newest", "1"),
            ("gc", store, "--offline", "--delete-untagged", "--yes"),
            ("trash", "list", store),
            ("trash", "restore", store, "--yes"),
            ("trash", "empty", store, "--dry-run", "--registry-cache", "none", "--offline"),
            ("heal", store),
            ("tags", store, "team/app"),
            ("inspect", store, "team/app:1.1", "--config"),
            ("inspect", store, "team/worker"),
            ("verify", store, "--read-data", "all"),
            ("backup", "create", store, backup, "--create"),
            ("backup", "list", backup),
            ("backup", "show", backup),
            ("backup", "prune", backup, "--keep-last", "1", "--yes"),
            ("locks", store),
            ("report", store, "--html", tmp_path / "report.html"),
            ("config", "show"),
        )
    ]
    assert [each["error"] for each in seen if each["error"]] == []
    assert not [number for each in seen for number in numbers(each) if abs(number) > 10**14]
