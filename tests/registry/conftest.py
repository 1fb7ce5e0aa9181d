from __future__ import annotations

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
