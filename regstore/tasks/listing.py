"""List a range of keys, a few pages of it; what is left of the range goes back to who asked."""

from __future__ import annotations

from dataclasses import dataclass

from regstore.storage.base import Page
from regstore.tasks.runner import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRange:
    """Keys that begin with `prefix`, behind `after` and up to and including `last` ("" is no bound), of at most so many
    pages."""

    prefix: str
    after: str = ""
    last: str = ""
    pages: int = 8


async def list_range(context: Context, work: ListRange) -> Page:
    """What was listed, as one page: `complete` where nothing of the range is left, else the rest is behind its last
    key. So it has a key, or is complete: of pages that show none, as servers may send, it takes as many as there are,
    for only the server knows where it was."""
    pages: list[Page] = []
    complete = False
    async for page in context.store.list(work.prefix, start_after=work.after):
        kept = page.up_to(work.last) if work.last else page
        pages.append(kept)
        complete = page.complete or len(kept) < len(page)
        if complete or (len(pages) >= work.pages and any(page.keys for page in pages)):
            break
    return Page(
        [key for page in pages for key in page.keys],
        [size for page in pages for size in page.sizes],
        [etag for page in pages for etag in page.etags],
        [mtime for page in pages for mtime in page.mtimes],
        complete,
        {key: name for page in pages for key, name in page.archived.items()},
    )
