"""`regstore.backup` without `await`."""

from __future__ import annotations

from regstore import backup as asynchronous
from regstore.sync.blocking import context, function

__all__ = ["check", "create", "hold_lock", "list_snapshots", "plan_prune", "plan_restore", "prune", "restore"]

check = function(asynchronous.check)
create = function(asynchronous.create)
hold_lock = context(asynchronous.hold_lock)
list_snapshots = function(asynchronous.list_snapshots)
plan_prune = function(asynchronous.plan_prune)
plan_restore = function(asynchronous.plan_restore)
prune = function(asynchronous.prune)
restore = function(asynchronous.restore)
