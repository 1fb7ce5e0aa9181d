"""What goes of what was named, and what speaks against it. SQL only: no I/O, no clock.

Of the repositories named an inventory holds all links, and the manifests with all that these list (`removal.run`).

- A tag goes alone: its current/link and its history. Its siblings stay, and so does the manifest that it names.
- A revision goes with all tags that name it, and with its signature links. Not where anything that stays in the
  repository needs it: an index that lists it, a tag that was set meanwhile. Not where something stays that can't be
  read and may list it. What is *about* it, a signature or another referrer, stays and is told.
- Of a whole repository all tags, revisions and signature links go.

Each table says what goes of one repository by what stands in that repository, for no other needs its links.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from regstore.errors import ManifestUnknown, NameUnknown, Refused, RegistryError, TagUnknown
from regstore.gc.plan import GcOptions
from regstore.gc.plan.links import spell_keys
from regstore.gc.plan.question import Question
from regstore.gc.removal.named import Named
from regstore.inventory.inventory import Inventory, digest_text
from regstore.inventory.links import LINK_MAX
from regstore.inventory.reachability import Reachability
from regstore.inventory.statements import EDGE_KINDS, Statements

#: What a sentence names of many.
_NAMED: Final = 5
_TAILS: Final = ("tag_tails", "tag_index_tails", "revision_tails", "signature_tails")
_ABSENT: Final[dict[str, type[RegistryError]]] = {
    "tag": TagUnknown,
    "revision": ManifestUnknown,
    "repository": NameUnknown,
}
_SQL: Final = Statements("regstore.gc.removal", "plan.sql", link_max=str(LINK_MAX), **EDGE_KINDS)


@dataclass(frozen=True, kw_only=True)
class RepositoryRemoval:
    """What goes of one repository. whole: all of it. tags: with the digest's text that each names, None where it names
    none; revisions: digests. attached_tags, referrers: what is about revisions that go, and stays. nested: repositories
    within this one, which stay."""

    name: str
    whole: bool = False
    tags: tuple[tuple[str, str | None], ...] = ()
    revisions: tuple[str, ...] = ()
    attached_tags: tuple[str, ...] = ()
    referrers: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()


def plan_removal(
    inventory: Inventory, named: Named, *, url: str, nested: Mapping[str, Sequence[str]] | None = None
) -> list[RepositoryRemoval]:
    """Make the plan's tables. Nothing is left out: what was named goes, all of it, or this raises. nested: the
    repositories within each of those that go whole.

    TagUnknown, ManifestUnknown or NameUnknown where something is not there. Refused where something must not go.
    """
    _require_all(inventory, named, url, nested or {})
    _SQL.run(inventory, "kept")
    _choose(inventory, named)
    if needed := _needed(inventory):
        raise Refused(_why_needed(needed))
    if unknown := _SQL.run(inventory, "unknown_needs").fetchall():
        name, why = unknown[0]
        more = f" (and {len(unknown) - 1:,} more)" if len(unknown) > 1 else ""
        raise Refused(
            f"in {name} {why}{more}, and whether it lists what was to go is not known: repair it (`regstore verify`), "
            "or remove that first"
        )
    _spell(inventory)
    if bad := _SQL.run(inventory, "without_way_back").fetchall():
        key, size = bad[0]
        raise Refused(
            f"{key} holds {size:,} bytes, which is no link, and no journal could bring it back: move it away"
        )
    return list(_told(inventory))


def plan_again(look: Inventory, named: Named) -> None:
    """The same in a later look at some of the repositories. What changed since, and what must not go any more, is left
    out, a revision with the tags that name it."""
    _SQL.run(look, "kept")
    while True:
        _choose(look, named)
        names = sorted({name for name, _ in _SQL.run(look, "unknown_needs").fetchall()})
        kept = _SQL.run(look, "keep_needed").fetchall() + _SQL.run(look, "keep_all", {"names": names}).fetchall()
        if not kept:
            break
    _spell(look)


def _require_all(inventory: Inventory, named: Named, url: str, nested: Mapping[str, Sequence[str]]) -> None:
    absent = _SQL.run(inventory, "absent", _parameters(named)).fetchall()
    if not absent:
        return
    words = [_word(kind, name, what) for kind, name, what in absent]
    kind = absent[0][0]
    more = f" and {len(words) - _NAMED:,} more" if len(words) > _NAMED else ""
    hint = "" if kind != "repository" else " (or no tag and no image of it is left: what is, `regstore gc` takes)"
    if within := [name for _, name, _ in absent for name in nested.get(name, ())]:
        more = f" and {len(within) - _NAMED:,} more" if len(within) > _NAMED else ""
        hint = f"; within that name are {', '.join(within[:_NAMED])}{more}, each to be named by itself"
    raise _ABSENT[kind](f"{url} has no {', no '.join(words[:_NAMED])}{more}{hint}, so nothing was removed")


def _word(kind: str, name: str, what: str) -> str:
    if kind == "repository":
        return f"repository {name}"
    return f"tag {name}:{what}" if kind == "tag" else f"image {name}@{what}"


def _parameters(named: Named) -> dict[str, Any]:
    tags, revisions = sorted(named.tags), sorted(named.revisions, key=lambda each: (each[0], str(each[1])))
    return {
        "tag_names": [name for name, _ in tags],
        "tags": [tag for _, tag in tags],
        "revision_names": [name for name, _ in revisions],
        "digests": [digest.raw for _, digest in revisions],
        "repositories": sorted(named.repositories),
    }


def _choose(inventory: Inventory, named: Named) -> None:
    """rm_tag and rm_revision, and what the rest of their repositories reaches."""
    _SQL.run(inventory, "named", _parameters(named))
    _SQL.run(inventory, "choose")
    _SQL.run(inventory, "staying")
    reach = Reachability(inventory, "rm_reach", revisions="rm_staying_revision")
    reach.add(_SQL.text("staying_roots"))


def _spell(inventory: Inventory) -> None:
    """gc_dead_tag and the like, and gc_unlink."""
    Question(inventory, GcOptions(), 0).make_tables("links")
    _SQL.run(inventory, "dead")
    spell_keys(inventory, _TAILS)


_Needed = tuple[str, bytes, bytes | None, list[str] | None]


def _needed(inventory: Inventory) -> list[_Needed]:
    return [
        (name, bytes(raw), by and bytes(by), tags)
        for name, raw, by, tags in _SQL.run(inventory, "needed").fetchall()
    ]


def _why_needed(needed: Sequence[_Needed]) -> str:
    name, raw, by, tags = needed[0]
    tagged = f" ({', '.join(f'{name}:{tag}' for tag in tags[:_NAMED])})" if tags else ""
    more = f" So it is with {len(needed) - 1:,} more." if len(needed) > 1 else ""
    if by is None:
        return f"{name}@{digest_text(raw)} is still needed in {name}{tagged}; nothing was removed.{more}"
    lister = f"{name}@{digest_text(by)}"
    return (
        f"{name}@{digest_text(raw)} is listed by {lister}{tagged}, which stays and could not be pulled without it; "
        f"remove that first, or name both: {lister}.{more}"
    )


def _told(inventory: Inventory) -> Iterator[RepositoryRemoval]:
    attached = _SQL.run(inventory, "attached").fetchall()
    rows = _SQL.run(inventory, "going").fetchall()
    for (name, whole), some in groupby(rows, key=lambda row: (row[0], row[1])):
        going = list(some)
        yield RepositoryRemoval(
            name=name,
            whole=whole,
            tags=tuple((what, digest) for _, _, kind, what, digest in going if kind == "tag"),
            revisions=tuple(what for _, _, kind, what, _ in going if kind == "revision"),
            attached_tags=tuple(what for each, kind, what in attached if each == name and kind == "tag"),
            referrers=tuple(what for each, kind, what in attached if each == name and kind == "referrer"),
        )
