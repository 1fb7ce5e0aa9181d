"""How a run of gc goes, beside what its plan keeps (`gc.plan.GcOptions`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from regstore.errors import InputError
from regstore.gc.plan import GcOptions
from regstore.gc.policy import Pattern
from regstore.inventory.scan import ScanOptions


@dataclass(frozen=True, kw_only=True)
class GcRunOptions:
    """How gc runs. settle in seconds; max_delete is a share, 0 to 1, of the blobs, and of the tags by a policy.

    offline: the registry is stopped or read-only, so no second look is needed.
    trash: keep removed blobs in the trash; False only with offline.
    allow_empty: go on where the last run left blobs, or links, and this one sees none.
    allow_gone: repositories that may have lost all their tags since the last run, with no run of ours having taken
    them; max_lost: the share, 0 to 1, of the links that may have gone so.
    trash_older_than: empty what runs that ended so long ago (microseconds) left in the trash, where the registry's
    cache and `TrashedRun.may_go_at` allow it; None keeps it.
    restart_command: restarts the registry once this run is over (`gc.restart`), where its cache is in its memory and
    anything in the trash waits for that.
    untagged_repositories: yes to the end of repositories that have revisions and no tag at all.
    copied_times: choose the newest also among tags that were all set at one time (`gc.one_time`).
    unmatched: go on though a pattern that was to keep tags matches nothing (`gc.unmatched`).
    unlinked_blobs: yes to the end of blobs that came steadily after the newest link (`inventory.unlinked`).
    database, tags_in: what the registry's configuration says (`inventory.whose.database_told`, and its `tags_in`).
    tags_complete: all the same, every tag that matters is in the store.
    """

    plan: GcOptions = field(default_factory=GcOptions)
    scan: ScanOptions = field(default_factory=ScanOptions.default)
    offline: bool = False
    trash: bool = True
    settle: float = 60.0
    max_delete: float = 0.5
    allow_empty: bool = False
    allow_gone: tuple[Pattern, ...] = ()
    max_lost: float = 0.5
    trash_older_than: int | None = None
    restart_command: str | None = None
    untagged_repositories: bool = False
    copied_times: bool = False
    unmatched: bool = False
    unlinked_blobs: bool = False
    database: str = ""
    tags_in: str = ""
    tags_complete: bool = False

    def __post_init__(self) -> None:
        if not self.trash and not self.offline:
            raise InputError("without trash (--no-trash) there is no way back: that is allowed only with --offline")
        if not 0 <= self.max_delete <= 1:
            raise InputError("the share of blobs that may go (--max-delete) is from 0% to 100%")
        if not 0 <= self.max_lost <= 1:
            raise InputError("the share of links that may have gone (--max-lost) is from 0% to 100%")
