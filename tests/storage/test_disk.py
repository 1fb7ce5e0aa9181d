"""The disk backend: the conformance suite, and what only a disk has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from regstore.storage.base import Storage
from regstore.storage.disk import DiskStorage
from tests.storage.conformance import StorageConformance
from tests.storage.faulty import FaultyStorage


class TestDisk(StorageConformance):
    odd_keys = ("a\nb", "tab\t/x", "\x01", "c/\x7f", "back\\slash", "-", "...", "a\\xff")
    many = 4_100

    @pytest.fixture
    async def storage(self, tmp_path: Path) -> AsyncIterator[Storage]:
        self.root = tmp_path / "root"
        self.root.mkdir()
        async with DiskStorage(self.root) as storage:
            yield storage

    @pytest.fixture
    async def missing(self, tmp_path: Path) -> AsyncIterator[Storage]:
        async with DiskStorage(tmp_path / "not" / "there") as storage:
            yield storage
        assert not (tmp_path / "not").exists()

    async def raw_put(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    async def raw_get(self, key: str) -> bytes | None:
        path = self.root / key
        return path.read_bytes() if path.is_file() else None

    async def raw_keys(self) -> list[str]:
        return [str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir()]


class TestFaultyWithoutFaults(TestDisk):
    """The wrapper for tests changes nothing where it is told of no fault."""

    many = 2_100

    @pytest.fixture
    async def storage(self, tmp_path: Path) -> AsyncIterator[Storage]:
        self.root = tmp_path / "root"
        self.root.mkdir()
        async with FaultyStorage(DiskStorage(self.root)) as storage:
            yield storage
