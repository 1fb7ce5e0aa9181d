"""`regstore.exchange` without `await`."""

from __future__ import annotations

from regstore import exchange as asynchronous
from regstore.sync.blocking import context, function

__all__ = [
    "export",
    "hold_lock",
    "import_layout",
    "open_source",
    "open_target",
    "plan_export",
    "plan_import",
]

export = function(asynchronous.export)
hold_lock = context(asynchronous.hold_lock)
import_layout = function(asynchronous.import_layout)
open_source = context(asynchronous.open_source)
open_target = context(asynchronous.open_target)
plan_export = function(asynchronous.plan_export)
plan_import = function(asynchronous.plan_import)
