"""`regstore rm` and `regstore untag`: remove what somebody names, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from regstore.cli.command import command, said
from regstore.cli.naming import full, meaning
from regstore.cli.options import CacheWords, Scanning
from regstore.cli.outcome import Result
from regstore.cli.progress import progress
from regstore.cli.removing import How, Removing
from regstore.cli.run import run_async
from regstore.cli.settings import StoreSettings
from regstore.cli.values import parse_duration
from regstore.errors import InputError

if TYPE_CHECKING:
    from regstore.cli.registry_cache import CacheOptions
    from regstore.gc.removal.named import Named
    from regstore.gc.removal.run import RemovalOptions


@dataclass(frozen=True, kw_only=True)
class Settling:
    """How long pushes under way are waited for."""

    settle: Annotated[
        int,
        typer.Option(
            parser=parse_duration,
            metavar="DURATION",
            help="Where images went, wait this long before the last look.",
        ),
    ] = said("5s", parse_duration)


@command
def rm(
    settings: StoreSettings,
    *,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="REPOSITORY[:TAG|@DIGEST]...",
            show_default=False,
            help="One tag alone; an image with all its tags; or with --recursive a repository.",
        ),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Whole repositories may be named: all their tags and images.")
    ] = False,
    how: How,
    settling: Settling,
    cache: CacheWords,
    scanning: Scanning,
) -> Result:
    """Remove tags, images or repositories by name, and nothing else; `regstore trash restore` undoes it.

    Safe while the registry serves. An image that an index lists which stays is refused. Blobs stay until `regstore gc`.
    """
    from regstore.gc.removal.named import Named
    from regstore.gc.removal.run import RemovalOptions

    settings, words = settings.shifted_all(names)
    words = full(settings, words)
    named = Named.parse(words, recursive=recursive)
    options = RemovalOptions(scan=scanning.of(settings), settle=settling.settle / 1_000_000)
    return _remove(settings, named, options, how, cache.of(settings))


@command
def untag(
    settings: StoreSettings,
    *,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="REPOSITORY:TAG...", show_default=False, help="Tags: each alone, not its siblings."),
    ] = None,
    how: How,
) -> Result:
    """Remove tags and nothing else; the images stay, untagged. `regstore trash restore` undoes it."""
    from regstore.gc.removal.named import Named
    from regstore.gc.removal.run import RemovalOptions
    from regstore.inventory.scan import ScanOptions

    settings, words = settings.shifted_all(names)
    named = Named.parse(words)
    if named.revisions:
        raise InputError("untag is for tags, REPOSITORY:TAG; `regstore rm` removes images by digest")
    scan = ScanOptions(concurrency=settings.concurrency, cache_dir=None)  # no manifest is read for tags
    return _remove(settings, named, RemovalOptions(command="untag", scan=scan), how, None)


def _remove(
    settings: StoreSettings, named: Named, options: RemovalOptions, how: How, told: CacheOptions | None
) -> Result:
    shown = progress()
    with shown:
        removing = Removing(
            settings=settings,
            named=named,
            options=options,
            told=told,
            how=how,
            shown=shown,
        )
        names = [f"{name}:{tag}" for name, tag in sorted(named.tags)]
        names += [*(name for name, _ in sorted(named.revisions)), *sorted(named.repositories)]
        return run_async(meaning(settings, names, removing.run()))
