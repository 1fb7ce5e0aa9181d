"""`regstore backup`: snapshots of a registry's storage, and the way back."""

from __future__ import annotations

from typing import Final

from regstore.cli.backup.check import backup_check
from regstore.cli.backup.create import backup_create
from regstore.cli.backup.diff import backup_diff
from regstore.cli.backup.list import backup_list
from regstore.cli.backup.prune import backup_prune
from regstore.cli.backup.restore import backup_restore
from regstore.cli.backup.show import backup_show

BACKUP_COMMANDS: Final = {
    "create": backup_create,
    "list": backup_list,
    "show": backup_show,
    "diff": backup_diff,
    "restore": backup_restore,
    "check": backup_check,
    "prune": backup_prune,
}
