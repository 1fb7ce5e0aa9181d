"""What goes now: the keys of some repositories, in the order in which they go. A relation, for one repository may lose
any number of links.

    gc_now(position, step, repository, name, label, digest, key, size, mtime, body, loose)

repository, name: the id and the name. label: of a tag's keys the tag, of an upload's its id; digest: what a link is
named by, and what a tag names; null elsewhere. loose: a tag that names a manifest which the repository does not link.

So a key is spelled once, by the plan (`gc.plan`), and never read again to know what it is.

**The order.** By step, and within one so that what is cut short does not look like a loss that heal mends: an index
goes before the manifests that it names, and a layer link that names another digest goes before that digest's own link.
Otherwise the next run would give back what this one had taken, as young as a push.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Final

from regstore.gc.plan import Step
from regstore.inventory.inventory import Inventory, digest_text
from regstore.inventory.statements import Statements
from regstore.manifest import EdgeKind
from regstore.state.journal import UNLINK, Entry
from regstore.storage.base import MultipartUpload
from regstore.tagging import UNDER_WAY

_SQL: Final = Statements(
    "regstore.gc.apply",
    "going.sql",
    tag=str(int(Step.TAG)),
    revision=str(int(Step.REVISION)),
    layer=str(int(Step.LAYER)),
    subject=str(int(EdgeKind.SUBJECT)),
)
#: Rows in memory at a time.
SLICE: Final = 5_000
#: What is unlinked between two looks at the repositories concerned.
_GROUP_KEYS: Final = 5_000
_GROUP_REPOSITORIES: Final = 100


@dataclass(frozen=True, slots=True)
class Row:
    """A key that goes, as it was listed, and where it stands. Its body where that is known. label "" and digest empty
    where there is none."""

    position: int
    step: Step
    repository: str
    label: str
    digest: bytes
    key: str
    size: int
    mtime: int
    body: bytes | None
    loose: bool

    @property
    def upload(self) -> tuple[str, str]:
        """Of a part of an upload: its repository and id."""
        return self.repository, self.label

    @property
    def link(self) -> tuple[str, str]:
        """Of a revision's or a layer's link: its repository and digest."""
        return self.repository, digest_text(self.digest)

    @property
    def entry(self) -> Entry:
        """As the journal has it before it goes."""
        return Entry(UNLINK, self.key, self.size, self.mtime, self.body, self.loose)


@dataclass(frozen=True, slots=True)
class DeadUpload:
    """A multipart upload to abort, of the registry's upload `uuid`."""

    repository: str
    uuid: str
    upload: MultipartUpload

    @property
    def place(self) -> tuple[str, str]:
        return self.repository, self.uuid


@dataclass(frozen=True, slots=True)
class Group:
    """Some repositories that lose something: ids and names, in one order."""

    ids: Sequence[int]
    names: Sequence[str]


def groups(inventory: Inventory) -> Iterator[Group]:
    """All repositories that lose something, in handfuls."""
    rows: list[tuple[int, str]] = []
    keys = 0
    for repository, name, count in _SQL.run(inventory, "groups").fetchall():
        if rows and (keys + count > _GROUP_KEYS or len(rows) >= _GROUP_REPOSITORIES):
            yield _group(rows)
            rows, keys = [], 0
        rows.append((repository, name))
        keys += count
    if rows:
        yield _group(rows)


def _group(rows: Sequence[tuple[int, str]]) -> Group:
    return Group([repository for repository, _ in rows], [name for _, name in rows])


def dead_uploads(inventory: Inventory, repositories: Sequence[int] | None = None) -> list[DeadUpload]:
    """The multipart uploads that the plan of an inventory aborts; of these repositories, by id, or of all."""
    ids = None if repositories is None else list(repositories)
    rows = _SQL.run(inventory, "dead_uploads", {"ids": ids}).fetchall()
    return [DeadUpload(name, uuid, MultipartUpload(*upload)) for name, uuid, *upload in rows]


def half_pushed(look: Inventory, *, now: int) -> set[tuple[str, str]]:
    """(repository, tag) of those that are being pushed, by a later look."""
    return set(_SQL.run(look, "half_pushed", {"since": now - UNDER_WAY}).fetchall())


