"""`regstore serve` and `report` as an operator says them."""

from __future__ import annotations

import json
import signal
import urllib.request
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Start, hold_to_schema


def test_it_says_where_it_listens_serves_and_ends_cleanly(start: Start, demo_copy: Path) -> None:
    for ending, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = start("serve", demo_copy, "--listen", "127.0.0.1:0")
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith(f"regstore: {demo_copy} is served, read-only, at http://127.0.0.1:")
        url = line.partition(" at ")[2].partition(";")[0]
        with urllib.request.urlopen(f"{url}/v2/_catalog") as answer:
            assert "team/app" in json.load(answer)["repositories"]
        process.send_signal(ending)
        assert process.wait(30) == code
        assert "Traceback" not in process.stderr.read()


def test_it_can_say_so_to_machines(start: Start, demo_copy: Path) -> None:
    process = start("serve", demo_copy, "--listen", "127.0.0.1:0", "--json")
    assert process.stdout is not None
    text = ""
    while not text.rstrip().endswith("}"):
        text += process.stdout.readline()
    document = json.loads(text)
    hold_to_schema(document)
    assert document["exit_code"] is None
    (url,) = document["result"]["urls"]
    with urllib.request.urlopen(f"{url}/healthz") as answer:
        assert answer.read() == b"ok\n"


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--listen", "0.0.0.0:0"], 4, "--without-password"),
        (["--listen", "here"], 2, "HOST:PORT"),
        (["--tls-cert", "x"], 2, "give both"),
        (["--htpasswd", "/none"], 2, "/none can't be read"),
        (["--snapshot", "latest"], 2, "is no backup"),
        (["--refresh", "0s"], 2, "--refresh"),
        (["--registry-url", "https://user:word@host"], 2, "names no host"),
    ],
)
def test_wrong_words_are_one_sentence(run: Run, demo_copy: Path, options: list[str], code: int, said: str) -> None:
    words = options if "--listen" in options else [*options, "--listen", "127.0.0.1:0"]
    run("serve", demo_copy, *words).failed(code, said)


def test_what_is_no_store_is_told(run: Run, tmp_path: Path) -> None:
    run("serve", tmp_path, "--listen", "127.0.0.1:0").failed(1, "is empty")
    run("serve", tmp_path / "none", "--listen", "127.0.0.1:0").failed(1)


def test_a_report_is_written_whole_or_not_at_all(run: Run, demo_copy: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    said = run("report", demo_copy, "--html", target)
    assert (said.code, said.out.startswith(f"{target}: ")) == (0, True)
    assert "team/app" in target.read_text()
    assert [path.name for path in tmp_path.iterdir() if "report" in path.name] == ["report.html"]
    run("report", demo_copy, "--html", tmp_path / "none" / "x.html").failed(1, "can't be written")
    run("report", demo_copy).failed(2, "--html")
    backup = tmp_path / "backup"
    assert run("backup", "create", "--create", demo_copy, backup).code == 0
    run("report", backup, "--html", target).failed(2, "--snapshot latest")
    assert run("report", backup, "--html", target, "--snapshot", "latest").code == 0
