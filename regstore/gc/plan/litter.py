"""S3 directory markers and the files of NAS and desktop systems: they refer to nothing, and go with the folder that gc
empties.

Each stands in some folder (a marker stands for one, `@eaDir/…` in the folder above it): that of a link, a tag, an
upload or a blob, that of a whole repository, or one above repositories. It goes where nothing else in that folder stays
and it is itself older than the grace, whether something goes with it now or the folder was empty before: a registry
that lists by prefix goes on showing a repository, or a tag, of which only a marker is left.
"""

from __future__ import annotations

from typing import Final

from regstore import layout
from regstore.digest import HEX_LENGTH
from regstore.gc.plan.question import Question
from regstore.inventory.statements import Statements

_FRAGMENTS: Final = {
    "repositories": layout.REPOSITORIES,
    "repositories_length": str(len(layout.REPOSITORIES)),
    "blobs": layout.BLOBS,
    "litter_folder": layout.LITTER_FOLDER_RE,
    "kept_litter": layout.KEPT_LITTER_RE,
    "name": layout.NAME_RE,
    "digest": layout.DIGEST_PATH_RE,
    "tag": layout.TAG_RE,
    "uuid": layout.UUID_RE,
    "own": "_(?:layers|manifests|uploads)/",
    "blob": "|".join(f"{name}/[0-9a-f]{{2}}/[0-9a-f]{{{length}}}" for name, length in HEX_LENGTH.items()),
}
_PLAIN: Final = Statements("regstore.gc.plan", "litter.sql", **_FRAGMENTS)
_SQL: Final = Statements(
    "regstore.gc.plan",
    "litter.sql",
    **_FRAGMENTS,
    level_of_unknown=_PLAIN.text("level", path="p.below"),
    level_of_litter=_PLAIN.text("level", path="p.inner_folder"),
)


def find_places(question: Question) -> None:
    """litter_place: the folder in which each file stands that may go."""
    if "litter" in question.present:
        _SQL.run(question.inventory, "places", question.parameters)


def collect_litter(question: Question) -> int:
    """gc_dead_litter, of the repositories' own folders, by the dead links, tags and uploads of the plan: nothing from a
    protected repository. How much that is. And standing_repository, for `collect_outer_litter`."""
    if "litter" not in question.present:
        return 0
    find_places(question)
    _SQL.run(question.inventory, "repositories")
    find_standing(question)
    [(found,)] = _SQL.run(question.inventory, "inner").fetchall()
    return int(found)


def find_standing(question: Question) -> None:
    """standing_repository, by the dead links, tags and uploads of the plan."""
    _SQL.run(question.inventory, "staying")


def make_standing(question: Question) -> None:
    """standing_repository, empty: to be filled from shards."""
    _SQL.run(question.inventory, "no_standing")


def in_folders_of_blobs(question: Question) -> list[bytes]:
    """Digests of blobs in whose folders any of litter_place stands."""
    if "litter" not in question.present:
        return []
    return [bytes(raw) for (raw,) in _SQL.run(question.inventory, "in_folders_of_blobs").fetchall()]


def collect_outer_litter(question: Question) -> None:
    """The same for the folders of blobs, and for those above repositories, by litter_place, standing_repository and
    gc_dead_blob."""
    if "litter" in question.present:
        _SQL.run(question.inventory, "outer")
