"""`regstore run`: the commands of a job, one after the other.

Each step is a process of its own: one that runs out of memory, or is killed, ends alone; what it keeps (memory, caches,
how it allocates) is gone when the next begins; and a lock that it held goes with it. That process reads the
configuration itself (`regstore run JOB --step N`), so that no secret stands in a command line, or in an environment,
for others to see.

A signal to the job is passed on to its step, the job waits until that has tidied up, and starts no other. A terminal
and systemd tell both of them, so the step hears of it twice, and takes that for once (`run.hearing_echoes`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

import regstore
from regstore.cli.command import command
from regstore.cli.config.complete import job_names
from regstore.cli.config.current import configuration, of_the_file, said
from regstore.cli.outcome import Result
from regstore.cli.output import counted, emit, emit_error, emit_problem, table
from regstore.cli.run import give_signals_back, hearing_echoes, take_signals
from regstore.cli.voice import voice
from regstore.errors import (
    EXIT_DAMAGE,
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_LOCKED,
    EXIT_OK,
    EXIT_PARTIAL,
    EXIT_REFUSED,
    EXIT_USAGE,
    InputError,
)

if TYPE_CHECKING:
    from regstore.cli.config.model import Configuration, Job, Step

#: Of exit codes, the gravest first: that of a job is the gravest of its steps'.
GRAVEST: Final = (
    EXIT_DAMAGE,
    EXIT_FAILURE,
    EXIT_REFUSED,
    EXIT_LOCKED,
    EXIT_USAGE,
    EXIT_PARTIAL,
    EXIT_OK,
)
_WORDS: Final = {
    EXIT_OK: "done",
    EXIT_FAILURE: "failed",
    EXIT_USAGE: "wrong input",
    EXIT_PARTIAL: "done, with something left out",
    EXIT_REFUSED: "refused",
    EXIT_LOCKED: "another run held the lock",
    EXIT_DAMAGE: "damage found",
    EXIT_INTERRUPTED: "interrupted",
}
_INSTALLED: Final = ("site-packages", "dist-packages")


@command
def run_job(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="JOB", show_default=False, autocompletion=job_names, help="A job of the configuration."
        ),
    ] = None,
    *,
    step: Annotated[
        int | None, typer.Option(metavar="N", min=1, show_default=False, help="Only this step, in this process.")
    ] = None,
    unchanged: Annotated[str | None, typer.Option(metavar="DIGEST", hidden=True)] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Show the steps as command lines; run none.")
    ] = False,
) -> Result:
    """Run a job of the configuration: its commands in order, with one summary and one exit code.

    Before the first step begins, the options of all are looked at. A step that fails (any exit code but 0 and 3) ends
    the job, unless it, or the job, has on_failure = "continue". Nothing is asked: a step that removes things has to say
    yes = true.

    Exit codes: that of the gravest step, in the order 6, 1, 4, 5, 2, 3, 0; 130 interrupted.
    """
    found = configuration()
    job = _job(name, found)
    assert found is not None
    if not found.place.path.is_file():
        raise InputError(f"{found.place.path} is no file that each step of a job could read again")
    if unchanged not in (None, found.digest):
        raise InputError(f"{found.place.path} was changed since the job began: its other steps are not run")
    voice().job = job.name
    if step is not None:
        _run_here(_step(job, step), found)
    if dry_run:
        return _show(job, found)
    problems = _problems(job, found)
    if problems:
        raise InputError(problems[0] + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""))
    running = _Running(job, found)
    voice().others_speak = True
    running.run()
    return running.tell()


def _job(name: str | None, found: Configuration | None) -> Job:
    from regstore.cli.config.model import suggestion

    jobs: Mapping[str, Job] = {} if found is None else found.jobs
    if name is None:
        raise InputError(f"no job: give the name of one in {of_the_file()}{suggestion('', jobs)}")
    if name not in jobs:
        raise InputError(f"no job {name!r} in {of_the_file()}{suggestion(name, jobs)}")
    return jobs[name]


def _step(job: Job, number: int) -> Step:
    if number > len(job.steps):
        raise InputError(f"job {job.name} has {counted(len(job.steps), 'step')}, and no step {number}")
    return job.steps[number - 1]


def _problems(job: Job, found: Configuration) -> list[str]:
    from regstore.cli.config.check import problems_of

    return list(problems_of(job, found))


def _run_here(step: Step, found: Configuration) -> None:
    """Run the step's command. Ends as that does: by typer.Exit."""
    from regstore.cli.config.stub import Told, context_of

    words = _how_to_speak()
    if voice().metrics_file is not None and "metrics_file" in said():  # by the job's own process
        words.append(f"--metrics-file={voice().metrics_file}")
    context = context_of(step.command, Told(configuration=found, step=step), words)
    with context, hearing_echoes():
        context.command.invoke(context)
    raise typer.Exit(EXIT_OK)


