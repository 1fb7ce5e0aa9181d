"""Names of stores and of jobs, for shells that complete words."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

from regstore.errors import InputError

if TYPE_CHECKING:
    from regstore.cli.config.model import Configuration


def store_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Where none fits, the shell has its files."""
    found = _configuration(ctx)
    return [] if found is None else _fitting(found.stores, incomplete)


def job_names(ctx: typer.Context, incomplete: str) -> list[str]:
    found = _configuration(ctx)
    return [] if found is None else _fitting(found.jobs, incomplete)


def _configuration(ctx: typer.Context) -> Configuration | None:
    from regstore.cli.config.current import load

    try:
        return load(ctx.find_root().params.get("config"), os.environ)
    except InputError:  # the command says so, when it runs
        return None


def _fitting(names: Iterable[str], incomplete: str) -> list[str]:
    at = "@" if incomplete.startswith("@") else ""
    return [at + name for name in sorted(names) if (at + name).startswith(incomplete)]
