"""`regstore demo`: a small registry in a temporary folder, and the commands that look at it and clean it."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from regstore.cli.command import command
from regstore.cli.output import emit
from regstore.cli.run import run_async
from regstore.errors import EXIT_FAILURE, EXIT_OK, EXIT_PARTIAL

_WIDTH = 100


@dataclass(frozen=True, slots=True)
class _Step:
    """A sentence, and the command that it explains. FOLDER and CACHE in it are replaced by the demo's own."""

    why: str
    command: str
    expected: int = EXIT_OK


_STEPS = (
    _Step(
        "What is in this registry? Repositories come from the store itself, no registry needs to run.",
        "ls --long FOLDER",
    ),
    _Step(
        "The tags of one of them. The long one leads to the signature of 1.1 where a registry has no referrers API.",
        "tags FOLDER team/app",
    ),
    _Step(
        "One manifest in full: a multi-arch index, its platforms, and what refers to it.",
        "inspect FOLDER team/app:1.1",
    ),
    _Step(
        "What would a garbage collection remove? Older builds of `latest`, an orphaned blob and an abandoned upload "
        "go; children of indexes and the signature stay. One repository has a damaged link, so nothing in it is "
        "touched, and exit code 3 says that something was left out.",
        "gc FOLDER --delete-untagged --offline --dry-run --cache-dir CACHE",
        EXIT_PARTIAL,
    ),
    _Step(
        "The same for real. --offline says that no registry is writing here at the moment. Blobs go to a trash "
        "beside the registry's own folder first, and can come back from there.",
        "gc FOLDER --delete-untagged --offline --yes --cache-dir CACHE",
        EXIT_PARTIAL,
    ),
    _Step(
        "Once more: there is nothing left to do.",
        "gc FOLDER --delete-untagged --offline --yes --cache-dir CACHE",
        EXIT_PARTIAL,
    ),
    _Step("And every tag is still there.", "tags FOLDER team/app"),
)


@command(as_json=False)
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the folder for you to look at.")] = False,
) -> int:
    """Build a small registry in a temporary folder, and walk through ls, tags, inspect and gc on it."""
    import shutil
    import tempfile

    top = Path(tempfile.mkdtemp(prefix="regstore-demo-"))
    try:
        return _walk_through(top / "registry", top / "cache")
    finally:
        if keep:
            emit(f"\nTo look at it in a browser, and to pull from it: regstore serve {top / 'registry'}")
            emit(f"The registry is in {top / 'registry'}; delete {top} when you are done.")
        else:
            shutil.rmtree(top, ignore_errors=True)


def _walk_through(folder: Path, cache: Path) -> int:
    from datetime import UTC, datetime

    from regstore.demo_registry import build_demo_registry

    run_async(build_demo_registry(folder, now=datetime.now(UTC)))
    _say(f"A small registry, as docker-registry would store it, is now in {folder}.")
    for step in _STEPS:
        _say(step.why)
        places = {"FOLDER": str(folder), "CACHE": str(cache)}
        arguments = [places.get(word, word) for word in shlex.split(step.command)]
        emit(f"$ regstore {shlex.join(arguments)}\n")
        sys.stdout.flush()
        code = _run(arguments)
        sys.stdout.flush()
        if code >= 128:  # interrupted, or nobody reads this any more
            return code
        if code != step.expected:
            emit(f"\n(exit code {code}, where {step.expected} was expected)")
            return EXIT_FAILURE
        if code != EXIT_OK:
            emit(f"\n(exit code {code})")
    return EXIT_OK


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
