"""What is left to do when links and blobs are gone: litter above and beside them, what the registry's cache knows of
them, and empty folders of a disk.

It comes after the last look at the links, when nothing of the plan is needed any more.
"""

from __future__ import annotations

from typing import Final

from regstore import layout
from regstore.gc.apply.application import BATCH, Application
from regstore.gc.apply.candidates import gone_digests
from regstore.gc.apply.going import SLICE
from regstore.gc.plan import Step
from regstore.inventory.inventory import digest_text
from regstore.state.journal import UNLINK, Entry

#: Empty folders younger than this stay while the registry serves; in microseconds.
_FOLDERS_STAY: Final = 600 * 1_000_000
#: v2.x finds repositories by `_layers`, v3 by `_manifests`; a repository without them would lose its blobs to the
#: registry's own garbage-collect.
_REPOSITORY_FOLDERS: Final = frozenset({"_layers", "_manifests", "_uploads", "tags", "revisions"})


async def remove_outer_litter(application: Application) -> int:
    """That in folders of blobs which are gone, and above repositories of which nothing is left; how many went."""
    rows = application.inventory.all(
        "select l.key, l.size, l.mtime from gc_dead_litter l left join blob b on b.digest = l.digest"
        " where l.repository is null and b.digest is null order by l.key"
    )
    removed = 0
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        await application.lock.guard()
        await application.journal.write(Entry(UNLINK, key, size, mtime) for key, size, mtime in batch)
        outcomes = await application.lock.delete_many([key for key, _, _ in batch])
        application.failures.note(outcomes)
        removed += sum(error is None for error in outcomes.values())
    return removed


async def forget_run(application: Application) -> None:
    """The registry's cache forgets all that this run removed, once more: a request that was under way may have told it
    of that again."""
    cache, inventory = application.cache, application.inventory
    if not cache.in_reach:
        return
    cursor = inventory.connection.cursor()
    rows = cursor.execute(
        "select r.name, u.digest from main.gc_unlink u join main.repository r on r.id = u.repository"
        f" where u.step in ({Step.REVISION}, {Step.LAYER})"
    )
    while links := rows.fetchmany(SLICE):
        await cache.forget_links((name, digest_text(raw)) for name, raw in links)
    cursor.close()
    await cache.forget_blobs(gone_digests(inventory))


async def remove_folders(application: Application) -> int:
    """What the deletions left empty on a disk. A repository that stays keeps the folders that make it one."""
    if not (await application.storage.capabilities()).folders:
        return 0
    remove = application.storage.remove_empty_folders
    removed = await remove(layout.BLOBS, older_than=await _may_go(application))
    for name in application.summary.emptied:
        # Not all below it: repositories nested in it stay, and theirs with them.
        for prefix in (layout.layers_prefix(name), layout.manifests_prefix(name), layout.uploads_prefix(name)):
            removed += await remove(prefix, older_than=await _may_go(application))
    # Asked anew each time: taking a folder away has just changed the one above it.
    return removed + await remove(
        layout.REPOSITORIES, older_than=await _may_go(application), keep=_REPOSITORY_FOLDERS
    )


async def _may_go(application: Application) -> int:
    """Empty folders older than this time may go; a push makes its folder before the file in it."""
    now = await application.storage.now()
    options = application.options
    return now + 1 if options.offline else now - max(options.plan.grace, _FOLDERS_STAY)
