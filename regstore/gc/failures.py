"""What a store would not do for a run: counted by reason, so that a million refusals are a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from regstore.errors import AccessDenied, StorageError
from regstore.storage.base import Storage

#: Reasons told apart; what fails for yet others is only counted.
_REASONS: Final = 20


@dataclass(slots=True)
class _Reason:
    key: str
    said: str
    keys: int = 0


class Failures:
    """The keys that could not be changed, and why."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._reasons: dict[str, _Reason] = {}
        self._others = 0

    def __len__(self) -> int:
        """How many keys."""
        return sum(one.keys for one in self._reasons.values()) + self._others

    def add(self, key: str, said: object) -> None:
        text = str(said)
        reason = text.replace(key, "")
        if reason not in self._reasons and len(self._reasons) >= _REASONS:
            self._others += 1
        else:
            self._reasons.setdefault(reason, _Reason(key, text)).keys += 1

    def note(self, outcomes: Mapping[str, StorageError | None]) -> None:
        """What came of each key of a batch. AccessDenied where the store permits nothing of it: the next batch would
        fare no better."""
        denied = [error for error in outcomes.values() if isinstance(error, AccessDenied)]
        if len(denied) == len(outcomes) > 1:
            raise AccessDenied(
                f"{self._url} permits none of {len(denied):,} changes, so the run stopped: {denied[0]}"
            ) from denied[0]
        for key, error in outcomes.items():
            if error is not None:
                self.add(key, error)

    def lines(self) -> tuple[str, ...]:
        """A line a reason, with a key for which it was given."""
        lines = [
            f"{one.key}: {one.said}" if one.keys == 1 else f"{one.keys:,} keys, such as {one.key}: {one.said}"
            for one in self._reasons.values()
        ]
        return (*lines, f"{self._others:,} keys for other reasons") if self._others else tuple(lines)


async def try_deleting(storage: Storage, key: str) -> None:
    """Delete a key of our own that need not be there. AccessDenied where the store does not permit deletes."""
    (outcome,) = (await storage.delete_many([key])).values()
    if isinstance(outcome, AccessDenied):
        raise AccessDenied(
            f"{storage.url} does not permit DELETE, so nothing was changed: {outcome}; permit it and try again"
        ) from outcome
