"""A backend of one's own keeps the contract when it passes the conformance suite: nothing else is asked of it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from regstore.storage.base import Storage
from regstore.testing import StorageConformance
from tests.storage.third import SqliteStorage, make


class TestSqlite(StorageConformance):
    odd_keys = ("a//b", "a/", "/lead", "a/./b", "a\nb", "\x01", "a", "a/b/")

    @pytest.fixture
    async def storage(self, tmp_path: Path) -> AsyncIterator[Storage]:
        make(tmp_path / "store")
        self.door = sqlite3.connect(tmp_path / "store", isolation_level=None)
        self.door.execute("pragma synchronous = off")
        async with SqliteStorage(tmp_path / "store") as storage:
            yield storage
        self.door.close()

    @pytest.fixture
    async def missing(self, tmp_path: Path) -> AsyncIterator[Storage]:
        async with SqliteStorage(tmp_path / "nothing") as storage:
            yield storage

    async def raw_put(self, key: str, data: bytes) -> None:
        values = [key.encode(), data, time.time_ns() // 1000]
        self.door.execute("insert or replace into object values (?, ?, ?)", values)

    async def raw_get(self, key: str) -> bytes | None:
        row = self.door.execute("select data from object where key = ?", [key.encode()]).fetchone()
        return row[0] if row else None

    async def raw_keys(self) -> list[str]:
        return [key.decode() for (key,) in self.door.execute("select key from object")]
