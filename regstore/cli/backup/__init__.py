"""`regstore backup`: snapshots of a registry's storage, and the way back."""

from __future__ import annotations

from typing import Final

from regstore.cli.later import Later

BACKUP_COMMANDS: Final = {
    "create": Later(
        "regstore.cli.backup.create:backup_create",
        "Take a snapshot of STORE: tags, links, and the blobs that BACKUP does not have yet.",
    ),
    "list": Later("regstore.cli.backup.list:backup_list", "List the snapshots, oldest first."),
    "show": Later(
        "regstore.cli.backup.show:backup_show",
        "Show a snapshot: its tags, their sizes, and what is new in it.",
    ),
    "diff": Later(
        "regstore.cli.backup.diff:backup_diff",
        "Show the tags that came, went or moved from one snapshot to another.",
    ),
    "restore": Later(
        "regstore.cli.backup.restore:backup_restore",
        "Restore a snapshot into STORE, which may be empty, in use or, with --create, missing.",
    ),
    "check": Later(
        "regstore.cli.backup.check:backup_check",
        "Check that every snapshot is complete: its packs match their names, and its blobs are there with their sizes.",
    ),
    "prune": Later(
        "regstore.cli.backup.prune:backup_prune",
        "Forget old snapshots, and delete the blobs that no other needs.",
    ),
}
