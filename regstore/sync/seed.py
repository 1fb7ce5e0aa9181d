"""`regstore.seed` without `await`."""

from __future__ import annotations

from regstore import seed as asynchronous
from regstore.sync.blocking import function

__all__ = ["seed"]

seed = function(asynchronous.seed)
