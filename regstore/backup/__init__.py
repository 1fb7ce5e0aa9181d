"""Backups of a registry's storage: consistent, incremental, checked. `format` says what lies in one.

await create(store, backup)                                    a snapshot, while the registry serves
await restore(backup, store, RestoreOptions(), lock=lock)      into an empty store, or one in use
await check(backup, read_data=ReadData.parse("10%"))
await prune(backup, PruneOptions(keep=Retention(daily=7)), lock=lock)
"""

from regstore.backup.check import CheckResult, Damage, check
from regstore.backup.create import CreateResult, create
from regstore.backup.format import Snapshot
from regstore.backup.opening import choose, list_snapshots, passed_over, untold
from regstore.backup.options import CreateOptions, PruneOptions, RestoreOptions, Retention
from regstore.backup.prune import PrunePlan, PruneResult, plan_prune, prune
from regstore.backup.restore import RestorePlan, RestoreResult, plan_restore, restore
from regstore.proving.read_data import ReadData

__all__ = [
    "CheckResult",
    "CreateOptions",
    "CreateResult",
    "Damage",
    "PruneOptions",
    "PrunePlan",
    "PruneResult",
    "ReadData",
    "RestoreOptions",
    "RestorePlan",
    "RestoreResult",
    "Retention",
    "Snapshot",
    "check",
    "choose",
    "create",
    "list_snapshots",
    "passed_over",
    "plan_prune",
    "plan_restore",
    "prune",
    "restore",
    "untold",
]
