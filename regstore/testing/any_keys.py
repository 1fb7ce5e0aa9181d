"""With Hypothesis: any keys, under any prefix, from any start."""

from __future__ import annotations

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from regstore.storage.base import Storage
from regstore.testing.store import SECOND, StoreTests, keys

_components = st.text(alphabet="ab-./0_é\ufb01\U0001f600~ %+", min_size=1, max_size=4)


def _is_plain(key: str) -> bool:
    return all(part not in ("", ".", "..") for part in key.split("/"))


def _without_folders(keys: set[str]) -> list[str]:
    """Without keys that a disk cannot hold beside the others: `a` next to `a/b`."""
    folders = {key[:at] for key in keys for at, character in enumerate(key) if character == "/"}
    return sorted(keys - folders)


_key_sets = (
    st.lists(st.lists(_components, min_size=1, max_size=3).map("/".join).filter(_is_plain), max_size=10)
    .map(set)
    .map(_without_folders)
)


class AnyKeys(StoreTests):
    """Beside `StorageConformance`, for who has Hypothesis."""

    @settings(
        max_examples=12,
        deadline=None,
        database=None,
        # The store is emptied before each example, and one class a backend runs this; no examples are kept.
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
            HealthCheck.too_slow,
        ],
    )
    @example(names=["a-b/c", "a/c", "a.b", "a0"], cut="a/", after="a-b/c")
    @given(names=_key_sets, cut=st.text(alphabet="ab-/.", max_size=3), after=_components)
    async def test_any_keys_any_prefix_any_start(
        self, storage: Storage, names: list[str], cut: str, after: str
    ) -> None:
        await storage.delete_many(await self.raw_keys())
        await storage.remove_empty_folders("", older_than=await storage.now() + 60 * SECOND)
        await self.raw_put_many(names)
        expected = sorted(names, key=str.encode)
        assert await keys(storage) == expected
        assert await keys(storage, cut) == [key for key in expected if key.startswith(cut)]
        assert await keys(storage, cut, after) == [
            key for key in expected if key.startswith(cut) and key.encode() > after.encode()
        ]
