"""Lines now and then, events as JSON, the file of metrics, and pings. No clock here is real, and nothing sleeps."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from regstore.cli.lines import Lines, looking
from regstore.cli.metrics import Ran, exposition, merged
from regstore.cli.ping import Ping, parse_ping_url
from regstore.cli.voice import Voice, speaking
from regstore.events import Notice, Progress, Retry
from tests.cli.conftest import Monitor, Run
from tests.cli.terminal import on_terminal

NIGHT = 1_800_000_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> int:
        return NIGHT + int((self.now - 1000) * 1_000_000)


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What has come there since the last call."""
    return lambda: capsys.readouterr().err


def lines_of(clock: Clock, voice: Voice | None = None) -> Lines:
    return Lines(voice or Voice(), clock=clock, wall=clock.wall)


def listing(done: int, total: int | None = None) -> Progress:
    return Progress(phase="listing blobs", done=done, total=total)


def retry(attempt: int) -> Retry:
    return Retry(operation="GetObject", key="k", attempt=attempt, reason="503")


# -- lines


def test_a_short_run_has_no_line(stderr: Callable[[], str]) -> None:
    clock = Clock()
    lines = lines_of(clock)
    for second in range(29):
        clock.now = 1000.0 + second
        lines.show(listing(second * 100))
        lines.show(retry(1))
        lines.look()
    lines.end()
    assert stderr() == ""


def test_a_long_run_says_how_far_and_how_fast(stderr: Callable[[], str]) -> None:
    clock = Clock()
    lines = lines_of(clock)
    for second in range(65):
        clock.now = 1000.0 + second
        lines.show(listing(second * 100, 20_000))
    assert stderr().splitlines() == [
        "regstore: 2027-01-15T08:00:30Z listing blobs (3,000 of 20,000 keys), 100/s",
        "regstore: 2027-01-15T08:01:00Z listing blobs (6,000 of 20,000 keys), 100/s",
    ]


def test_silence_is_told_and_what_is_tried_again(stderr: Callable[[], str]) -> None:
    clock = Clock()
    lines = lines_of(clock)
    clock.now += 31
    lines.look()
    lines.show(listing(100))
    for attempt in (1, 2, 3):
        lines.show(retry(attempt))
    clock.now += 120
    lines.look()
    lines.look()
    lines.show(Progress(phase="waiting", done=3, total=60, unit="s"))
    clock.now += 30
    lines.look()
    assert [line.partition("Z ")[2] for line in stderr().splitlines()] == [
        "nothing was heard for 31 s",
        "listing blobs (100 keys), 1/s, no further for 120 s; 3 requests tried again, "
        "GetObject of k: attempt 3 failed (503)",
        "waiting (3 of 60 s)",
    ]


def test_a_server_that_waits_for_its_clients_is_not_silent(stderr: Callable[[], str]) -> None:
    clock, voice = Clock(), Voice()
    lines = lines_of(clock, voice)
    voice.answered = True
    clock.now += 1000
    lines.look()
    assert stderr() == ""


def test_verbose_says_more_and_sooner(stderr: Callable[[], str]) -> None:
    clock = Clock()
    lines = lines_of(clock, Voice(verbose=True))
    lines.show(listing(1))
    clock.now += 6
    for attempt in (1, 2):
        lines.show(retry(attempt))
    lines.show(listing(100))
    lines.show(Progress(phase="reading links", done=1, unit="links"))
    lines.end()
    said = stderr()
    assert said.count("trying again") == 2
    assert "listing blobs (100 keys), 17/s" in said
    assert "listing blobs (100 keys) took 6.0 s\n" in said and "reading links (1 links) took 0.0 s\n" in said


