"""A registry's links as a backup has them: in packs, by repository."""

from __future__ import annotations

from regstore import layout
from regstore.backup.format import Pack, Snapshot
from regstore.backup.opening import list_snapshots, place_text, read_pack
from regstore.digest import Digest
from regstore.errors import InputError, IntegrityError
from regstore.layout import LayerLinkKey, RevisionLinkKey, TagCurrentKey
from regstore.storage.base import Storage


class BackedUpLinks:
    """Links, by their keys in a registry's storage. A repository is as it is in the newest snapshot that left nothing
    of it out, or where there is none, in the newest that has it at all; packs that can't be read are passed over.

    place: of the store that lacks them. A link is a right to read, and a repository of another store may have the same
    name: where the backup has snapshots of several stores, only those of this place give any."""

    def __init__(self, backup: Storage, *, place: str = "") -> None:
        self._backup = backup
        self._place = place
        self._snapshots: tuple[Snapshot, ...] | None = None
        #: The repository that was asked for last: they come in order.
        self._pack: Pack | None = None
        self._name = ""

    async def load(self) -> tuple[Snapshot, ...]:
        """The snapshots that may be asked. InputError where they are of several stores, and none is of this place."""
        if self._snapshots is None:
            listed = await list_snapshots(self._backup)
            stores = {place_text(one): one.place for one in listed.snapshots}
            if len(stores) > 1 and self._place not in stores.values():
                raise InputError(
                    f"{self._backup.url} has snapshots of {'; '.join(sorted(stores))}, and links can't be taken from "
                    f"another store's ({self._place or 'this one'}): restore one by its ID, or leave out "
                    "--restore-links"
                )
            # Those whose date can't be right count as the oldest.
            self._snapshots = tuple(
                sorted(
                    (one for one in listed.snapshots if len(stores) < 2 or one.place == self._place),
                    key=lambda one: (one.run not in listed.doubtful, one.run),
                )
            )
        return self._snapshots

    async def link(self, key: str) -> bytes | None:
        """What the link holds, or None where the backup does not have it."""
        decoded = layout.decode(key)
        if not isinstance(decoded, LayerLinkKey | RevisionLinkKey | TagCurrentKey):
            return None
        pack = await self._pack_of(decoded.name)
        if pack is None:
            return None
        target: Digest | None = None
        match decoded:
            case LayerLinkKey():
                target = pack.layers.get(decoded.digest)
            case RevisionLinkKey():
                known = pack.manifests.get(decoded.digest)
                target = decoded.digest if known is not None and known.linked else None
            case TagCurrentKey():
                tag = pack.tags.get(decoded.tag)
                target = None if tag is None else tag.digest
        return None if target is None else layout.link_body(target)

    async def _pack_of(self, name: str) -> Pack | None:
        if name == self._name:
            return self._pack
        newest_first = [one for one in reversed(await self.load()) if name in one.repositories]
        newest_first.sort(key=lambda one: any(left.repository == name for left in one.left_out))
        self._name, self._pack = name, None
        for snapshot in newest_first:
            try:
                self._pack = await read_pack(self._backup, snapshot.repositories[name].pack)
                break
            except IntegrityError:
                continue
        return self._pack
