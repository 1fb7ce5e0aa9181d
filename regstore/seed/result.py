"""What seeding was asked to do, and what it found and did: one `Check` for each thing looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from regstore.errors import InputError
from regstore.storage.base import PutOptions

#: What a registry cannot do without.
NEEDED: Final = ("write", "read", "list", "delete")


@dataclass(frozen=True, kw_only=True)
class SeedOptions:
    """check: only look, write nothing at all. apply_settings: bring a bucket that was there before to the settings
    below too, by adding what lacks; on a bucket created here they are always applied.

    block_public_access, encryption, lifecycle: which settings are wanted. abort_uploads_after: days.
    put: how the registry stores its objects, where that is known; the seeds are stored alike.
    """

    check: bool = False
    apply_settings: bool = False
    block_public_access: bool = True
    encryption: bool = True
    lifecycle: bool = True
    abort_uploads_after: int = 7
    put: PutOptions | None = None

    def __post_init__(self) -> None:
        if self.check and self.apply_settings:
            raise InputError("a check writes nothing: it cannot apply settings")
        if self.abort_uploads_after < 1:
            raise InputError("uploads can be aborted after 1 day at the earliest")


class Outcome(StrEnum):
    OK = "ok"  # as it should be, before this run already
    DONE = "done"  # made so by this run
    MISSING = "missing"  # not there; a run without `check` makes it
    DIFFERS = "differs"  # a setting that is otherwise, and was left alone
    UNKNOWN = "unknown"  # the credentials may not see it, and nothing depends on that
    DENIED = "denied"  # the credentials may not do this
    UNSUPPORTED = "unsupported"  # the server does not know this
    FAILED = "failed"
    SKIPPED = "skipped"  # not wanted, or it would have meant writing


@dataclass(frozen=True, slots=True)
class Check:
    """name: `bucket`, `folder`, `seed blobs`, `permission write`, `public access`, `health 2.6`, …

    required: a registry does not work without it. detail: one sentence.
    """

    name: str
    outcome: Outcome
    detail: str = ""
    required: bool = False

    @property
    def good(self) -> bool:
        return self.outcome in (Outcome.OK, Outcome.DONE, Outcome.SKIPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedResult:
    """configuration: the registry's, as the tree of its config.yml, with no credentials.
    environment: the same for a compose file, credentials as references to variables (`${AWS_ACCESS_KEY_ID}`)."""

    url: str
    checks: tuple[Check, ...]
    configuration: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str) -> Check | None:
        return next((check for check in self.checks if check.name == name), None)

    @property
    def broken(self) -> tuple[Check, ...]:
        """What a registry needs and was denied, or failed."""
        bad = (Outcome.DENIED, Outcome.FAILED)
        return tuple(check for check in self.checks if check.required and check.outcome in bad)

    @property
    def missing(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.required and check.outcome is Outcome.MISSING)

    @property
    def warnings(self) -> tuple[Check, ...]:
        """What is no obstacle, but not as wanted."""
        return tuple(check for check in self.checks if not check.required and not check.good)
