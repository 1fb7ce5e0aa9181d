"""A migration in numbers: what a plan would do, and what a run did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

#: Dollars of 1,000 requests: S3 Standard in us-east-1, as listed in 2025. No transfer, storage or KMS in it.
PRICES_AS_OF: Final = "S3 Standard, us-east-1, 2025"
_WRITE_PRICE: Final = 0.005 / 1000
_READ_PRICE: Final = 0.0004 / 1000


@dataclass(frozen=True, kw_only=True)
class Count:
    """Of one kind: objects in the scope, and of these, what the target lacks or has differently. Sizes in bytes."""

    total: int
    to_copy: int
    bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class RepositoryShare:
    """What one repository needs. blob_bytes: of missing blobs that it reaches (shared ones count in each)."""

    name: str
    target: str
    blobs: int
    blob_bytes: int
    layer_links: int
    revisions: int
    tags: int


@dataclass(frozen=True, kw_only=True, order=True)
class Problem:
    """Something that was left out, or copied as broken as it is. repository is "" for blobs."""

    repository: str
    subject: str
    reason: str

    def __str__(self) -> str:
        where = f"{self.repository}: " if self.repository else ""
        return f"{where}{self.subject} {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """A tag that somebody else moved at the target; digests as text, "" where the link names none."""

    repository: str
    tag: str
    source: str
    target: str


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Requests to S3 of a run that does the plan, none where neither side is S3, and what AWS asks for them
    (`PRICES_AS_OF`)."""

    writes: int
    reads: int
    lists: int

    @property
    def dollars(self) -> float:
        return (self.writes + self.lists) * _WRITE_PRICE + self.reads * _READ_PRICE


@dataclass(frozen=True, kw_only=True)
class MigrateSummary:
    """A plan. damaged: what the source has broken, which is left out. incomplete: what is copied although a part of
    it is missing at the source too. unknown: keys at the source that are no registry's. to_delete: tags that go from
    the target (`to_delete_tags`: their names), of the `deletable` ones, which our passes set.
    notes: sentences on what the source or the record is like, for whoever asked.
    """

    source: str
    target: str
    blobs: Count
    layer_links: Count
    revisions: Count
    signatures: Count
    tag_index: Count
    tags: Count
    to_delete: int
    to_delete_tags: tuple[str, ...]
    deletable: int
    conflicts: tuple[Conflict, ...]
    damaged: tuple[Problem, ...]
    incomplete: tuple[Problem, ...]
    protected: tuple[Problem, ...]
    shares: tuple[RepositoryShare, ...]
    unknown: int
    uploads: int
    server_side: bool
    estimate: Estimate
    notes: tuple[str, ...]

    @property
    def nothing_to_do(self) -> bool:
        kinds = (self.blobs, self.layer_links, self.revisions, self.signatures, self.tag_index, self.tags)
        return not self.to_delete and not any(kind.to_copy for kind in kinds)


@dataclass(kw_only=True)
class MigrateResult:
    """What a pass did; of several passes, the sum. failed: what could not be copied. skipped: what was left out
    because of that. size_only: blobs that the server copied without keeping a checksum of the copy, so that only
    their size was compared. gone: what the source lost while the pass ran. unknown, uploads: what is there too, and
    was never meant to be copied. Times in seconds."""

    source: str
    target: str
    passes: int = 0
    blobs: int = 0
    blob_bytes: int = 0
    layer_links: int = 0
    revisions: int = 0
    signatures: int = 0
    tag_index: int = 0
    tags: int = 0
    verified: int = 0
    repaired: int = 0
    size_only: int = 0
    deleted: int = 0
    deleted_tags: list[str] = field(default_factory=list)
    gone: int = 0
    retries: int = 0
    seconds: float = 0.0
    requests: dict[str, int] = field(default_factory=dict)
    conflicts: tuple[Conflict, ...] = ()
    damaged: tuple[Problem, ...] = ()
    incomplete: tuple[Problem, ...] = ()
    protected: tuple[Problem, ...] = ()
    failed: list[Problem] = field(default_factory=list)
    skipped: list[Problem] = field(default_factory=list)
    unknown: int = 0
    uploads: int = 0
    notes: tuple[str, ...] = ()

    @property
    def objects(self) -> int:
        """Objects written."""
        return self.blobs + self.layer_links + self.revisions + self.signatures + self.tag_index + self.tags

    @property
    def partial(self) -> bool:
        """Whether something of the scope was left out, or is as incomplete as at the source."""
        return bool(self.failed or self.skipped or self.conflicts or self.damaged or self.incomplete)
