from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from regstore.registry import Registry
from tests.registry.storages import RecordingStorage


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[RecordingStorage]:
    async with RecordingStorage(tmp_path / "store") as storage:
        yield storage


@pytest.fixture
def registry(storage: RecordingStorage) -> Registry:
    return Registry(storage)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power failure leaves is the storage's own test; here its syncs only take time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
