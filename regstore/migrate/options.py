"""What a migration was asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

from regstore.errors import InputError
from regstore.reference import is_name
from regstore.storage.base import PutOptions

HOUR: Final = 3600 * 1_000_000


class Verify(StrEnum):
    """DEFAULT: what passes through is hashed on the way; a copy made by the server is checked by its size.
    FULL: every blob of the scope is read back from the target and hashed, whether copied now or there before."""

    DEFAULT = "default"
    FULL = "full"


@dataclass(frozen=True, kw_only=True)
class MigrateOptions:
    """repositories, tags: glob patterns (`*` matches `/` too); none means all. rename: source name to target name.

    all: what nothing reaches is copied too. grace: a layer link younger than this (microseconds) counts as live, as
    its push may still be under way. overwrite_tags: a tag that somebody else, or another source, set at the
    target is overwritten.
    delete: tags that our passes set and that the source no longer has are removed at the target; what only they held
    is garbage then, for gc.
    max_delete: a run that would remove a larger share of the tags that our passes set is refused.
    concurrency: requests at once. server_side: let the server copy where it can. put: how objects are stored.
    """

    repositories: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    all: bool = False
    grace: int = 24 * HOUR
    overwrite_tags: bool = False
    delete: bool = False
    max_delete: float = 0.5
    verify: Verify = Verify.DEFAULT
    concurrency: int = 128
    server_side: bool = True
    put: PutOptions | None = None

    def __post_init__(self) -> None:
        if self.all and self.tags:
            raise InputError("--all takes what no tag reaches too: it does not go with --tag")
        if self.delete and self.tags:
            raise InputError("--delete needs to know of every tag: it does not go with --tag")
        for name in self.rename.values():
            if not is_name(name):
                raise InputError(f"{name!r} is not a repository name, so nothing can be renamed to it")
        if not 0 <= self.max_delete <= 1:
            raise InputError(f"max_delete is a share from 0 to 1, not {self.max_delete}")
        if self.concurrency < 1:
            raise InputError(f"concurrency must be at least 1, not {self.concurrency}")

    @property
    def everything(self) -> bool:
        """Whether no pattern narrows the scope."""
        return not self.repositories and not self.tags

    def target_of(self, name: str) -> str | None:
        """The target's name for a source repository; None where it is not in the scope."""
        if self.repositories and not any(fnmatchcase(name, pattern) for pattern in self.repositories):
            return None
        return self.rename.get(name, name)


def parse_rename(texts: list[str]) -> dict[str, str]:
    """`from=to`, each; InputError where that is not what a text is, or a name is renamed twice."""
    renamed: dict[str, str] = {}
    for text in texts:
        source, equals, target = text.partition("=")
        if not (source and equals and target):
            raise InputError(f"--rename wants from=to, not {text!r}")
        if source in renamed:
            raise InputError(f"{source} is renamed twice")
        renamed[source] = target
    return renamed
