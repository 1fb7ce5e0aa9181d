"""`regstore.verify` without `await`."""

from __future__ import annotations

from regstore import verify as asynchronous
from regstore.sync.blocking import context, function

__all__ = ["examine", "hold_lock", "repair", "verify"]

examine = function(asynchronous.examine)
hold_lock = context(asynchronous.hold_lock)
repair = function(asynchronous.repair)
verify = function(asynchronous.verify)
