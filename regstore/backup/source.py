"""What a registry's storage holds, taken while it serves, with read permission only.

A repository is taken when two listings of it agree: everything in them stood together at the moment between the two.
The links are listed before the blobs: a push writes blobs first, so a link that was listed has its blob in the
listing, unless it was deleted since; then the links are read again. One that never holds still is taken from its
last listing; what its manifests name and that listing lacks is looked for by name. So it is where a link is missing
though two listings agree: gc takes one that nothing needs, and gives it back where a push needed it meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase

from regstore import layout
from regstore.backup.missing import Link, Missing
from regstore.backup.options import CreateOptions, refuse_unmatched
from regstore.backup.settling import Settling
from regstore.backup.statements import SQL
from regstore.digest import Digest
from regstore.errors import Refused
from regstore.events import Event, Notice, OnEvent
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import Scanner, ScanOptions
from regstore.inventory.whose import Use, refuse_database
from regstore.storage.base import Storage


class Source:
    """The links, blobs and manifests of a store, in an inventory of this run."""

    def __init__(
        self,
        storage: Storage,
        inventory: Inventory,
        scanning: ScanOptions,
        options: CreateOptions,
        on_event: OnEvent,
    ) -> None:
        def without_notices(event: Event) -> None:
            # A scan speaks of uploads, which are none of a backup's business.
            if not isinstance(event, Notice):
                on_event(event)

        self.storage = storage
        self.inventory = inventory
        self._options = options
        self._scanner = Scanner(storage, inventory, scanning, without_notices)
        self._settling = Settling(storage, inventory, scanning, without_notices)
        self._missing = Missing(storage, inventory, scanning.concurrency)
        #: Repositories that were looked at again, as something of theirs was missing.
        self._doubted: set[str] = set()

    async def load(self) -> None:
        await self._scanner.list_links()
        self._refuse_patterns_of_nothing()
        moving = await self._settling.list_again()
        await self._settling.settle([name for name in moving if self.in_scope(name)])
        await list_blobs(self._scanner)
        refuse_database(self.storage.url, self.inventory.database, Use.BACK_UP)
        self._refuse_symbolic_links()
        await self._read_manifests()

    def _refuse_patterns_of_nothing(self) -> None:
        names = self.names()
        if not self.inventory.count("repository"):
            return  # `create` says what is not there
        refuse_unmatched("repository", self._options.repositories, names, self.storage.url)
        rows = SQL.run(self.inventory, "tag_names", {"names": names}).fetchall()
        refuse_unmatched("tag", self._options.tags, [tag for (tag,) in rows], self.storage.url)

    def _refuse_symbolic_links(self) -> None:
        links = sorted(key for key in self.storage.symlinks if key.startswith(layout.PREFIX))
        if links:
            raise Refused(
                f"{self.storage.url} holds symbolic links ({len(links)}, such as {links[0]}); what lies behind them "
                "is not seen, so it would be missing from the backup: replace them by bind mounts, or move the data"
            )

    def in_scope(self, name: str) -> bool:
        patterns = self._options.repositories
        return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)

    def names(self) -> list[str]:
        """The repositories of the scope that hold anything, sorted."""
        rows = SQL.run(self.inventory, "repositories").fetchall()
        return [name for (name,) in rows if self.in_scope(name)]

    async def look_again(self, names: Collection[str], missing: Collection[Digest]) -> None:
        """List these repositories anew, and ask for the blobs and links that were missing."""
        self._doubted.update(names)
        await self._settling.settle(names)
        await self._missing.find_blobs(missing)
        await self._read_manifests()
        # What was pushed since the blobs were listed.
        while await self._missing.find_blobs(self._missing.absent(names)):
            await self._read_manifests()

    def forget_blobs(self, digests: Collection[Digest]) -> None:
        """They are gone from the store."""
        if digests:
            SQL.run(self.inventory, "forget_blobs", {"digests": [digest.raw for digest in digests]})

    async def _read_manifests(self) -> None:
        SQL.run(self.inventory, "forget_missing")
        await self._scanner.read_manifests()
        # In repositories that never held still, or lacked something.
        names = self._settling.restless | self._doubted
        asked: set[Link] = set()
        while await self._missing.find_links(names, asked):
            await self._scanner.read_manifests()


async def list_blobs(scanner: Scanner) -> None:
    """All of them, in the inventory on return."""
    await scanner.list_blobs()
    await scanner.list_repositories(())
