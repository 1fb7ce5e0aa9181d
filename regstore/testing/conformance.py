"""What every Storage must do, as tests: each clause of `regstore.storage.base`."""

from __future__ import annotations

from regstore.testing.listing import Listing
from regstore.testing.objects import Objects
from regstore.testing.streams import Streams
from regstore.testing.whole import Whole


class StorageConformance(Listing, Objects, Streams, Whole):
    """All of them. A subclass named `Test…` has the fixtures and the back doors of `StoreTests`."""
