"""What the runs of a trash took, by their journals: so many links, and whether any of a repository or of a digest."""

from __future__ import annotations

from collections.abc import Sequence

from regstore import layout
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.gc.restore_taken import LinkKey, takes
from regstore.layout import NOBODYS, BlobKey, LayerLinkKey, RevisionLinkKey, TagIndexKey
from regstore.state.journal import read_parts
from regstore.state.trashed import TrashedRun
from regstore.storage.base import Storage


async def count_links(storage: Storage, runs: Sequence[TrashedRun], *, concurrency: int = 16) -> dict[str, int]:
    """How many links each run took by its journal, tags and their history among them, and a tag that it moved. Reads
    the journals."""
    counts: dict[str, int] = {}

    async def count(run: TrashedRun) -> None:
        parts = run.record.parts if run.record else ()
        keys = {
            entry.key
            async for entries in read_parts(storage, parts)
            for entry in entries
            if run.record and takes(run.record, entry) and isinstance(layout.decode(entry.key), LinkKey)
        }
        counts[run.run] = len(keys)

    await for_each(runs, count, concurrency=concurrency)
    return counts


async def runs_that_took(
    storage: Storage,
    runs: Sequence[TrashedRun],
    *,
    repository: str | None = None,
    digest: Digest | None = None,
    concurrency: int = 16,
) -> list[TrashedRun]:
    """Those of the runs whose journal names anything of the repository, with the digest where one is given (a blob is
    of no repository). Reads the journals, a GET a part."""
    if repository is None and digest is None:
        return list(runs)
    found: set[str] = set()

    async def look(run: TrashedRun) -> None:
        async for entries in read_parts(storage, run.record.parts if run.record else ()):
            if any(_is_of(entry.key, repository, digest) for entry in entries):
                found.add(run.run)
                return

    await for_each(runs, look, concurrency=concurrency)
    return [run for run in runs if run.run in found]


def _is_of(text: str, repository: str | None, digest: Digest | None) -> bool:
    key = layout.decode(text)
    if isinstance(key, NOBODYS):
        if repository is not None or not isinstance(key, BlobKey):
            return False
    elif repository is not None and key.name != repository:
        return False
    if digest is None:
        return True
    return isinstance(key, BlobKey | LayerLinkKey | RevisionLinkKey | TagIndexKey) and key.digest == digest
