"""Space, garbage and health as one static file, to send to those who own the images: no script, nothing to fetch."""

from __future__ import annotations

import regstore
from regstore.backup.as_store import SnapshotStorage
from regstore.events import OnEvent, ignore
from regstore.inventory.scan import ScanOptions
from regstore.serve.garbage import plan_of
from regstore.serve.health import HealthWatch
from regstore.serve.index import Index
from regstore.serve.pages import space_of
from regstore.serve.rendering import render, static_files
from regstore.storage.base import Storage


async def make_report(storage: Storage, scanning: ScanOptions, *, on_event: OnEvent = ignore) -> str:
    """The report's HTML. Nothing is written into the store; errors of the store as `inventory.scan`."""
    index = Index(storage=storage, scanning=scanning, on_event=on_event)
    health = None if isinstance(storage, SnapshotStorage) else await HealthWatch(storage).look()
    try:
        await index.once()
        async with index.view() as view:
            tried = None if view.database else await plan_of(view)
            values = {
                "site": None,
                "base": "",
                "view": view,
                "title": storage.url,
                "version": regstore.__version__,
                "style": Style(static_files()["style.css"][0].decode()),
                "tried": tried,
                "said": f"Tags and manifests are in a database: {view.database} says so." if view.database else "",
                "health": health,
                **await space_of(view),
            }
            return render("report.html", values)
    finally:
        await index.close()


class Style(str):
    """Our own style sheet, which is no text to escape."""

    def __html__(self) -> str:
        return self