def test_as_events(stderr: Callable[[], str]) -> None:
    clock = Clock()
    lines = lines_of(clock, Voice(log_json=True))
    lines.show(Notice(message="odd"))
    for attempt in (1, 2):  # one in a few seconds
        lines.show(retry(attempt))
    lines.show(listing(1))
    clock.now += 30
    lines.show(listing(300, 600))
    notice, again, progress = map(json.loads, stderr().splitlines())
    assert (notice["event"], notice["level"], notice["message"]) == ("notice", "info", "odd")
    assert (again["event"], again["level"], again["key"], again["attempt"]) == ("retry", "info", "k", 1)
    assert (
        progress.items()
        >= {
            "event": "progress",
            "message": "listing blobs (300 of 600 keys), 10/s; 2 requests tried again, "
            "GetObject of k: attempt 2 failed (503)",
            "phase": "listing blobs",
            "done": 300,
            "total": 600,
            "unit": "keys",
            "per_second": 10.0,
            "retries": 2,
        }.items()
    )
    assert {line["time"][-1] for line in (notice, again, progress)} == {"Z"}


def test_all_of_stderr_is_events(run: Run, demo_registry: Path) -> None:
    for words in (("ls", demo_registry / "nowhere"), ("ls", "--nope"), ("tags", demo_registry)):
        said = run(*words, "--log-format", "json")
        events = [json.loads(line) for line in said.err.splitlines()]
        assert said.code and events, said
        assert all({"time", "level", "event", "message"} <= event.keys() for event in events)
    run("ls", demo_registry, "--log-format", "xml").failed(2, "--log-format is text or json")


# -- metrics


def samples(path: Path) -> dict[str, float]:
    """By name; Prometheus' own parser reads the file."""
    found = {}
    for family in text_string_to_metric_families(path.read_text()):
        assert family.type == "gauge" and family.documentation
        for sample in family.samples:
            assert sample.labels.keys() == {"command", "store"}
            found[sample.name] = sample.value
    return found


def test_metrics_of_runs(run: Run, demo_copy: Path, tmp_path: Path) -> None:
    file = tmp_path / "regstore.prom"
    words = ("gc", demo_copy, "--offline", "--delete-untagged", "--metrics-file", file)
    assert run(*words, "--yes").code == 0
    first = samples(file)
    assert first["regstore_run_exit_code"] == 0
    assert first["regstore_gc_removed_blobs"] > 0 and first["regstore_gc_failures"] == 0
    assert first["regstore_run_duration_seconds"] > 0
    assert first["regstore_run_start_time_seconds"] < first["regstore_run_last_success_time_seconds"]
    assert f'{{command="gc",store="{demo_copy}"}}' in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o644 and len(list(tmp_path.glob("*.prom"))) == 1
    (demo_copy / "docker/registry/v2/blobs").rename(demo_copy / "docker/registry/v2/gone")
    assert run(*words, "--yes").code == 4
    second = samples(file)
    assert second["regstore_run_exit_code"] == 4
    assert second["regstore_run_last_success_time_seconds"] == first["regstore_run_last_success_time_seconds"]
    assert "regstore_gc_removed_blobs" not in second
    assert run("gc", "--nope", "--metrics-file", file).code == 2
    assert samples(file)["regstore_run_exit_code"] == 2
    assert not list(tmp_path.glob(".regstore.prom*"))


def test_metrics_of_odd_names() -> None:
    ran = Ran(
        command="backup create", store='a\\b"c\n\x1b', exit_code=3, began=1.0, ended=3.5, numbers={"new_blobs": 7}
    )
    text = merged([exposition(ran)], "regstore_run_last_success_time_seconds{} junk\n")
    (exit_code, *_, number) = text_string_to_metric_families(text)
    assert exit_code.samples[0].labels == {"command": "backup create", "store": 'a\\b"c\n\\x1b'}
    assert (number.name, number.samples[0].value) == ("regstore_backup_create_new_blobs", 7)
    assert "last_success" not in text


