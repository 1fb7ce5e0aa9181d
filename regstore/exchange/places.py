"""Where a layout is, or is to be: a folder or a tar file of this computer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from regstore.errors import InputError
from regstore.exchange.tar_reading import TarStorage
from regstore.exchange.tar_writing import TarTarget
from regstore.storage.base import Storage
from regstore.storage.opening import OpenOptions, open_storage

_COMPRESSED = (".tgz", ".tar.gz", ".tar.zst", ".tar.xz", ".tar.bz2")


@asynccontextmanager
async def open_target(path: str | os.PathLike[str]) -> AsyncIterator[Storage]:
    """A folder, made where it is not there, or by its name's end `.tar` a file. InputError where neither can be."""
    target, is_new = _made(Path(path))
    try:
        async with target:
            yield target
    finally:
        if is_new:
            _remove_empty(Path(path))


@asynccontextmanager
async def open_source(path: str | os.PathLike[str]) -> AsyncIterator[Storage]:
    """InputError where there is neither a folder nor a tar archive."""
    async with await asyncio.to_thread(_found, Path(path)) as source:
        yield source


def _made(path: Path) -> tuple[Storage, bool]:
    """And whether a folder was made for it."""
    if path.name.endswith(_COMPRESSED):
        raise InputError(f"{path}: an archive is written as it is, FILE.tar; compress it afterwards")
    if path.suffix == ".tar" and not path.is_dir():
        return TarTarget(path), False
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file: give a folder, or a file that is not there yet and ends in .tar")
    is_new = not path.exists()
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} can't be made: {(error.strerror or str(error)).lower()}") from error
    return open_storage(path), is_new


def _found(path: Path) -> Storage:
    return open_storage(path, OpenOptions(read_only=True)) if path.is_dir() else TarStorage(path)


def _remove_empty(path: Path) -> None:
    """Where nothing was written."""
    with suppress(OSError):
        path.rmdir()