class Going:
    """What of a group its plan removes: at first all of it, by `choose` or `take`, and never more again."""

    def __init__(self, inventory: Inventory, group: Group) -> None:
        self._inventory = inventory
        self._ids = list(group.ids)
        self._names = list(group.names)

    def choose(self) -> None:
        self._rank()
        _SQL.run(self._inventory, "choose", {"ids": self._ids})

    def take(self, rows: Sequence[Row]) -> None:
        """What was chosen elsewhere, in its order; instead of `choose`."""
        _SQL.run(self._inventory, "empty")
        ids = dict(zip((name for name in self._names), self._ids, strict=True))
        self._inventory.insert_rows(
            "gc_now",
            {
                "position": "int64",
                "step": "int8",
                "repository": "int32",
                "name": "utf8",
                "label": "utf8",
                "digest": "binary",
                "key": "utf8",
                "size": "int64",
                "mtime": "int64",
                "body": "binary",
                "loose": "bool",
            },
            [
                (
                    number,
                    int(row.step),
                    ids[row.repository],
                    row.repository,
                    row.label,
                    row.digest,
                    row.key,
                    row.size,
                    row.mtime,
                    row.body,
                    row.loose,
                )
                for number, row in enumerate(rows, 1)
            ],
        )

    def _rank(self) -> None:
        """gc_rank: what is not in it may go at any time within its step."""
        order: TopologicalSorter[tuple[int, bytes]] = TopologicalSorter()
        for repository, source, target in _SQL.run(
            self._inventory, "listed_revisions", {"ids": self._ids}
        ).fetchall():
            order.add((repository, bytes(target)), (repository, bytes(source)))
        ranked = list(order.static_order())
        _SQL.run(self._inventory, "layer_ranks", {"ids": self._ids})
        self._inventory.insert(
            "gc_rank",
            {
                "repository": ("int32", [repository for repository, _ in ranked]),
                "step": ("int8", [int(Step.REVISION)] * len(ranked)),
                "digest": ("binary", [digest for _, digest in ranked]),
                "rank": ("int32", list(range(1, len(ranked) + 1))),
            },
        )

    def keep_what_changed(
        self, look: Inventory, busy: Collection[str], tags: Collection[tuple[str, str]]
    ) -> list[str]:
        """Let go only what the plan of this later look removes too, as it was, and nothing of the busy repositories,
        nor of these tags (repository, tag). The keys that stay."""
        parameters = {"busy": sorted(busy), "tags": [f"{name}:{tag}" for name, tag in sorted(tags)]}
        return [key for (key,) in _SQL.run(look, "keep_what_changed", parameters).fetchall()]

    def drop(self, rows: Collection[Row]) -> None:
        """These stay after all."""
        if rows:
            positions = [row.position for row in rows]
            self._inventory.execute(
                "delete from gc_now where position in (select unnest(?::bigint[]))", [positions]
            )

    def __len__(self) -> int:
        return self._inventory.count("gc_now")

    def steps(self) -> list[Step]:
        """Those in which anything goes, in their order."""
        return [Step(step) for (step,) in self._inventory.all("select distinct step from gc_now order by step")]

    def uploads(self) -> dict[tuple[str, str], int]:
        """(repository, id) of the uploads that lose parts, and how many."""
        rows = self._inventory.all(
            f"select name, label, count(*) from gc_now where step = {Step.UPLOAD} group by all"
        )
        return {(name, uuid): parts for name, uuid, parts in rows}

    def slices(self, *steps: Step) -> Iterator[list[Row]]:
        """Some rows at a time, in their order; of these steps, or of all."""
        wanted = {"steps": [int(step) for step in steps or Step], "most": SLICE}
        position, full = 0, True
        while full and (rows := _SQL.run(self._inventory, "slice", wanted | {"position": position}).fetchall()):
            position, full = rows[-1][0], len(rows) == SLICE
            yield [Row(position, Step(step), *columns) for position, step, *columns in rows]

    def note_removed(self, look: Inventory, run: str) -> None:
        """Into `gc.past`'s relation of a later look, all that it can give back where that is needed."""
        _SQL.run(look, "note_removed", {"run": run})
