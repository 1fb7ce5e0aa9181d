"""Numbers, tables and the bar."""

from __future__ import annotations

import io

import pytest

from regstore.cli import output, progress, tables, underway
from regstore.cli.app import COMMANDS, GROUPS
from regstore.cli.confirm import confirm
from regstore.cli.voice import Voice, speaking
from regstore.events import Notice, Progress, Retry, ignore
from regstore.registry.uploads import parse_time


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (-1, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (150 * 1024, "150 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (3 * 1024**6, "3.0 EiB"),
    ],
)
def test_size(number: int, text: str) -> None:
    assert output.size(number) == text


def test_counted() -> None:
    assert output.counted(1, "blob") == "1 blob"
    assert output.counted(1203, "blob") == "1,203 blobs"
    assert output.counted(2, "repository", "repositories") == "2 repositories"


def test_some_of_many_lines_and_how_many_more() -> None:
    few = [f"{{line}} {number}" for number in range(20)]
    assert list(output.some(few, "and {} more")) == few
    assert list(output.some([*few, *few * 60], "and {} more")) == [*few, "and 1,200 more"]


@pytest.mark.parametrize(
    ("created", "text"),
    [
        ("2023-11-14T22:13:20.999999Z", "2023-11-14T22:13:20Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),  # Go's zero time
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59Z"),
        ("0001-01-01T00:00:00+01:00", "-"),
        ("9999-12-31T23:59:59-01:00", "-"),
    ],
)
def test_moment(created: str, text: str) -> None:
    microseconds = parse_time(created)
    assert microseconds is not None
    assert output.moment(microseconds) == text
    assert output.moment(2**80) == output.moment(-(2**80)) == "-"


def test_a_table_is_aligned_and_has_no_trailing_space() -> None:
    text = output.table(["NAME", "SIZE"], [["a", "1 B"], ["long name", "1.5 KiB"], ["bell\x07", ""]], right=(1,))
    assert text.splitlines() == [
        "NAME          SIZE",
        "a              1 B",
        "long name  1.5 KiB",
        "bell\\x07",
    ]


def test_colours_are_no_way_in_for_what_a_store_holds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tables, "has_colours", lambda: True)
    output.emit("\n" + output.table(["A"], [["fail"], ["\x1b[31mred"]]) + "\x1b[0m")
    assert capsys.readouterr().out == "\n\x1b[1mA\x1b[0m\n\x1b[31mfail\x1b[0m\n\\x1b[31mred\\x1b[0m\n"


def test_json_is_sorted_and_values_of_ours_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    from regstore.digest import Digest

    output.emit_json({"b": Digest.of(b""), "a": [None, 1]})
    assert capsys.readouterr().out == (
        '{\n  "a": [\n    null,\n    1\n  ],\n  "b": "sha256:'
        'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"\n}\n'
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_shows_phases_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    of_the_store = progress.retries()
    with progress.progress() as on_event:
        on_event(Progress(phase="listing blobs", done=1, total=10))
        on_event(Progress(phase="listing blobs", done=10, total=10, detail="a1"))
        on_event(Notice(message="something \x1b odd"))
        for attempt in (1, 2):  # told once in a few seconds
            on_event(Retry(operation="PutObject", key="k", attempt=attempt, reason="503"))
        on_event(Progress(phase="copying", done=5, unit="bytes"))
    for _ in range(2):
        of_the_store(Notice(message="of the store"))
    shown = terminal.getvalue()
    assert "listing blobs" in shown
    assert "copying" in shown
    assert "something \\x1b odd" in shown
    assert "PutObject of k: attempt 1 failed (503), trying again" in shown
    assert "attempt 2" not in shown
    assert shown.count("of the store") == 1


def test_elsewhere_only_notices_are_told_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    with progress.progress() as on_event:
        on_event(Progress(phase="listing blobs", done=1, total=10))
        for _ in range(2):
            on_event(Notice(message="something \x1b odd"))
    on_event = progress.retries()
    on_event(Retry(operation="PutObject", key="k", attempt=1, reason="503"))
    for _ in range(2):
        on_event(Notice(message="of the store"))
    said = "regstore: something \\x1b odd\nregstore: of the store\n"
    assert stderr.getvalue() == said
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with speaking(Voice(quiet=True)):
        with progress.progress() as on_event:
            on_event(Notice(message="something"))
        assert terminal.getvalue() == ""
        assert progress.retries() is ignore
    assert progress.retries() is not ignore


def test_confirm_needs_a_terminal_or_a_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    from regstore.errors import Refused

    assert confirm("Delete?", yes=True)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(Refused, match="--yes"):
        confirm("Delete?", yes=False)
    for answer, meant in (("y\n", True), ("YES\n", True), ("\n", False), ("", False), ("no\n", False)):
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        monkeypatch.setattr("sys.stderr", Terminal())
        assert confirm("Delete?", yes=False) is meant


@pytest.mark.parametrize(
    ("room", "shown"),
    [(80, "1/3 blobs; abc (5 B); def (4 B)"), (30, "1/3 blobs; abc (5 B)"), (12, "1/3 blobs"), (-10, "1/3 blobs")],
)
def test_the_bar_names_what_it_has_room_for(room: int, shown: str) -> None:
    assert progress.fitting("1/3 blobs; abc (5 B); def (4 B)", room) == shown


def test_what_was_interrupted_says_how_far_it_is() -> None:
    functions = {each.place.partition(":")[2] for each in COMMANDS.values()}
    functions |= {each.place.partition(":")[2] for _, commands in GROUPS.values() for each in commands.values()}
    assert underway._NEXT.keys() <= functions
    underway.begin("ls")
    underway.note(Progress(phase="listing blobs", done=3))
    assert underway.how_far() == ""
    underway.begin("migrate")
    assert underway.how_far() == ""
    for event in (
        Progress(phase="reading manifests", done=3, total=3, unit="manifests"),
        Progress(phase="copying blobs", done=1 << 20, total=1 << 21, unit="B"),
        Progress(phase="setting tags", done=1, total=2, unit="tags"),
        Notice(message="something"),
    ):
        underway.note(event)
    said = underway.how_far()
    assert said.startswith(", after copying blobs (1.0 MiB of 2.0 MiB); setting tags (1 of 2 tags): run it again: ")
    underway.begin("gc")
    underway.note_run("RUN")
    assert underway.how_far() == " in run RUN, before it changed anything"
    underway.note(Progress(phase="unlinking", done=1, total=2, unit="links"))
    assert underway.how_far().endswith("`regstore trash restore --run RUN` undoes what it did")
    underway.begin("")
