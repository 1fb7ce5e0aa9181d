"""For tests of a backend, and of what is built on regstore. It needs `pip install regstore[testing]`: pytest, and
pytest-asyncio with `asyncio_mode = "auto"`.

The conformance suite: what every `Storage` must do, as tests. Give it the store, and back doors to it:

    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

    from regstore.storage import Storage, open_storage
    from regstore.testing import StorageConformance


    class TestFolder(StorageConformance):
        many = 4_100  # a page of it holds more than one of S3

        @pytest.fixture
        async def storage(self, tmp_path: Path) -> AsyncIterator[Storage]:
            self.root = tmp_path  # an empty store
            async with open_storage(tmp_path) as storage:
                yield storage

        @pytest.fixture
        async def missing(self, tmp_path: Path) -> AsyncIterator[Storage]:
            async with open_storage(tmp_path / "nothing") as storage:
                yield storage

        async def raw_put(self, key: str, data: bytes) -> None:
            (self.root / key).parent.mkdir(parents=True, exist_ok=True)
            (self.root / key).write_bytes(data)

        async def raw_get(self, key: str) -> bytes | None:
            return (self.root / key).read_bytes() if (self.root / key).is_file() else None

        async def raw_keys(self) -> list[str]:
            return [str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()]

What more a subclass may say (odd keys that the store can hold, unfinished uploads) stands in `store.StoreTests`.
`any_keys.AnyKeys` is one test more, with Hypothesis.

`FaultyStorage` fails, dies (`Killed`, which `died` waits for) or pauses (in a `Hook`) where a test says, over any other
storage, such as one at `memory://name`: what is left of a run that is cut short at its third `Mutation`?
"""

from __future__ import annotations

import pytest

_WITH_TESTS = ("any_keys", "listing", "objects", "store", "streams", "whole")
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _WITH_TESTS))

from regstore.testing.conformance import StorageConformance  # noqa: E402
from regstore.testing.faulty import FaultyStorage, Hook, Killed, Mutation, died  # noqa: E402

__all__ = ["FaultyStorage", "Hook", "Killed", "Mutation", "StorageConformance", "died"]