def _show(job: Job, found: Configuration) -> Result:
    from regstore.cli.config.lines import command_line

    lines = [command_line(step, found) for step in job.steps]
    voice().answers = True
    for line in lines:
        emit(line)
    return Result(data={"plan": {"job": job.name, "steps": lines}, "report": None})


@dataclass(frozen=True, kw_only=True)
class _Done:
    """A step that ran. printed: its object, with --json."""

    step: Step
    exit_code: int
    seconds: float
    printed: Any


class _Metrics:
    """What the steps tell of themselves, for the metrics of the job. Nothing where it has none."""

    def __init__(self) -> None:
        self._folder: Path | None = None

    def __enter__(self) -> None:
        if voice().metrics_file is not None:
            with contextlib.suppress(OSError):  # the job goes on without
                self._folder = Path(tempfile.mkdtemp(prefix="regstore-job-"))

    def __exit__(self, *exc: object) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def words(self) -> list[str]:
        """For the step that begins."""
        return [] if self._folder is None else [f"--metrics-file={self._folder / 'step.prom'}"]

    def take(self) -> None:
        """That step has ended."""
        if self._folder is None:
            return
        file = self._folder / "step.prom"
        with contextlib.suppress(OSError):  # it was killed
            voice().steps.append(file.read_text(encoding="utf-8"))
            file.unlink()


