from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

import regstore
from regstore.errors import InputError, NoSuchBucket
from regstore.registry.opening import Options
from regstore.storage.opening import OpenOptions


def test_every_option_of_a_storage_is_a_keyword() -> None:
    assert set(Options.__annotations__) == {field.name for field in fields(OpenOptions)}


async def test_a_folder_by_path_text_or_url(tmp_path: Path) -> None:
    async with regstore.open(tmp_path / "new", create=True) as registry:
        await registry.repository("a").blobs.put(b"x")
    for place in (tmp_path / "new", str(tmp_path / "new"), (tmp_path / "new").as_uri()):
        async with regstore.open(place) as registry:
            assert [repository.name async for repository in registry.repositories()] == ["a"]


async def test_what_is_not_there_or_no_place(tmp_path: Path) -> None:
    async with regstore.open(tmp_path / "missing") as registry:
        with pytest.raises(NoSuchBucket):
            await registry.is_registry()
        with pytest.raises(NoSuchBucket):
            await registry.repository("a").tags.get("1")
        with pytest.raises(NoSuchBucket):
            await registry.repository("a").blobs.put(b"x")
    with pytest.raises(InputError):
        async with regstore.open("ftp://somewhere"):
            pass
