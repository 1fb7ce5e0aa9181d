"""What of a layout goes where: by the names in it, and by those that are given. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from regstore.errors import InputError
from regstore.exchange.image_layout import Entry, repositories_of
from regstore.reference import Reference

_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An entry, and where it goes. tag: "" for none."""

    entry: Entry
    repository: str
    tag: str


@dataclass(kw_only=True)
class Chosen:
    """loose: entries without a tag, which go where what they refer to goes, or else by their own repository, where
    `by_name`. left_out: what says no repository, and none was given."""

    images: list[Image] = field(default_factory=list)
    loose: list[Entry] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    by_name: bool = True


def choose(entries: Sequence[Entry], what: Sequence[Reference], where: str) -> Chosen:
    """Without `what`, all goes by the names in the layout. A layout of one repository, or that names none, goes to the
    repositories that are given: all of it to REPOSITORY, one tag of it to REPOSITORY:TAG. Of a layout with several
    repositories, what is given says which of them are meant.

    InputError where there is nothing of what is given.
    """
    if not what:
        return _by_names(entries)
    if any(reference.digest is not None for reference in what):
        raise InputError("an import goes to REPOSITORY or REPOSITORY:TAG, not to a digest")
    several = len(repositories_of(entries)) > 1
    chosen = Chosen(by_name=False)
    for reference in what:
        found = _selected(entries, reference) if several else _sent(entries, reference)
        if not found:
            raise InputError(f"{where} has no {reference}; it has {_names_in(entries)}")
        chosen.images += found
    taken = {image.entry.digest for image in chosen.images}
    chosen.loose = [entry for entry in entries if not entry.tag and entry.digest not in taken]
    return chosen


def _by_names(entries: Sequence[Entry]) -> Chosen:
    chosen = Chosen()
    for entry in entries:
        if not entry.tag:
            chosen.loose.append(entry)
        elif entry.repository:
            chosen.images.append(Image(entry=entry, repository=entry.repository, tag=entry.tag))
        else:
            chosen.left_out.append(f"{entry.tag}: the layout does not say of which repository: give REPOSITORY")
    return chosen


def _selected(entries: Sequence[Entry], reference: Reference) -> list[Image]:
    return [
        Image(entry=entry, repository=entry.repository, tag=entry.tag)
        for entry in entries
        if entry.repository == reference.name and reference.tag in (None, entry.tag)
    ]


def _sent(entries: Sequence[Entry], reference: Reference) -> list[Image]:
    tagged = [entry for entry in entries if entry.tag]
    if reference.tag is not None:
        named = [entry for entry in tagged if entry.tag == reference.tag]
        if not named and len(entries) == 1:  # skopeo writes one without a name
            named = list(entries)
        return [Image(entry=entry, repository=reference.name, tag=reference.tag) for entry in named]
    return [Image(entry=entry, repository=reference.name, tag=entry.tag) for entry in entries]


def _names_in(entries: Sequence[Entry]) -> str:
    names = sorted({entry.name if entry.repository else entry.tag for entry in entries if entry.tag})
    if not names:
        return f"{len(entries)} images without a name"
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
