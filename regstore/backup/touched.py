"""What damage in a backup touches: the tags, by repository and snapshot."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import dataclass, field

from regstore.backup.format import Pack, Snapshot
from regstore.backup.opening import read_pack
from regstore.digest import Digest
from regstore.errors import IntegrityError
from regstore.storage.base import Storage

#: Tags of another snapshot that are named where a pack's own are not known.
_NAMED = 20


@dataclass(frozen=True, kw_only=True, order=True)
class Touched:
    """A tag of a repository in snapshots (their runs). tag is "" where it is no single tag: then `tags` is how many
    there are, all of them touched, and known says some names as another snapshot has them. repository "": everything
    that is in the snapshots."""

    repository: str
    tag: str
    snapshots: tuple[str, ...]
    tags: int = 0
    known: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.tag:
            return f"{self.repository}:{self.tag}"
        if not self.repository:
            return "all tags"
        if not self.tags:
            return f"{self.repository} (untagged)"
        names = f" (another snapshot has {', '.join(self.known)})" if self.known else ""
        return (
            f"all {self.tags:,} tags of {self.repository}{names}"
            if self.tags > 1
            else (f"the one tag of {self.repository}{names}")
        )


@dataclass(frozen=True, slots=True)
class Users:
    """Which snapshots use a pack (its 64 hex characters), and as which repository's."""

    _of: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    @classmethod
    def of(cls, snapshots: Iterable[Snapshot]) -> Users:
        users: dict[str, list[tuple[str, str]]] = {}
        for one in snapshots:
            for name, known in one.repositories.items():
                users.setdefault(known.pack, []).append((one.run, name))
        return cls(users)

    def __len__(self) -> int:
        return len(self._of)

    @property
    def packs(self) -> Set[str]:
        return self._of.keys()

    def names(self, pack: str) -> set[str]:
        return {name for _, name in self._of.get(pack, ())}

    def runs(self, pack: str) -> list[str]:
        return [run for run, _ in self._of.get(pack, ())]


def tags_by_blob(pack: Pack, blobs: Collection[Digest]) -> dict[Digest, list[str]]:
    """Of each of these blobs that the pack has, the tags that reach it. One pass over its manifests."""
    reached: dict[Digest, set[Digest]] = {}
    for digest, manifest in pack.manifests.items():  # children first
        hit = {blob for part in (digest, *manifest.needs) if (blob := pack.blob_of(part)) in blobs}
        for need in manifest.needs:
            hit |= reached.get(need, set())
        if hit:
            reached[digest] = hit
    found: dict[Digest, list[str]] = {digest: [] for digest in pack.blobs if digest in blobs}
    for tag, packed in sorted(pack.tags.items()):
        for blob in reached.get(packed.digest, ()):
            found[blob].append(tag)
    return found


async def tags_of_a_pack(
    storage: Storage, snapshots: Sequence[Snapshot], pack: str, unreadable: Collection[str]
) -> tuple[Touched, ...]:
    """All tags of a pack that can't be read: their number as the snapshots have it, and their names as the newest
    other pack of the repository has them."""
    runs: dict[str, list[str]] = {}
    tags: dict[str, int] = {}
    for one in snapshots:
        for name, known in one.repositories.items():
            if known.pack == pack:
                runs.setdefault(name, []).append(one.run)
                tags[name] = known.tags
    touched = []
    for name in sorted(runs):
        names = await _names(storage, snapshots, name, {pack, *unreadable}) if tags[name] else ()
        touched.append(Touched(repository=name, tag="", snapshots=tuple(runs[name]), tags=tags[name], known=names))
    return tuple(touched)


async def _names(
    storage: Storage, snapshots: Sequence[Snapshot], repository: str, unreadable: Collection[str]
) -> tuple[str, ...]:
    for one in reversed(snapshots):
        known = one.repositories.get(repository)
        if known is not None and known.pack not in unreadable:
            try:
                return tuple(sorted((await read_pack(storage, known.pack)).tags)[:_NAMED])
            except IntegrityError:
                continue
    return ()
