from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power failure leaves is the storage's own test; here its syncs only take time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
