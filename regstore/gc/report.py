"""What a run of gc did."""

from __future__ import annotations

from dataclasses import dataclass, field

from regstore.gc.heal import Healed
from regstore.gc.trash import Emptied
from regstore.state.not_freed import NotFreed
from regstore.state.registry_state import Restart


@dataclass(frozen=True, kw_only=True)
class GcReport:
    """What a run did. Sizes in bytes, seconds for the time it took.

    litter: directory markers, and files of NAS and desktop systems, that went with what they stood beside.
    vanished: dead blobs that somebody else had deleted when their turn came, and the digests of some of them.
    kept_back: planned, but left alone because it was in use, or had changed, when its turn came.
    failures: keys that the store would not delete, with its words: a line a reason.
    emptied: older runs whose trash went for good; overdue: those that the registry's cache may still answer for.
    versioned: the bucket keeps what is deleted as noncurrent versions, so no space is free until these expire.
    restart: of the registry, where the restart command was run. not_freed: what lies in the trash still, and why.
    """

    run: str
    trashed: bool
    healed: Healed
    tags: int = 0
    revisions: int = 0
    layer_links: int = 0
    uploads: int = 0
    litter: int = 0
    blobs: int = 0
    blob_bytes: int = 0
    upload_bytes: int = 0
    vanished: int = 0
    vanished_digests: tuple[str, ...] = ()
    kept_back: int = 0
    folders: int = 0
    seconds: float = 0.0
    failures: tuple[str, ...] = ()
    emptied: Emptied = field(default_factory=Emptied)
    overdue: tuple[str, ...] = ()
    versioned: bool | None = False
    restart: Restart | None = None
    not_freed: NotFreed = field(default_factory=NotFreed)

    @property
    def nothing_went(self) -> bool:
        return not (
            self.tags
            or self.revisions
            or self.layer_links
            or self.uploads
            or self.litter
            or self.blobs
            or self.emptied.blobs
        )
