"""Deleting files. Blocking."""

from __future__ import annotations

from collections.abc import Sequence

from regstore.errors import NoSuchBucket, StorageError
from regstore.storage.disk.folders import Tree
from regstore.storage.limit import check_limit


def delete_files(tree: Tree, keys: Sequence[str]) -> dict[str, StorageError | None]:
    """Each key's outcome, as `Storage.delete_many` says. Durable, for links go before blobs, and must stay gone before
    them when the power fails."""
    outcomes: dict[str, StorageError | None] = {}
    changed: dict[str, str] = {}
    try:
        for key in keys:
            check_limit()
            outcomes.setdefault(key, None)
            try:
                if tree.delete(key):
                    changed[key.rpartition("/")[0]] = key
            except NoSuchBucket:
                raise
            except StorageError as error:
                outcomes[key] = error
    finally:
        for key in changed.values():
            tree.sync_folder_of(key)
    return outcomes
