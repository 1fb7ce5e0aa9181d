"""`regstore demo`: a small registry in a temporary folder, and the commands that look at it and clean it."""

from __future__ import annotations

import io
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from regstore.cli.command import command
from regstore.cli.output import emit, emit_error
from regstore.cli.run import run_async
from regstore.errors import EXIT_DAMAGE, EXIT_FAILURE, EXIT_OK, EXIT_PARTIAL

_WIDTH = 100


@dataclass(frozen=True, slots=True)
class _Step:
    """A sentence, and the command that it explains, in which FOLDER and the like are replaced by the demo's own places.
    expected: its exit code. told: regular expressions that its output must have. before: what is done first."""

    why: str
    command: str
    told: tuple[str, ...]
    expected: int = EXIT_OK
    before: Callable[[Path], None] | None = None


def _flip_a_byte(top: Path) -> None:
    """In the middle of the largest blob of the restored registry, as a failing disk might."""
    blob = max((top / "restored/docker/registry/v2/blobs").rglob("data"), key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)


_STEPS = (
    _Step(
        "What is in this registry? Repositories come from the store itself, no registry needs to run.",
        "ls --long FOLDER",
        (r"^team/app +4 ", r"^legacy/import "),
    ),
    _Step(
        "The tags of one of them. Another one leads to the signature of 1.1, where a registry has no referrers API.",
        "tags FOLDER team/app",
        (r"^1\.0 ", r"^1\.1 ", r"^latest ", r"^\(1 more tag"),
    ),
    _Step(
        "One manifest in full: a multi-arch index, its platforms, and what refers to it.",
        "inspect FOLDER team/app:1.1",
        (r"linux/arm64/v8", r"^Referrers"),
    ),
    _Step(
        "What would a garbage collection remove? Older builds of `latest`, an orphaned blob and an abandoned upload "
        "go; children of indexes and the signature stay. One repository has a damaged link, so nothing in it is "
        "touched, and exit code 3 says that something was left out.",
        "gc FOLDER --delete-untagged --offline --dry-run --cache-dir CACHE",
        (r"^blobs +38 +7 ", r"^left alone: legacy/import$"),
        EXIT_PARTIAL,
    ),
    _Step(
        "The same for real. --offline says that no registry is writing here at the moment. Blobs go to a trash "
        "beside the registry's own folder first, and can come back from there.",
        "gc FOLDER --delete-untagged --offline --yes --cache-dir CACHE",
        (r"^7 blobs \(1\.8 MiB\) moved to the trash; removed 0 tags, 2 revisions", r"undo with"),
        EXIT_PARTIAL,
    ),
    _Step(
        "Once more: there is nothing left to do.",
        "gc FOLDER --delete-untagged --offline --yes --cache-dir CACHE",
        (r"^nothing to remove$",),
        EXIT_PARTIAL,
    ),
    _Step(
        "That was one run too many? It is undone, until the trash is emptied.",
        "trash restore FOLDER --yes",
        (r"^put back 7 blobs \(1\.8 MiB\) and \d+ links",),
    ),
    _Step(
        "A backup, which may be taken while a registry serves. What is damaged is left out and named.",
        "backup create FOLDER BACKUP --create --cache-dir CACHE",
        (r"^snapshot \S+: \d repositories, 7 tags",),
        EXIT_PARTIAL,
    ),
    _Step(
        "Back from it, into a folder that is not there yet.",
        "restore BACKUP RESTORED --create",
        (r"^restored snapshot .* 7 tags",),
        EXIT_PARTIAL,
    ),
    _Step(
        "Now one bit of it flips on the disk. No registry would notice; a client that pulls gets wrong bytes.",
        "verify RESTORED --read-data all --cache-dir CACHE",
        (r"^blob damaged: ", r"^  touches .*team/app:latest", r"^[1-9] of 7 tags can't be pulled whole$"),
        EXIT_DAMAGE,
        before=_flip_a_byte,
    ),
    _Step(
        "The backup has the right ones.",
        "verify RESTORED --read-data all --repair-from BACKUP --cache-dir CACHE",
        (r"^after the repair:$", r"^no damage found$"),
    ),
    _Step("And every tag is there.", "tags RESTORED team/app", (r"^1\.0 ", r"^1\.1 ", r"^latest ")),
)


@command(as_json=False)
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the folder for you to look at.")] = False,
) -> int:
    """Build a small registry in a temporary folder, and walk through it: look, clean up, undo, back up, repair.

    What each command says and its exit code are checked. It fails where one is not as told.
    """
    import shutil
    import tempfile

    top = Path(tempfile.mkdtemp(prefix="regstore-demo-"))
    try:
        return _walk_through(top)
    finally:
        if keep:
            emit(f"\nTo look at it in a browser, and to pull from it: regstore serve {top / 'registry'}")
            emit(f"The registry is in {top / 'registry'}; delete {top} when you are done.")
        else:
            shutil.rmtree(top, ignore_errors=True)


def _walk_through(top: Path) -> int:
    from datetime import UTC, datetime

    from regstore.demo_registry import build_demo_registry

    names = {"FOLDER": "registry", "CACHE": "cache", "BACKUP": "backup", "RESTORED": "restored"}
    places = {word: str(top / name) for word, name in names.items()}
    run_async(build_demo_registry(top / "registry", now=datetime.now(UTC)))
    _say(f"A small registry, as docker-registry would store it, is now in {top / 'registry'}.")
    for step in _STEPS:
        if step.before is not None:
            step.before(top)
        _say(step.why)
        arguments = [places.get(word, word) for word in shlex.split(step.command)]
        emit(f"$ regstore {shlex.join(arguments)}\n")
        sys.stdout.flush()
        with _Heard() as heard:
            code = _run(arguments)
        sys.stdout.flush()
        if code >= 128:  # interrupted, or nobody reads this any more
            return code
        if code != EXIT_OK:
            emit(f"\n(exit code {code})")
        missing = [each for each in step.told if not re.search(each, heard.text, re.MULTILINE)]
        if code != step.expected or missing:
            emit_error(
                f"this is not as it should be: exit code {code}, where {step.expected} was expected"
                if code != step.expected
                else f"this is not as it should be: no line has {missing[0]!r}"
            )
            return EXIT_FAILURE
    return EXIT_OK


class _Heard:
    """Standard output, which goes on to be what it was; without colours in `text`."""

    def __enter__(self) -> _Heard:
        self._to, self._said = sys.stdout, io.StringIO()
        sys.stdout = self
        return self

    def __exit__(self, *exc: object) -> None:
        sys.stdout = self._to

    def write(self, text: str) -> int:
        self._said.write(text)
        return self._to.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._to, name)

    @property
    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;]*m", "", self._said.getvalue())


def _run(arguments: list[str]) -> int:
    from regstore.cli.app import app

    try:
        code = app(arguments, prog_name="regstore", standalone_mode=False)
    except SystemExit as end:
        code = end.code
    return code if isinstance(code, int) else EXIT_OK


def _say(text: str) -> None:
    import textwrap

    emit("\n" + textwrap.fill(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False))
