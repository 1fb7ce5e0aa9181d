"""Doing a plan: blobs, layer links, revision links, tag history, tags; each step after the one before has ended.

Whatever is cut short leaves blobs and links that nothing needs yet, never a link to nothing. What can't be copied
blocks all that reaches it, and the rest goes on. The store is the journal: the next plan finds what is missing.
"""

from __future__ import annotations

from regstore.migrate.blobs import Blobs
from regstore.migrate.links import Links
from regstore.migrate.others import is_undisturbed
from regstore.migrate.tags import Tags
from regstore.migrate.work import Work


async def apply_plan(work: Work) -> bool:
    """False when another run changes the target, or has since it was listed: the plan is void, and no tag was set
    while that was known."""
    blobs, links = Blobs(work), Links(work)

    async def undisturbed() -> bool:
        return await is_undisturbed(
            work.target,
            work.others,
            work.inventory,
            concurrency=work.options.concurrency,
            own=blobs.own_runs,
        )

    await blobs.copy()
    await links.layers()
    if not await undisturbed():
        return False
    await links.revisions()
    await links.signatures()
    await links.tag_histories()
    await Tags(work, links).set()
    return await undisturbed()
