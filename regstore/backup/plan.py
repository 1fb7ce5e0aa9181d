"""What a backup packs of repositories, as relations in the inventory: what is complete is kept, the rest is left out,
by name. No I/O, no clock.

A *root* is a manifest that the repository links, and whose link is sound: a revision link, or a layer link alone, as
v2.1.0 linked manifests (those with signatures, and those that a tag names). A manifest is *complete* when its own blob
can be had and is right, and so can all that it names, by the digest or by what a layer link says of it; its children,
entries of an index and what else the repository links as a revision, are complete themselves. Of a child that the
repository never had nothing is asked (a sparse index), nor of a foreign layer that nobody has. Of a manifest that is
not understood nothing is known: all layer links of its repository go along.

Everything is a join that spills, so that a repository of many millions of links needs no more memory than DuckDB has.
`plan.sql` says what each table holds. `tests/model/packs.py` says the same over sets, a repository at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import count
from typing import Any, Final

from regstore.backup.format import LeftOut
from regstore.digest import Digest
from regstore.errors import RegstoreError
from regstore.inventory.inventory import Columns, Inventory
from regstore.inventory.statements import EDGE_KINDS, Statements

#: Sections of a pack, in their order: rows of a blob, a layer link and so on.
BLOB, LAYER, MANIFEST, SIGNATURE, HISTORY, TAG = range(1, 7)
_SQL: Final = Statements(
    "regstore.backup",
    "plan.sql",
    **EDGE_KINDS,
    #: States of manifests whose bytes are right and whose references can't be told.
    opaque="'invalid', 'too large'",
    of_blob=str(BLOB),
    of_layer=str(LAYER),
    of_manifest=str(MANIFEST),
    of_signature=str(SIGNATURE),
    of_history=str(HISTORY),
    of_tag=str(TAG),
)
#: Names of tags that are looked at together, and rows of packs.
_ROWS: Final = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is said of planned repositories, by name; of those of which nothing is, nothing. left_out: sorted. missing:
    digests without a blob that kept something from being complete. unlinked: those that lack links of what is packed:
    without them a registry does not serve it there, though the blob is present."""

    left_out: Mapping[str, Sequence[LeftOut]]
    missing: Mapping[str, set[Digest]]
    unlinked: set[str]


#: (place, section, tag, one, part, two, text, number, linked): a row of `backup_line`.
Row = tuple[int, int, str, bytes, int, bytes | None, str | None, int | None, bool | None]


