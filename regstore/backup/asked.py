"""The part of a snapshot that is to be restored, read from the backup."""

from __future__ import annotations

from fnmatch import fnmatchcase

from regstore.backup import format as form
from regstore.backup.format import Pack, Snapshot
from regstore.backup.opening import read_pack
from regstore.backup.options import RestoreOptions, refuse_unmatched
from regstore.backup.selecting import select
from regstore.digest import Digest
from regstore.errors import IntegrityError, StorageError
from regstore.storage.base import Storage


class Asked:
    """names: of the repositories, sorted. damaged: what the backup could not give, in words."""

    def __init__(self, backup: Storage, snapshot: Snapshot, key: str, options: RestoreOptions) -> None:
        """key: of the snapshot, in the backup."""
        self.backup = backup
        self.snapshot = snapshot
        self._key = key
        self._repositories = options.repositories
        self._tags = options.tags
        self.names = [name for name in sorted(snapshot.repositories) if self._is_wanted(name)]
        self.damaged: list[str] = []
        self._found_tags: set[str] = set()
        self._unread_packs = False

    def _is_wanted(self, name: str) -> bool:
        return not self._repositories or any(fnmatchcase(name, pattern) for pattern in self._repositories)

    def absent(self) -> list[str]:
        """What was asked for, and the snapshot had left out."""
        return [
            str(one)
            for one in self.snapshot.left_out
            if self._is_wanted(one.repository)
            and (not self._tags or (one.tag and any(fnmatchcase(one.tag, pattern) for pattern in self._tags)))
        ]

    async def pack(self, name: str) -> Pack | None:
        """The part of the pack that is asked for; None, and noted, where it is damaged."""
        encoded = self.snapshot.repositories[name].pack
        try:
            pack = await read_pack(self.backup, encoded)
            if pack.name != name:
                raise IntegrityError(f"{form.pack_key(encoded)} is of {pack.name}, not of {name}")
        except IntegrityError as error:
            await self._refuse_forgotten()
            self._unread_packs = True
            if str(error) not in self.damaged:
                self.damaged.append(str(error))
            return None
        self._found_tags.update(pack.tags)
        return select(pack, self._tags)

    def refuse_unknown_tags(self) -> None:
        """InputError for a pattern of tags that matches none, once all packs were read."""
        if not self._unread_packs:  # they may have it
            known = self._found_tags | {one.tag for one in self.snapshot.left_out}
            refuse_unmatched("tag", self._tags, known, f"snapshot {self.snapshot.run}")

    async def note_blob(self, digest: Digest, error: StorageError, *, gone: bool) -> None:
        """It can't be restored. gone: the backup has it no more."""
        if gone:
            await self._refuse_forgotten()
            self.damaged.append(f"blob {digest} is lost from {self.backup.url}")
        else:
            self.damaged.append(f"blob {digest}: {error}")

    async def _refuse_forgotten(self) -> None:
        """Something is not there: raise where that is because prune has forgotten the snapshot meanwhile."""
        async for page in self.backup.list(self._key):
            if self._key in page.keys:
                return
        raise StorageError(
            f"snapshot {self.snapshot.run} of {self.backup.url} was forgotten meanwhile, by a prune: what is "
            "restored so far is not all of it; restore another one"
        )


def without_lost(pack: Pack, lost: set[Digest]) -> tuple[Pack, list[str]]:
    """The pack without what needs a blob that could not be restored, and what that is. Pure."""
    if not lost:
        return pack, []
    bad: set[Digest] = set()
    for digest, known in pack.manifests.items():
        parts = {digest, *known.needs}
        if parts & bad or {pack.blob_of(part) for part in parts} & lost:
            bad.add(digest)
    named = {packed.digest for packed in pack.tags.values()}
    left_out = [f"{pack.name}: tag {tag}" for tag, packed in sorted(pack.tags.items()) if packed.digest in bad]
    left_out += (
        f"{pack.name}: untagged manifest {digest}"
        for digest in sorted(bad - named)
        if pack.manifests[digest].linked
    )
    tags = {tag: packed for tag, packed in pack.tags.items() if packed.digest not in bad}
    whole = Pack(
        name=pack.name,
        blobs={digest: size for digest, size in pack.blobs.items() if digest not in lost},
        layers={digest: target for digest, target in pack.layers.items() if target not in lost},
        manifests={digest: known for digest, known in pack.manifests.items() if digest not in bad},
        signatures=frozenset(pair for pair in pack.signatures if pair[0] not in bad and pair[1] not in lost),
        history=frozenset((tag, digest) for tag, digest in pack.history if tag in tags and digest not in bad),
        tags=tags,
    )
    return whole, left_out
