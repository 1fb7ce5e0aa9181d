"""What is wrong with a registry's storage, as relations in the inventory. No I/O, no clock.

What is held against what, for each repository:

- *followed* manifests: every linked revision, every tag's target, and children that are linked, or were. A child of
  an index that nothing of the repository links is normal (a sparse index), unless all that the child names is linked
  there: then its own link was lost;
- a followed manifest needs its config, layers and other entries: their blobs, and links to them, for a registry
  serves a blob only through a link of the repository. Foreign layers are needed only where they are linked;
- every link's body is the digest of its path; a layer link by sha512 names the digest under which the bytes lie;
- a blob has the size that descriptors say, and the bytes that its digest says, as far as anybody looked: the
  scan at manifests, `read` at others (table `verify_rotten(digest, detail)`, and `verify_proven(digest)` for those
  that were right);
- a tag's folder has its current/link. Its history, and the signatures of schema1, have sound links
  (`verify_odd_link(area, repository, tag, revision, digest, size, mtime, body)` are those that were read and are not).

A blob or link that the store has and does not give (table `verify_unread(digest, detail)`; `unread` of a link) is
named, for no registry can serve it, and it is damage of that key. But of what it holds nothing is known: nothing is
repaired, rewritten or dropped on such evidence. Of what is archived the listing's word is taken, unless somebody could
read it all the same (`verify_at_hand(key)`: a copy that was restored for a while).

A layer link that no manifest needs and whose blob is gone is a leftover, no damage: garbage-collect of Distribution
2.x leaves one for each layer it removes. In a pull-through cache nothing that is absent is damage.

Each rule is a section of `faults.sql`; `needs.sql` says what a repository needs, `touched.sql` whom a fault touches.

The plan's tables: verify_fault(id, kind, area, repository, digest, tag, size, mtime, body, repairable, detail);
verify_at(fault, repository, digest): where a fault strikes; verify_touched(fault, repository, tag, pull): the tags it
touches, `pull` when the tag can't be pulled whole, not only a referrer of it.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import count
from typing import Final

from regstore.digest import Digest
from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import EDGE_KINDS, Statements
from regstore.verify.fault import Absences, Fault, FaultKind, Findings, TouchedTag

_NEEDS: Final = Statements("regstore.verify", "needs.sql", **EDGE_KINDS)
_FAULTS: Final = Statements("regstore.verify", "faults.sql", **EDGE_KINDS)
_TOUCHED: Final = Statements("regstore.verify", "touched.sql", **EDGE_KINDS)
_FINDINGS: Final = Statements("regstore.verify", "findings.sql", **EDGE_KINDS)

#: The rules, in the order in which their faults are named.
_OF_BLOBS: Final = (
    "blob_missing",
    "blob_damaged",
    "blob_unreadable",
    "blob_archived",
    "manifest_unreadable",
    "size_differs",
)
_OF_LINKS: Final = (
    "link_unreadable",
    "odd_link_unreadable",
    "link_archived",
    "link_damaged",
    "tag_damaged",
    "odd_link_damaged",
    "tag_missing",
    "link_missing",
)
#: In a pull-through cache nothing that is absent is damage.
_OF_ABSENCE: Final = frozenset({"blob_missing", "tag_missing", "link_missing"})
#: Faults that a summary names; all are counted.
FAULTS_NAMED: Final = 10_000
#: What tells a fault from others, in any look at the store.
IDENTITY: Final = "kind, area, repository, digest, tag"
#: SQL: tags whose history holds one manifest, by a sound link: (repository, name, digest, mtime).
ONLY_TARGET: Final = f"({_TOUCHED.text('only_target')})"


def make_known(inventory: Inventory) -> None:
    """The tables of what is known besides the inventory, empty where nothing is yet."""
    _FAULTS.run(inventory, "known")


def plan_verify(inventory: Inventory, *, pull_through: bool = False, among: str = "") -> Findings:
    """Make the plan's tables in the inventory, and sum them up. After `make_known`. among: a table with the columns of
    IDENTITY; faults that it does not have are passed over."""
    _NEEDS.run(inventory, "links")
    while _NEEDS.run(inventory, "follow_children").fetchall():
        pass
    _NEEDS.run(inventory, "needs")
    _find(inventory, pull_through)
    if among:
        _FAULTS.run(inventory, "keep", None, among=among)
    _FAULTS.run(inventory, "at")
    _touch(inventory)
    counts = {FaultKind(kind): number for kind, number in _FINDINGS.run(inventory, "counts").fetchall()}
    if FaultKind.LINK_DAMAGED in counts and not pull_through:
        _TOUCHED.run(inventory, "lost_targets", None, only_target=_TOUCHED.text("only_target"))
    return _findings(inventory, counts, pull_through)


def _touch(inventory: Inventory) -> None:
    """The tags that faults touch, in rounds."""
    [(new,)] = _TOUCHED.run(inventory, "reached").fetchall()
    for above in count(1):
        if not new:
            break
        [(new,)] = _TOUCHED.run(inventory, "reached_above", {"round": above}).fetchall()
    _TOUCHED.run(inventory, "touched")


def _find(inventory: Inventory, pull_through: bool) -> None:
    _FAULTS.run(inventory, "nothing_found")
    for step, name in enumerate((*_OF_BLOBS, *_OF_LINKS), start=1):
        if pull_through and name in _OF_ABSENCE:
            continue
        rule = _FAULTS.text(
            name, step=str(step), pull_through=str(pull_through).lower(), archived=_FAULTS.text("archived")
        )
        _FAULTS.run(inventory, "found", None, rule=rule)
    _FAULTS.run(inventory, "faults")


def _findings(inventory: Inventory, counts: dict[FaultKind, int], pull_through: bool) -> Findings:
    [(touched, broken)] = _FINDINGS.run(inventory, "touched_tags").fetchall()
    absent = _FINDINGS.run(inventory, "absences", None, pull_through=str(pull_through).lower()).fetchall()
    return Findings(
        **dict(_FINDINGS.run(inventory, "numbers").fetchall()),
        tags_touched=touched,
        tags_broken=broken,
        absent=Absences(**dict(absent)),
        counts=counts,
        faults=_faults(inventory) if counts else (),
    )


def _faults(inventory: Inventory) -> tuple[Fault, ...]:
    rows = _FINDINGS.run(inventory, "faults", None, most=str(FAULTS_NAMED)).fetchall()
    last = {"last": rows[-1][0] if rows else 0}
    touched = defaultdict[int, list[TouchedTag]](list)
    for fault, repository, tag, pull in _FINDINGS.run(inventory, "tags_of_faults", last).fetchall():
        touched[fault].append(TouchedTag(repository=repository, tag=tag, pull=pull))
    needing = defaultdict[int, list[str]](list)
    for fault, name in _FINDINGS.run(inventory, "repositories_of_faults", last).fetchall():
        needing[fault].append(name)
    return tuple(
        Fault(
            kind=FaultKind(kind),
            area=area,
            detail=detail,
            repository=repository or "",
            digest=None if digest is None else Digest.from_raw(bytes(digest)),
            tag=tag or "",
            repairable=repairable,
            repositories=tuple(needing.get(number, () if repository is None else (repository,))),
            touched=tuple(touched.get(number, ())),
        )
        for number, kind, area, detail, repository, digest, tag, repairable in rows
    )
