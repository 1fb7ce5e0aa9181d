"""What came back from the trash by itself, as gc, heal and `trash empty` say it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regstore.cli.output import counted, emit, emit_error

if TYPE_CHECKING:
    from regstore.gc.heal import Healed


def print_healed(healed: Healed) -> None:
    if healed.blobs or healed.links:
        emit(f"given back: {counted(len(healed.blobs), 'blob')}, {counted(len(healed.links), 'link')}")
    print_damaged(healed)


def print_damaged(healed: Healed) -> None:
    """Copies that were wanted and not given back."""
    for key in healed.damaged:
        emit_error(f"{key} is wanted, and has other bytes than its digest says: not given back; push it again")
