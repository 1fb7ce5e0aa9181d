"""The grammar of names: repositories, tags, references.

The rules are those of github.com/distribution/reference (`regexp.go`): what a registry accepts in a URL.
A store may hold folders with other names; the key codec (`layout`) reads those too, and planning protects them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from regstore.digest import Digest
from regstore.errors import InvalidReference

NAME_MAX_LENGTH: Final = 255
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
#: Of at most NAME_MAX_LENGTH characters. Read by RE2 too.
NAME_RE: Final = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_NAME: Final = re.compile(NAME_RE, re.ASCII)
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
#: `sha256-<hex>` (the OCI fallback for referrers), or with a suffix such as `.sig` (cosign's older scheme). Read by
#: RE2 too.
DIGEST_TAG_RE: Final = r"(sha256)-([0-9a-f]{64})(\..+)?|(sha512)-([0-9a-f]{128}|[0-9a-f]{64})(\..+)?"
_DIGEST_TAG: Final = re.compile(DIGEST_TAG_RE)


def is_name(text: str) -> bool:
    return len(text) <= NAME_MAX_LENGTH and _NAME.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    return _TAG.fullmatch(text) is not None


def parse_name(text: str) -> str:
    """A repository name, unchanged, or InvalidReference."""
    if not is_name(text):
        raise InvalidReference(
            f"{text[:300]!r} is not a repository name (lower-case components such as team/app, at most 255 characters)"
        )
    return text


def parse_tag(text: str) -> str:
    """A tag, unchanged, or InvalidReference."""
    if not is_tag(text):
        raise InvalidReference(f"{text[:300]!r} is not a tag (letters, digits, '_', '.', '-', at most 128)")
    return text


def is_digest_tag(tag: str) -> bool:
    """Whether it names a digest, in full or cut: `sha256-<hex>`, `sha256-<hex>.sig`."""
    return _DIGEST_TAG.fullmatch(tag) is not None


def subject_of_tag(tag: str) -> Digest | None:
    """The digest that a tag such as `sha256-<hex>` or `sha256-<hex>.sig` names, else None.

    The OCI distribution specification cuts a long encoded part to 64 characters; such a tag names no
    full digest and gives None.
    """
    match = _DIGEST_TAG.fullmatch(tag)
    if match is None:
        return None
    if match[1]:
        return Digest(match[1], match[2])
    return Digest(match[4], match[5]) if len(match[5]) == 128 else None


def names_digest(tag: str, digest: Digest) -> bool:
    """Whether a tag such as `sha256-<hex>` or `sha256-<hex>.sig` names this digest, in full or cut to 64 characters."""
    match = _DIGEST_TAG.fullmatch(tag)
    if match is None:
        return False
    algorithm, encoded = (match[1], match[2]) if match[1] else (match[4], match[5])
    return digest.algorithm == algorithm and digest.encoded.startswith(encoded)


def digests_named(tag: str, among: Collection[Digest]) -> list[Digest]:
    """What a tag such as `sha256-<hex>` or `sha256-<hex>.sig` names: the digest that stands there in full,
    whether it is `among` these or not; where it is cut, those of these that begin so."""
    subject = subject_of_tag(tag)
    if subject is not None:
        return [subject]
    if _DIGEST_TAG.fullmatch(tag) is None:
        return []
    return [digest for digest in among if names_digest(tag, digest)]


@dataclass(frozen=True, slots=True)
class Reference:
    """`name`, `name:tag` or `name@digest` (with both, the digest decides, as in docker)."""

    name: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        rest, at, digest = text.partition("@")
        name, colon, tag = rest.partition(":")
        return cls(
            parse_name(name),
            parse_tag(tag) if colon else None,
            Digest.parse(digest) if at else None,
        )

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{self.name}{tag}{digest}"
