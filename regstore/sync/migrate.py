"""`regstore.migrate` without `await`."""

from __future__ import annotations

from regstore import migrate as asynchronous
from regstore.sync.blocking import function

__all__ = ["check_source", "migrate", "plan_only"]

check_source = function(asynchronous.check_source)
migrate = function(asynchronous.migrate)
plan_only = function(asynchronous.plan_only)
