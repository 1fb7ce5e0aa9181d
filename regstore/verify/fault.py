"""What a verification finds: faults, the tags that they touch, and what is normally absent."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from regstore.digest import Digest


class FaultKind(StrEnum):
    BLOB_MISSING = "blob missing"
    BLOB_DAMAGED = "blob damaged"  # its bytes were read, and are others
    BLOB_UNREADABLE = "blob unreadable"  # the store has it and does not give its bytes: nothing is known of them
    LINK_UNREADABLE = "link unreadable"  # likewise
    ARCHIVED = "archived"  # a blob or a link that nobody can read before it is restored
    SIZE_DIFFERS = "size differs"
    LINK_DAMAGED = "link damaged"
    LINK_MISSING = "link missing"
    MANIFEST_UNREADABLE = "manifest unreadable"  # its bytes are right, but what it needs is not known

    @property
    def is_damage(self) -> bool:
        return self is not FaultKind.MANIFEST_UNREADABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class TouchedTag:
    """pull: the tag itself can't be pulled whole; otherwise something that refers to it is concerned."""

    repository: str
    tag: str
    pull: bool

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong.

    area: `blob`, `manifest`, or the kind of link: `layer`, `revision`, `tag`, `history` (of a tag), `signature` (of
    schema1). repository: of a link. digest: for a missing link of a tag, what it named last.
    repositories: those that need it. repairable: its path says what a damaged link must hold, and the blob is there; or
    it is the empty link of a tag that only ever named one manifest, and that is whole.
    """

    kind: FaultKind
    area: str
    detail: str
    repository: str = ""
    digest: Digest | None = None
    tag: str = ""
    repairable: bool = False
    repositories: tuple[str, ...] = ()
    touched: tuple[TouchedTag, ...] = ()

    @property
    def subject(self) -> str:
        """What is wrong, in a few words: `blob sha256:…`, `the layer link a/b@sha256:…`, `the link of tag a/b:1`."""
        if self.area == "history":
            return f"the history of tag {self.repository}:{self.tag} at {self.digest}"
        if self.tag:
            return f"the link of tag {self.repository}:{self.tag}"
        if self.area in ("blob", "manifest"):
            return f"{self.area} {self.digest}"
        return f"the {self.area} link {self.repository}@{self.digest}"

    @property
    def remedy(self) -> str:
        """What would put it right, for the one who runs regstore."""
        match self.kind:
            case FaultKind.BLOB_MISSING:
                return "--repair-from a store or a backup that has it, or push it again"
            case FaultKind.BLOB_DAMAGED:
                return "--repair-from a store or a backup that has it; a push does not replace it"
            case FaultKind.BLOB_UNREADABLE:
                return "nothing: see why the store does not give it; move it away if it is lost, then --repair-from"
            case FaultKind.LINK_UNREADABLE:
                return "nothing: see why the store does not give it; move it away if it is lost, then push again"
            case FaultKind.ARCHIVED:
                return "restore it, copy it to a class that is read at once, and let no lifecycle rule archive it again"
            case FaultKind.SIZE_DIFFERS if "the manifest is wrong" in self.detail:
                return "push the image again: what its manifest says was wrong from the start"
            case FaultKind.SIZE_DIFFERS:
                return "--read-data tells which of the two is wrong"
            case FaultKind.LINK_DAMAGED if self.repairable:
                return "--repair writes it anew"
            case FaultKind.LINK_DAMAGED if self.area in ("history", "signature"):
                return "push the tag again; pulls do not need this link"
            case FaultKind.LINK_DAMAGED | FaultKind.LINK_MISSING if self.tag:
                return "push the tag again, or --drop-broken-tags"
            case FaultKind.LINK_DAMAGED | FaultKind.LINK_MISSING:
                return "push the image again, or --repair-from a store that has the link, with --restore-links"
            case FaultKind.MANIFEST_UNREADABLE:
                return "nothing: its bytes are what was pushed, but what it needs can't be known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Absences:
    """What is absent and normally so, in numbers.

    foreign: non-distributable layers. sparse: children of indexes. cached: what a pull-through cache did not fetch.
    leftovers: layer links that nothing needs, to blobs that are gone. signatures: links to signatures of schema1.
    """

    foreign: int = 0
    sparse: int = 0
    cached: int = 0
    leftovers: int = 0
    signatures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The plan in numbers, and its faults (the first `plan.FAULTS_NAMED` of them). Sizes in bytes."""

    repositories: int
    tags: int
    tags_touched: int
    tags_broken: int
    revisions: int
    layer_links: int
    blobs: int
    blob_bytes: int
    unknown: int
    absent: Absences
    counts: dict[FaultKind, int]
    faults: tuple[Fault, ...]

    @property
    def damage(self) -> int:
        return sum(number for kind, number in self.counts.items() if kind.is_damage)

    @property
    def unproven(self) -> int:
        return sum(number for kind, number in self.counts.items() if not kind.is_damage)
