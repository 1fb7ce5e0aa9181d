"""Which blobs go: what no repository reaches, no link that stays names and no unknown key names, and is older than the
grace. None at all where something that can't be read may mean any blob."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from regstore.gc.plan.question import Question
from regstore.gc.plan.roots import NOWHERE
from regstore.inventory.statements import Statements
from regstore.layout import DIGEST_PATH_RE, REPOSITORIES

_NAMED: Final = 5
_SQL: Final = Statements(
    "regstore.gc.plan",
    "blobs.sql",
    nowhere=str(NOWHERE),
    digest_path=DIGEST_PATH_RE,
    repositories=REPOSITORIES,
    named=str(_NAMED),
)


@dataclass(frozen=True, kw_only=True)
class Held:
    """Dead blobs that stay because unknown keys below repositories name them, or what refers to them. keys: some of
    these, the first ones; also of keys that name only blobs which stay anyway, until `add_held`. Sizes in bytes."""

    blobs: int = 0
    blob_bytes: int = 0
    keys: tuple[str, ...] = ()


def add_held(parts: Sequence[Held]) -> Held:
    """Of shards of blobs together."""
    blobs = sum(part.blobs for part in parts)
    keys = sorted({key for part in parts for key in part.keys})
    return Held(
        blobs=blobs, blob_bytes=sum(part.blob_bytes for part in parts), keys=tuple(keys[:_NAMED]) if blobs else ()
    )


#: Links by the name of their table in statements: all of them, and those that stay by the plan.
_LINKS: Final = {table: table for table in ("layer_link", "revision_link", "signature_link")}
_STAYING: Final = {
    "layer_link": "(from layer_link anti join gc_dead_layer_link using (repository, digest))",
    "revision_link": "(from revision_link anti join gc_dead_revision using (repository, digest))",
    "signature_link": "(from signature_link anti join gc_dead_signature using (repository, revision, digest))",
}


def find_live(question: Question, *, links_go: bool = True) -> str:
    """live_blob, what these repositories keep; unknown_reach, what unknown keys do; and why no blob may go at all, ""
    where nothing says so. links_go: the plan's dead links are none any more; else every link counts."""
    links = _STAYING if links_go else _LINKS
    _SQL.run(question.inventory, "live", None, **links)
    if "unknown" in question.present:
        _SQL.run(question.inventory, "reached_by_unknown")
    if not question.present & {"odd links", "unknown"}:
        return ""
    for (why,) in _SQL.run(question.inventory, "unresolved", None, **links).fetchall():
        return f"no blob is removed: {why}, so which blob it keeps is not known"
    return ""


def make_exchange(question: Question) -> None:
    """live_blob and unknown_reach, empty."""
    _SQL.run(question.inventory, "exchange")


def sweep(question: Question, *, blocked: bool, any_held: bool | None = None) -> Held:
    """gc_dead_blob, of what neither live_blob nor unknown_reach names; live_blob is dropped. blocked: none may go.
    any_held: whether anything may be in unknown_reach; by default where the inventory has unknown keys."""
    held = Held()
    question.make_tables("blobs")
    if not blocked:
        _SQL.run(question.inventory, "dead_blob", question.parameters)
        if "unknown" in question.present if any_held is None else any_held:
            (blobs, blob_bytes, _), *keys = _SQL.run(question.inventory, "hold").fetchall()
            held = Held(blobs=blobs, blob_bytes=blob_bytes, keys=tuple(key for *_, key in keys))
    question.inventory.execute("drop table live_blob")
    return held
