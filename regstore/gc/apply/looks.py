"""Looks at all links of the store, while its blobs go.

Between a plan and the moment at which a blob of it goes, somebody may have pushed what needs that blob. So, while the
registry serves, no blob goes but within some minutes after a look at all links; what such a look reaches is no
candidate any more, and what it misses comes back from the trash, from all runs.
"""

from __future__ import annotations

from typing import Final

from regstore.concurrency import in_thread
from regstore.gc.apply.application import Application
from regstore.gc.apply.candidates import Candidates
from regstore.gc.heal import Healed
from regstore.gc.past import Past
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import Scanner
from regstore.inventory.whose import Use, database_in_use, refuse_database
from regstore.storage.base import Storage
from regstore.storage.clock import clock

#: While the registry serves, no blob goes longer than this after a look at all links, in seconds; or than as long as
#: that look took, where that is longer.
_LOOK_STANDS: Final = 300.0


async def refuse_database_now(storage: Storage) -> None:
    """One may have come into use since the scan."""
    refuse_database(storage.url, await database_in_use(storage), Use.REMOVE)


def stands_for(seconds: float) -> float:
    """How long a look stands that took so many seconds, from its end on."""
    return max(_LOOK_STANDS, seconds)


class Looks:
    """healed: all that came back by looks between batches of blobs. kept: candidates that turned out to be needed."""

    def __init__(self, application: Application, candidates: Candidates) -> None:
        self._application = application
        self._candidates = candidates
        self._due_at = 0.0
        self.healed = Healed()
        self.kept = 0

    async def before_blobs(self) -> None:
        """The first: what went was links, so nothing is to come back yet."""
        await self._look(choose=True)

    async def renew(self) -> bool:
        """Where the last look is too long ago there is another, and what it misses comes back; whether there was."""
        if self._application.options.offline or clock() < self._due_at:
            return False
        self.healed += await self._look(heal=True, choose=True)
        return True

    async def last(self) -> Healed:
        """When no blob goes any more: what was linked while they went comes back."""
        return await self._look(heal=True)

    async def _look(self, *, heal: bool = False, choose: bool = False) -> Healed:
        """List all links once more. heal: what they miss comes back; choose: what they reach is no candidate."""
        began = clock()
        healed = Healed()
        application = self._application
        look = application.inventory.child()
        try:
            scanner = Scanner(application.storage, look, application.options.scan, application.on_event)
            await scanner.list_links()
            if choose:
                await refuse_database_now(application.storage)
            await scanner.read_manifests()
            if heal:
                healed = await application.heal(await Past.load(application.storage, look), look, scanner)
            if choose:
                self.kept += await in_thread(self._keep_reached, look)
        finally:
            look.close()
        self._due_at = clock() + stands_for(clock() - began)
        return healed

    def _keep_reached(self, look: Inventory) -> int:
        application = self._application
        return self._candidates.keep_reached(look, application.options.plan, now=application.now)