def test_metrics_of_a_job_are_those_of_its_steps_too() -> None:
    def ran(command: str, exit_code: int, ended: float = 9.0, **numbers: float) -> str:
        return exposition(
            Ran(command=command, store="s", job="n", exit_code=exit_code, began=1.0, ended=ended, numbers=numbers)
        )

    before = merged([ran("gc", 0, 5.0), ran("ls", 0, 6.0), ran("run", 0, 7.0)])
    text = merged([ran("gc", 1), ran("verify", 0, tags=1), ran("verify", 0, tags=2), ran("run", 1)], before)
    found = {
        (family.name, sample.labels["command"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    codes = {command: value for (name, command), value in found.items() if name == "regstore_run_exit_code"}
    assert codes == {"gc": 1, "verify": 0, "run": 1}
    assert found["regstore_verify_tags", "verify"] == 2
    ends = {command: value for (name, command), value in found.items() if "last_success" in name}
    assert ends == {"gc": 5.0, "verify": 9.0, "run": 7.0}
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names)) == 5


def test_metrics_that_can_not_be_written_are_told_and_no_more(
    run: Run, demo_registry: Path, tmp_path: Path
) -> None:
    said = run("ls", demo_registry, "--metrics-file", tmp_path / "nowhere/x.prom", "--json")
    assert said.code == 0 and said.json["repositories"]
    assert (
        said.err
        == f"regstore: the metrics can't be written to {tmp_path}/nowhere/x.prom: No such file or directory\n"
    )


def test_metrics_never_take_a_devices_place(run: Run, demo_registry: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.prom"
    path.symlink_to("/dev/null")
    said = run("ls", demo_registry, "--metrics-file", path)
    assert (said.code, said.err) == (
        0,
        f"regstore: the metrics can't be written to {path}: it is no plain file\n",
    )
    assert path.is_symlink()


def test_a_log_on_a_full_disk_hides_no_end(
    run: Run, demo_registry: Path, tmp_path: Path, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("regstore.cli.voice._line", full)
    monkeypatch.setattr("regstore.cli.run._forget_stdout", pytest.fail)
    nowhere, url = tmp_path / "nowhere/x.prom", f"{monitor.url}/uuid"
    assert run("ls", demo_registry, "--metrics-file", nowhere, "--ping-url", url).code == 0
    assert run("ls", demo_registry / "nowhere", "--ping-url", url, "--json").envelope["exit_code"] == 1
    assert run("ls", "--nope", "--ping-url", url, "--json").envelope["exit_code"] == 2
    ends = [path for path, _ in monitor.asked if not path.endswith("/start")]
    assert ends == ["/uuid", "/uuid/1", "/uuid/2"]


# -- pings


def test_a_monitor_is_told(run: Run, demo_registry: Path, monitor: Monitor) -> None:
    url = f"{monitor.url}/uuid/?a=b"
    assert run("ls", demo_registry, "--ping-url", url).code == 0
    assert run("ls", demo_registry / "nowhere", "--ping-url", url).code == 1
    assert run("ls", "--nope", "--ping-url", url).code == 2
    assert [path for path, _ in monitor.asked] == [
        "/uuid/start?a=b",
        "/uuid?a=b",
        "/uuid/start?a=b",
        "/uuid/1?a=b",
        "/uuid/2?a=b",
    ]


def test_it_is_told_of_an_interruption_and_as_the_environment_says(
    run: Run, demo_registry: Path, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("regstore.cli.ls.progress", interrupted)
        assert run("ls", demo_registry, "--ping-url", f"{monitor.url}/uuid").code == 130
    assert [path for path, _ in monitor.asked] == ["/uuid/start", "/uuid/130"]
    monkeypatch.setenv("REGSTORE_PING_URL", f"{monitor.url}/other")
    assert run("ls", "--nope").code == 2
    assert run("ls", demo_registry).code == 0
    assert [path for path, _ in monitor.asked[2:]] == ["/other/2", "/other/start", "/other"]


def test_it_is_told_again_and_with_credentials(monitor: Monitor) -> None:
    monitor.answers = [500, 503]
    said: list[str] = []
    url = monitor.url.replace("http://", "http://ann:p%40ss@")
    ping = Ping(url=parse_ping_url(f"{url}/uuid"), say=said.append, pause=lambda seconds: None)
    ping.end(6)
    assert monitor.asked == [("/uuid/6", "Basic YW5uOnBAc3M=")] * 3
    assert not said
    monitor.answers = [404]
    ping.end(0)
    assert len(monitor.asked) == 4 and said == ["127.0.0.1 could not be told of the end of this run: HTTP 404"]


def test_a_monitor_that_is_not_there_is_no_failure(
    run: Run, demo_registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regstore.cli.ping.PAUSE", 0.0)
    said = run("ls", demo_registry, "--ping-url", "http://ann:geheim@127.0.0.1:1/secret")
    assert (said.code, said.out.count("\n")) == (0, 4)
    assert said.err.splitlines() == [
        f"regstore: 127.0.0.1 could not be told of the {what} of this run: Connection refused"
        for what in ("start", "end")
    ]


def test_an_answer_that_drips_has_no_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regstore.cli.ping.TIMEOUT", 0.2)
    monkeypatch.setattr("regstore.cli.ping.TRIES", 1)
    said: list[str] = []
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            with suppress(OSError), server.accept()[0] as connection:
                connection.send(b"HTTP/1.1 200 OK\r\nX: ")
                for _ in range(100):
                    if over.wait(0.05):
                        break
                    connection.send(b"x")

        dripping = threading.Thread(target=drip)
        dripping.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/uuid"
        Ping(url=parse_ping_url(url), say=said.append).end(0)
        over.set()
        dripping.join()
    assert said == ["127.0.0.1 could not be told of the end of this run: no answer in time"]


@pytest.mark.parametrize(
    "url", ["hc-ping.com/x", "ftp://x/geheim", "http://a:geheim@:x/", "http:///geheim", "http://x/ge heim"]
)
def test_what_is_no_url_is_refused_and_not_shown(run: Run, demo_registry: Path, url: str) -> None:
    said = run("ls", demo_registry, "--ping-url", url)
    said.failed(2, "--ping-url is no URL such as")
    assert "heim" not in said.err


def test_quiet_leaves_what_may_be_wrong(stderr: Callable[[], str]) -> None:
    with speaking(Voice(quiet=True)) as voice:
        voice.log("info", "note", "x")
        voice.log("info", "retry", "x")
        voice.log("warning", "warning", "odd")
        voice.log("error", "problem", "wrong")
    assert stderr() == "regstore: odd\nregstore: wrong\n"


# -- a terminal, and an endpoint that is silent


@pytest.mark.long
def test_on_a_terminal_of_80_columns(demo_registry: Path) -> None:
    shown = on_terminal("gc", demo_registry, "--dry-run", "-v")
    assert shown.code == 3 and " took " in shown.text
    assert shown.text.count("listing blobs") >= 1 and '"event"' not in shown.text
    shown = on_terminal("du", demo_registry, "-v", "--log-format", "json", "--json")
    told = [line for line in shown.text.splitlines() if '"event"' in line]
    assert told and all(json.loads(line)["event"] == "phase" for line in told)
    asked = on_terminal("gc", demo_registry, "--offline", "-q")
    assert asked.code == 4 and "with -q no plan is shown" in asked.text and "[y/N]" not in asked.text


def test_somebody_looks_where_nothing_comes(monkeypatch: pytest.MonkeyPatch, stderr: Callable[[], str]) -> None:
    monkeypatch.setattr("regstore.cli.lines._LOOK", 0.001)
    clock = Clock()
    lines = lines_of(clock)
    looked = threading.Event()
    look = lines.look

    def noted() -> None:
        look()
        looked.set()

    monkeypatch.setattr(lines, "look", noted)
    with looking(lines):
        clock.now += 125
        looked.clear()
        assert looked.wait(10)
    assert "nothing was heard for 125 s" in stderr()
