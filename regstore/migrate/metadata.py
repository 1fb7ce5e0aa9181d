"""A migration where a registry keeps its metadata in a database (`inventory.whose`), at either end.

From such a source only everything can be copied: all blobs, whatever links say, and the links that still stand. The
mark in the store goes along, and first: so at the target, too, links are known not to be the whole truth, before a
registry has started there. Into such a store only that may be written: what is linked there, its registry does not see.
And nothing is removed for what the links at the source lack.
"""

from __future__ import annotations

from dataclasses import dataclass

from regstore.errors import NotFound, Refused
from regstore.inventory.whose import Use, notice, refusal
from regstore.layout import DATABASE_IN_USE
from regstore.migrate.options import MigrateOptions
from regstore.storage.base import Storage


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What says of each side that its metadata is in a database; "" where nothing does."""

    source: str = ""
    target: str = ""


def refuse_metadata(metadata: Metadata, source: str, target: str, options: MigrateOptions) -> None:
    """Refused unless everything is copied and nothing removed."""
    whole = options.all and options.everything
    if metadata.source and not whole:
        raise refusal(source, metadata.source, Use.MIGRATE)
    if metadata.target and not whole:
        raise refusal(target, metadata.target, Use.WRITE)
    if options.delete and (metadata.source or metadata.target):
        at, evidence = (source, metadata.source) if metadata.source else (target, metadata.target)
        raise Refused(
            f"{at} belongs to a registry that keeps its tags in a database ({evidence} says so), so a tag that has no "
            "link is not gone: leave --delete away"
        )


def notes_on_metadata(metadata: Metadata, source: str, target: str) -> list[str]:
    return [
        notice(url, evidence)
        for url, evidence in ((source, metadata.source), (target, metadata.target))
        if evidence
    ]


async def carry_mark(source: Storage, target: Storage, metadata: Metadata) -> None:
    """Before any blob."""
    if not metadata.source or metadata.target:
        return
    try:
        body = await source.get(DATABASE_IN_USE)
    except NotFound:  # the registry's configuration says it
        return
    await target.put(DATABASE_IN_USE, body)
