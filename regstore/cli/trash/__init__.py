"""`regstore trash`: what runs took away, the way back, and the end of it."""

from __future__ import annotations

from typing import Final

from regstore.cli.later import Later

TRASH_COMMANDS: Final = {
    "list": Later(
        "regstore.cli.trash.list:trash_list",
        "List the runs that left anything in the trash or can be undone, oldest first.",
    ),
    "restore": Later(
        "regstore.cli.trash.restore:trash_restore",
        "Undo a run: put back the blobs, links and tags that it took.",
    ),
    "empty": Later(
        "regstore.cli.trash.empty:trash_empty",
        "Delete for good what runs took away, and what undoes them.",
    ),
}
