"""`regstore trash`: what runs took away, the way back, and the end of it."""

from __future__ import annotations

from typing import Final

from regstore.cli.trash.empty import trash_empty
from regstore.cli.trash.list import trash_list
from regstore.cli.trash.restore import trash_restore

TRASH_COMMANDS: Final = {
    "list": trash_list,
    "restore": trash_restore,
    "empty": trash_empty,
}