class _Running:
    """A job under way."""

    def __init__(self, job: Job, found: Configuration) -> None:
        self._job = job
        self._found = found
        self._as_json = voice().as_json
        self._done: list[_Done] = []
        self._received = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._began = time.monotonic()
        self._metrics = _Metrics()

    def run(self) -> None:
        before = take_signals(self._pass_on)
        try:
            with self._metrics:
                self._each()
        finally:
            give_signals_back(before)

    def _each(self) -> None:
        for step in self._job.steps:
            if self._received:
                break
            self._done.append(self._one(step))
            failed = self._done[-1].exit_code not in (EXIT_OK, EXIT_PARTIAL)
            if failed and step.on_failure == "stop":
                break

    def _pass_on(self, number: int, frame: object) -> None:
        """The first asks the step to end, the second ends it, as if it had been sent to that."""
        self._received = self._received or number
        if self._process is not None:
            self._process.send_signal(number)

    def _one(self, step: Step) -> _Done:
        from regstore.cli.config.lines import command_line

        emit(f"step {step.number} of {len(self._job.steps)}: {command_line(step, self._found)}")
        sys.stdout.flush()
        began = time.monotonic()
        try:
            process = subprocess.Popen(
                self._words(step),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self._as_json else None,
                env=_environment(),
            )
        except OSError as error:  # no memory, no process: the next may have some
            emit_error(f"step {step.number}, {step.command}, can't be started: {error.strerror}")
            return _Done(step=step, exit_code=EXIT_FAILURE, seconds=0.0, printed=None)
        self._process = process
        if self._received:  # while it was being started
            process.send_signal(self._received)
        printed, _ = process.communicate()
        self._process = None
        self._metrics.take()
        code = process.returncode
        if code < 0:
            emit_error(f"step {step.number}, {step.command}, was ended by {signal.Signals(-code).name}")
            code = 128 - code
        emit()
        return _Done(step=step, exit_code=code, seconds=time.monotonic() - began, printed=_document(printed or b""))

    def _words(self, step: Step) -> Sequence[str]:
        place = self._found.place
        named = ["--config", str(place.path)] if place.how == "named" else []
        words = [sys.executable, "-P", "-m", "regstore", *named, "run", self._job.name, "--step", str(step.number)]
        return [*words, "--unchanged", self._found.digest, *self._metrics.words, *_how_to_speak()]

    @property
    def exit_code(self) -> int:
        if self._received:
            return EXIT_INTERRUPTED if self._received == signal.SIGINT else 128 + self._received
        codes = {each.exit_code if each.exit_code in GRAVEST else EXIT_FAILURE for each in self._done}
        return next(each for each in GRAVEST if each in codes)

    def tell(self) -> Result:
        seconds = time.monotonic() - self._began
        if self._received:
            emit_error(f"interrupted: {counted(len(self._done), 'step')} of {len(self._job.steps)} began")
        rows = [
            [
                str(each.step.number),
                each.step.command,
                str(each.exit_code),
                _word(each.exit_code),
                f"{each.seconds:.1f} s",
            ]
            for each in self._done
        ]
        rows += [
            [str(each.number), each.command, "", "not begun", ""] for each in self._job.steps[len(self._done) :]
        ]
        say = emit if self.exit_code == EXIT_OK else emit_problem
        say(table(["STEP", "COMMAND", "EXIT", "", "TIME"], rows, right=(0, 2, 4)))
        say(f"job {self._job.name}: exit code {self.exit_code}, in {seconds:.1f} s")
        failed = sum(each.exit_code not in (EXIT_OK, EXIT_PARTIAL) for each in self._done)
        return Result(
            exit_code=self.exit_code,
            data={"plan": None, "report": self._json(seconds)},
            numbers={"steps": len(self._job.steps), "begun_steps": len(self._done), "failed_steps": failed},
        )

    def _json(self, seconds: float) -> dict[str, Any]:
        done = {each.step.number: each for each in self._done}
        return {
            "job": self._job.name,
            "seconds": seconds,
            "steps": [
                {
                    "step": step.number,
                    "command": step.command,
                    "exit_code": done[step.number].exit_code if step.number in done else None,
                    "seconds": done[step.number].seconds if step.number in done else None,
                    "error": _part(done.get(step.number), "error"),
                    "result": _part(done.get(step.number), "result"),
                }
                for step in self._job.steps
            ],
        }


def _how_to_speak() -> list[str]:
    """A step speaks as its job does."""
    own = voice()
    words = {
        "--json": own.as_json,
        "--quiet": own.quiet,
        "--verbose": own.verbose,
        "--log-format=json": own.log_json,
    }
    return [word for word, said in words.items() if said]


def _part(done: _Done | None, name: str) -> Any:
    """Of the object that a step printed."""
    printed = None if done is None else done.printed
    return printed.get(name) if isinstance(printed, dict) else None


def _word(code: int) -> str:
    return _WORDS.get(code, f"ended by {signal.Signals(code - 128).name}" if 128 < code < 160 else "failed")


def _document(printed: bytes) -> Any:
    import orjson

    try:
        return orjson.loads(printed) if printed.strip() else None
    except orjson.JSONDecodeError:
        return printed.decode(errors="replace")


def _environment() -> dict[str, str]:
    """For a step: ours, and this package where it is not installed. The current folder is no place to import from."""
    root = Path(regstore.__file__).parent.parent
    if root.name in _INSTALLED:
        return dict(os.environ)
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *([path] if path else [])])}