class PackPlan:
    """The plan of some repositories. `close` drops its tables; `backup_need` stays."""

    def __init__(
        self, inventory: Inventory, names: Sequence[str], lost: Mapping[Digest, str], tags: Sequence[str]
    ) -> None:
        """names: of the repositories, sorted. lost: blobs that can't be copied, and why. tags: glob patterns; none
        means all tags, and untagged manifests too."""
        self._inventory = inventory
        self._tags = tags
        with inventory.given("given", {"place": ("int32", range(len(names))), "name": ("utf8", names)}):
            self._run("chosen")
        columns: Columns = {
            "digest": ("binary", [digest.raw for digest in lost]),
            "reason": ("utf8", list(lost.values())),
        }
        with inventory.given("given", columns):
            self._run("lost")
        for step in (self._look, self._judge, self._keep):
            step()
        if tags:
            self._pick()
        for name in ("signatures", "need", "lines"):
            self._run(name)

    def _run(self, name: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return _SQL.run(self._inventory, name, parameters).fetchall()

    def _changed(self, name: str, **parameters: Any) -> int:
        """The number of rows that the last statement made."""
        [(rows,)] = self._run(name, **parameters)
        return int(rows)

    def _look(self) -> None:
        """Which manifests there are, and what they name."""
        self._run("linked")
        self._run("looked_at")
        for number in count(1):
            if not self._changed("children_looked_at", round=number):
                break
        self._run("named")

    def _judge(self) -> None:
        """What is wrong with each, children first."""
        highest = 0
        new = self._changed("ranked")
        while new:
            highest += 1
            new = self._changed("ranked_above", rank=highest + 1)
        self._run("ranks")
        if self._changed("problems") or self._inventory.count("backup_problem"):
            for rank in range(1, highest + 1):
                self._run("problems_of_children", rank=rank)

    def _keep(self) -> None:
        if self._changed("kept"):
            while self._changed("kept_below"):
                pass
        self._run("layers")
        self._run("tags")

    def _pick(self) -> None:
        """Only what these tags need, with its referrers to any depth and the `sha256-…` tags that follow it."""
        self._run("nothing_picked")
        after = ""
        while names := [name for (name,) in self._run("some_tag_names", after=after, most=_ROWS)]:
            after = names[-1]
            picked = [name for name in names if self._is_wanted(name)]
            self._inventory.insert("backup_picked_name", {"name": ("utf8", picked)})
        self._run("picked")
        for number in count(1):
            manifests = self._changed("picked_more", round=number)
            if not self._changed("picked_tags_more", round=number) and not manifests:
                break
        self._run("keep_picked")

    def _is_wanted(self, tag: str) -> bool:
        return any(fnmatchcase(tag, pattern) for pattern in self._tags)

    def rows(self) -> Iterator[Row]:
        """The rows of the packs, in their order. RegstoreError where they come otherwise, or not all of them: a pack
        that lacks some would be taken for whole."""
        number = self._inventory.count("backup_line")
        before, read = (-1, -1), 0
        for first in range(0, number, _ROWS):
            rows = self._run("some_lines", first=first, last=first + _ROWS - 1)
            read += len(rows)
            for row in rows:
                if row[:2] < before:
                    raise RegstoreError("the rows of the packs came out of order; nothing of this backup is kept")
                before = row[:2]
                yield row
        if read != number:
            raise RegstoreError(f"{number - read:,} rows of the packs did not come; nothing of this backup is kept")

    def told(self) -> Told:
        left_out: dict[str, list[LeftOut]] = {}
        for one in self._left_out():
            left_out.setdefault(one.repository, []).append(one)
        missing: dict[str, set[Digest]] = {}
        for name, raw in self._run("missing"):
            missing.setdefault(name, set()).add(_digest(raw))
        unlinked = set()
        for name, raw, manifest, by in self._run("not_linked"):
            unlinked.add(name)
            left_out.setdefault(name, []).append(
                LeftOut(
                    repository=name,
                    tag="",
                    what=f"{'revision' if manifest else 'layer'} link {_digest(raw)}",
                    reason="is missing or unreadable: a registry does not serve that part of " + _digest(by).short,
                )
            )
        return Told(
            left_out={name: sorted(some) for name, some in left_out.items()}, missing=missing, unlinked=unlinked
        )

    def _left_out(self) -> Iterator[LeftOut]:
        """But for links. With patterns, only what is said of tags that they match."""
        for name, tag, *why in self._run("left_out_tags"):
            if not self._tags or self._is_wanted(tag):
                yield _without(name, f"tag {tag}", _against_tag(*why), tag)
        if self._tags:
            return
        for name, raw, fault in self._run("left_out_links"):
            yield _without(name, f"revision {_digest(raw)}", f"its link {fault}")
        for name, raw, *problem in self._run("left_out_manifests"):
            yield _without(name, f"untagged manifest {_digest(raw)}", _said(*problem))

    def close(self) -> None:
        self._run("drop")


def make_tables(inventory: Inventory) -> None:
    """What stays when a plan is closed."""
    _SQL.run(inventory, "create_need")


def needing(inventory: Inventory, digests: Sequence[Digest]) -> set[str]:
    """The repositories whose packs need any of these blobs."""
    given = {"digests": [digest.raw for digest in digests]}
    return {name for (name,) in _SQL.run(inventory, "needing", given).fetchall()}


def _digest(raw: Any) -> Digest:
    return Digest.from_raw(bytes(raw))


def _without(name: str, what: str, reason: str, tag: str = "") -> LeftOut:
    return LeftOut(repository=name, tag=tag, what=what, reason=f"was left out: {reason}")


def _against_tag(target: Any, fault: str | None, broken: bool, what: str | None, about: Any, reason: str) -> str:
    if target is None:
        return f"its link {fault}"
    if what is None:
        return f"the repository has no {'readable ' if broken else 'revision '}link of {_digest(target).short}"
    return _said(what, about, reason)


def _said(what: str, about: Any, reason: str) -> str:
    digest = _digest(about)
    match what:
        case "blob lost":
            return f"its blob {digest} {reason}"
        case "blob missing":
            return f"its blob {digest} is missing"
        case "manifest missing":
            return f"its manifest {digest.short} is missing"
        case "manifest unreadable":
            return f"its manifest {digest.short} can't be read: {reason}"
        case _:
            return f"its manifest {digest.short} is damaged: {reason}"
