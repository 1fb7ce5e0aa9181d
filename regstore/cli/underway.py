"""What the command of this process is about, for the words with which it ends when it is interrupted: which run, what
is done so far, and what to do next."""

from __future__ import annotations

from typing import Final

from regstore.events import Event, Progress
from regstore.words import counted, size

#: Phases that begin so only look, or wait.
_LOOKING: Final = ("listing", "reading", "looking", "packing", "waiting", "starting")
#: Phases that are named.
_NAMED: Final = 3
_UNDO: Final = "`regstore trash restore --run {run}` undoes what it did"
#: What to do after a command, by the name of its function, was cut short. {run}: its run.
_NEXT: Final = {
    "gc": f"the next gc finishes what was begun; {_UNDO}",
    "rm": f"say it again for the rest; {_UNDO}",
    "untag": f"say it again for the rest; {_UNDO}",
    "tag": "look with `regstore tags`, and say it again",
    "heal": "run it again: only the rest is given back",
    "verify": "run it again: it goes on with what is still damaged",
    "migrate": "run it again: only what DST lacks is copied, and DST is a correct registry meanwhile",
    "backup_restore": "run it again: only what STORE lacks is written; let no garbage-collect run before that",
    "import_layout": "run it again: only what STORE lacks is written",
    "export_layout": "run it again",
    "backup_check": "run it again: what was written anew stays",
    "backup_create": "there is no new snapshot; run it again: what was copied stays, and is not copied again",
    "backup_prune": "run it again for the rest: every snapshot that is still listed is complete",
    "trash_empty": "run it again for the rest",
    "trash_restore": "run it again: only the rest is put back",
    "seed_bucket": "run it again",
}


class _Underway:
    def __init__(self, command: str = "") -> None:
        self.command = command
        self.run = ""
        self.phases: dict[str, Progress] = {}


_now = _Underway()


def begin(command: str) -> None:
    """A command begins. command: the name of its function."""
    global _now
    _now = _Underway(command)


def note_run(run: str) -> None:
    """It holds a lock, in this run."""
    _now.run = run


def note(event: Event) -> None:
    if isinstance(event, Progress):
        _now.phases.pop(event.phase, None)  # the newest is last
        _now.phases[event.phase] = event


def how_far() -> str:
    """After the word that it was interrupted; "" for a command that changes nothing."""
    following = _NEXT.get(_now.command)
    changed = [phase for phase in _now.phases.values() if not phase.phase.startswith(_LOOKING)]
    if following is None or not (_now.run or changed):
        return ""
    run = f" in run {_now.run}" if _now.run else ""
    if not changed:
        return f"{run}, before it changed anything"
    done = "; ".join(map(amount, changed[-_NAMED:]))
    return f"{run}, after {done}: {following.format(run=_now.run)}"


def amount(phase: Progress) -> str:
    in_bytes = phase.unit in ("B", "bytes")
    if phase.total is None:
        amount = size(phase.done) if in_bytes else counted(phase.done, phase.unit, phase.unit)
    elif in_bytes:
        amount = f"{size(phase.done)} of {size(phase.total)}"
    else:
        amount = f"{phase.done:,} of {phase.total:,} {phase.unit}"
    return f"{phase.phase} ({amount})"
