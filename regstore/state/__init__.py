"""What regstore keeps in the store beside the registry. This is the map; each module below writes and reads its part.

<root>/regstore/
  locks/<run>                     who is changing this store, and until when (`lock`)
  runs/<run>/run.json             what was asked for
  runs/<run>/<number>.jsonl.gz    every change before it was made (`journal`)
  runs/<run>/<shard>-<step>-<attempt>-<number>.jsonl.gz    the same, by other processes of the run
  runs/<run>/seen-<run>.jsonl.gz  links that came back by themselves: the journal's claim to them is void
  runs/<run>/done.json            what was done, once it was
  trash/<run>/<key as it was>     blobs that were taken away (`trashed`)
  migrate/tags/<pass>-*.ndjson    what migrate, a restore or an undo set tags to (`tag_record`)
  migrate/uploads/<random>.json   large uploads that a run began and has not completed (`unfinished_uploads`)
  counts.json                     what the last gc left (`counts`)
  registry.json                   what is remembered of the registry's cache (`registry_state`)
  id                              which folder this is; none in a bucket (`regstore.storage.identity`)
  probe-<random>                  for a moment only: what can the store do, and what time is it there; while a cluster
                                  copies to the store: what its executors must see

The keys stand in `regstore.layout`. On a store that is full, `elsewhere` keeps all of this in memory or in a folder.
`holder` is what a lock says, and `lock_view` how other processes work by it.
`process` tells whether the process that wrote a lock is gone, `pushed_again` gives tags back that were pushed as a run
took them, `known_cache` judges what is known of the registry's cache, and `not_freed` says what lies in the trash, and
why.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import Final

from regstore.layout import LOCKS, RUNS, TRASH

__all__ = ["LOCKS", "RUNS", "TRASH", "is_run", "new_run", "started_at"]

_RUN: Final = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
#: The last eight hex digits: so many bits of the second's fraction, then random ones.
_FRACTION: Final = 12
_RANDOM: Final = 32 - _FRACTION
#: Parts of a second that the fraction counts; the rest is for runs that must sort behind others.
_PARTS: Final = 3000


def new_run(now: int, after: str = "") -> str:
    """A name for a run, by the store's time in microseconds: sorts by time, and no two are the same.

    after: a run that it must sort behind, where both began in one second: a store's clock may tell whole ones only.
    """
    moment = datetime.fromtimestamp(now // 1_000_000, UTC)
    second = f"{moment:%Y%m%dT%H%M%SZ}"
    fraction = now % 1_000_000 * _PARTS // 1_000_000
    if after[:16] == second:
        fraction = max(fraction, (int(after[17:], 16) >> _RANDOM) + 1)
    number = min(fraction, (1 << _FRACTION) - 1) << _RANDOM | secrets.randbits(_RANDOM)
    return f"{second}-{number:08x}"


def is_run(text: str) -> bool:
    """Whether it is a name that a run can have had: with a date that there is."""
    if _RUN.fullmatch(text) is None:
        return False
    try:
        started_at(text)
    except ValueError:
        return False
    return True


def started_at(run: str) -> int:
    """When the run was named, to the second, in microseconds."""
    moment = datetime.strptime(run[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000
