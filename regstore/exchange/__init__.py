"""Images out of a store and into one, as OCI image layouts: for air gaps, and for tools that read layouts.

    from regstore.exchange import (
        ExportOptions, ImportOptions, Reference, export, hold_lock, import_layout, open_source, open_target,
        plan_export, plan_import
    )
    from regstore.storage import OpenOptions, open_storage

    what = ExportOptions(what=(Reference.parse("team/app"), Reference.parse("team/worker:stable")))
    async with open_storage("/srv/registry") as store, open_target("/srv/gap.tar") as layout:
        exported = await export(store, await plan_export(store, what), layout)
        print([entry.name for entry in exported.entries], exported.left_out)

    made, into = OpenOptions(create=True), ImportOptions()
    async with open_source("/srv/gap.tar") as layout, open_storage("/srv/other", made) as store:
        plan = await plan_import(layout, store, into)
        async with hold_lock(store, command="import") as lock:
            imported = await import_layout(layout, store, plan, into, lock=lock)
        print(imported.tags, "tags,", imported.conflicts)

plan_export    what is to go: each Reference of ExportOptions with all that it needs, and its referrers (ExportPlan)
export         writes it to a folder or archive (ExportResult), each image an Entry of its index
plan_import    what of a layout would be written (ImportOptions, ImportPlan, Conflict)
import_layout  writes it (ImportResult), while the registry serves, under the Lock of hold_lock
open_target    a folder, or a tar file by its name's end; open_source: one of either

Within:
image_layout   the files of a layout, and the names in its index
gathering      an export's plan
exporting      its application: blobs, and index.json last
places         a folder, or a tar file: written (`tar_writing`) and read (`tar_reading`) with no copy of it elsewhere
choosing       what of a layout goes to which repository
packing        an import's plan: what is to be imported, read and verified, as packs of a backup
importing      its application: blobs, links, tags, by the hand that restores a backup
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from regstore.lazy import lazily

if TYPE_CHECKING:
    from regstore.backup.restore_links import Conflict
    from regstore.exchange.exporting import ExportResult, export
    from regstore.exchange.gathering import ExportOptions, ExportPlan, plan_export
    from regstore.exchange.image_layout import Entry
    from regstore.exchange.importing import ImportOptions, ImportPlan, ImportResult, import_layout, plan_import
    from regstore.exchange.places import open_source, open_target
    from regstore.reference import Reference
    from regstore.state.lock import Lock, hold_lock
else:
    __getattr__, __dir__ = lazily(__name__)

__all__ = [
    "Conflict",
    "Entry",
    "ExportOptions",
    "ExportPlan",
    "ExportResult",
    "ImportOptions",
    "ImportPlan",
    "ImportResult",
    "Lock",
    "Reference",
    "export",
    "hold_lock",
    "import_layout",
    "open_source",
    "open_target",
    "plan_export",
    "plan_import",
]
