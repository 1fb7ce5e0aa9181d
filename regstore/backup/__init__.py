"""Backups of a registry's storage: consistent, incremental, checked. `format` says what lies in one.

    from regstore.backup import (
        PruneOptions, ReadData, RestoreOptions, Retention, check, create, hold_lock, list_snapshots, prune, restore
    )
    from regstore.storage import OpenOptions, open_storage

    made = OpenOptions(create=True)
    async with open_storage("/srv/registry") as store, open_storage("/srv/backup", made) as backup:
        created = await create(store, backup)  # while the registry serves
        print(created.snapshot.run, "in", [one.run for one in (await list_snapshots(backup)).snapshots])

        checked = await check(backup, read_data=ReadData.parse("10%"))
        print(len(checked.damage), "damaged")

        async with hold_lock(backup, command="prune") as lock:
            await prune(backup, PruneOptions(keep=Retention(daily=7)), lock=lock)

        async with open_storage("/srv/restored", made) as new, hold_lock(new, command="restore") as lock:
            restored = await restore(backup, new, RestoreOptions(repositories=("team/*",)), lock=lock)
            print(restored.tags, "tags restored")

create          a Snapshot of a store (CreateOptions, CreateResult)
list_snapshots  those of a backup; choose takes one of them by its ID, by `latest` or a time
check           what is lost or damaged (CheckResult, Damage), reading so much of the blobs (ReadData)
restore         into a store, empty or in use (RestoreOptions, RestoreResult); plan_restore only looks (RestorePlan)
prune           forgets by a Retention and collects (PruneOptions, PruneResult); plan_prune only looks (PrunePlan)
hold_lock       the Lock that restore needs of the store, and prune of the backup
ScanOptions     how a store is listed

Within (`options`: of all of them; `format`: what is written; `opening`: what is read, checked by `soundness`):
create          lists the registry until it stands still (`source`, `settling`, `missing`, `links`), packs repositories
                (`packing`: by `plan`, in SQL, as bytes by `writing`), copies blobs (`copying`) and publishes; `intent`
                keeps prune away meanwhile
restore         what was asked for (`asked`, `selecting`), blobs (`restore_blobs`), then links (`restore_links`)
carrying        blobs on their way in or out, also in other processes
check           reads, names the tags that damage touches (`touched`), and mends from another copy (`repair`)
prune           forgets by `retention`, knowing which dates can't be right (`dating`), and collects
compare         what is in a snapshot, and what differs between two
as_store        a snapshot as a read-only Storage
statements      of `source.sql`, which the modules of `create` share
"""

from regstore.backup.check import CheckResult, Damage, check
from regstore.backup.create import CreateResult, create
from regstore.backup.format import Snapshot
from regstore.backup.opening import choose, list_snapshots
from regstore.backup.options import CreateOptions, PruneOptions, RestoreOptions, Retention
from regstore.backup.prune import PrunePlan, PruneResult, plan_prune, prune
from regstore.backup.restore import RestorePlan, RestoreResult, plan_restore, restore
from regstore.inventory.scan import ScanOptions
from regstore.proving.read_data import ReadData
from regstore.state.lock import Lock, hold_lock

__all__ = [
    "CheckResult",
    "CreateOptions",
    "CreateResult",
    "Damage",
    "Lock",
    "PruneOptions",
    "PrunePlan",
    "PruneResult",
    "ReadData",
    "RestoreOptions",
    "RestorePlan",
    "RestoreResult",
    "Retention",
    "ScanOptions",
    "Snapshot",
    "check",
    "choose",
    "create",
    "hold_lock",
    "list_snapshots",
    "plan_prune",
    "plan_restore",
    "prune",
    "restore",
]
