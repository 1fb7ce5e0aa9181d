"""What a check found: a line for each thing looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from regstore.errors import EXIT_FAILURE, EXIT_OK, EXIT_PARTIAL


class Outcome(StrEnum):
    OK = "ok"
    WARN = "warn"  # it works, and will not for ever, or leaves something behind
    FAIL = "fail"
    NOT_TRIED = "not tried"  # the detail says why


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckLine:
    """name: `port`, `certificate`, `push`, … detail: one sentence without a full stop. cure: what to do, "" where
    nothing is to be done."""

    name: str
    outcome: Outcome
    detail: str
    cure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """url: as it was asked. lines: in the order in which they were tried."""

    url: str
    lines: tuple[CheckLine, ...]

    def of(self, name: str) -> CheckLine | None:
        return next((line for line in self.lines if line.name == name), None)

    def count(self, outcome: Outcome) -> int:
        return sum(line.outcome is outcome for line in self.lines)

    @property
    def exit_code(self) -> int:
        """0 all was proved; 1 something failed; 3 nothing failed, but something is to be seen to, or was not tried."""
        if self.count(Outcome.FAIL):
            return EXIT_FAILURE
        return EXIT_OK if self.count(Outcome.OK) == len(self.lines) else EXIT_PARTIAL


def ok(name: str, detail: str) -> CheckLine:
    return CheckLine(name=name, outcome=Outcome.OK, detail=detail)


def warn(name: str, detail: str, cure: str) -> CheckLine:
    return CheckLine(name=name, outcome=Outcome.WARN, detail=detail, cure=cure)


def fail(name: str, detail: str, cure: str) -> CheckLine:
    return CheckLine(name=name, outcome=Outcome.FAIL, detail=detail, cure=cure)


def not_tried(name: str, why: str) -> CheckLine:
    return CheckLine(name=name, outcome=Outcome.NOT_TRIED, detail=why)


class Red(Exception):
    """One thing is not as it must be: its line's detail and cure. Never leaves this package."""

    def __init__(self, detail: str, cure: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.cure = cure

    def line(self, name: str) -> CheckLine:
        return fail(name, self.detail, self.cure)
