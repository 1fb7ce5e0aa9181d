"""What somebody has named to go."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from regstore.digest import Digest
from regstore.errors import InputError, InvalidDigest
from regstore.reference import Reference


@dataclass(frozen=True, kw_only=True)
class Named:
    """tags: (repository, tag), one alone each. revisions: (repository, digest), each with all tags that name it.
    repositories: whole ones; those nested in them are others."""

    tags: frozenset[tuple[str, str]] = frozenset()
    revisions: frozenset[tuple[str, Digest]] = frozenset()
    repositories: frozenset[str] = frozenset()

    @property
    def names(self) -> list[str]:
        """Of all repositories concerned, in order."""
        return sorted({name for name, _ in self.tags} | {name for name, _ in self.revisions} | self.repositories)

    @property
    def needs_manifests(self) -> bool:
        """More than tags goes: what lists it, and in what order it goes, the manifests say."""
        return bool(self.revisions or self.repositories)

    @classmethod
    def parse(cls, words: Iterable[str], *, recursive: bool = False) -> Named:
        """REPO:TAG, REPO@DIGEST, or REPO where `recursive` says that whole repositories may go. InputError."""
        tags: set[tuple[str, str]] = set()
        revisions: set[tuple[str, Digest]] = set()
        repositories: set[str] = set()
        for word in words:
            found = _parse(word)
            if found.tag is not None and found.digest is not None:
                raise InputError(
                    f"{word} names a tag and a digest: {found.name}:{found.tag} is that one tag, and "
                    f"{found.name}@{found.digest} the image with all its tags; say one of them"
                )
            if found.digest is not None:
                revisions.add((found.name, found.digest))
            elif found.tag is not None:
                tags.add((found.name, found.tag))
            elif recursive:
                repositories.add(found.name)
            else:
                raise InputError(
                    f"{word} is a whole repository: say --recursive to remove all its tags and images, or name a tag "
                    f"({word}:TAG) or an image ({word}@DIGEST)"
                )
        if not (tags or revisions or repositories):
            raise InputError("nothing is named: say REPO:TAG, REPO@DIGEST, or --recursive REPO")
        return cls(tags=frozenset(tags), revisions=frozenset(revisions), repositories=frozenset(repositories))


def _parse(word: str) -> Reference:
    """A digest behind a colon is told as what it is."""
    name, _, rest = word.partition(":")
    if "@" not in word and ":" in rest:
        with suppress(InvalidDigest):
            raise InputError(
                f"{word} names an image by its digest: that stands behind an @, {name}@{Digest.parse(rest)}"
            )
    return Reference.parse(word)
