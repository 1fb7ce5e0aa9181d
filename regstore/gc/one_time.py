"""Tags that all seem to have been set at one time: what `cp -r`, `aws s3 sync` or a push of everything leaves behind.

Which of them are the newest is then an accident of the copy. Tags that name one manifest are set together by every CI
(1, 1.0, 1.0.3 and latest), and are no sign; nor is a busy hour in a repository with a longer past. So the rule: a place
in `keep_newest` falls among tags by their own links' times, of which at least four manifests' were set within an hour,
and these are more than half of those that the rule counts in that repository. Where all or none of them go, their order
does not matter. Times by the record (`state.tag_record`) are the tags' own, and no sign either.
"""

from __future__ import annotations

from typing import Final

from regstore.gc.policy import Policy
from regstore.gc.retention import Fate
from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import Statements

#: A repository is copied within so long, in microseconds.
_COPIED_WITHIN: Final = 3600 * 1_000_000
_MANIFESTS: Final = 4
_SQL: Final = Statements(
    "regstore.gc", "one_time.sql", newest=Fate.NEWEST, within=str(_COPIED_WITHIN), manifests=str(_MANIFESTS)
)


def find_one_time(inventory: Inventory, policy: Policy | None) -> tuple[str, ...]:
    """Names of repositories in which a rule chooses the newest among such tags. Reads gc_tag_fate."""
    if policy is None or not any(rule.keep_newest for rule in policy.rules):
        return ()
    rows = _SQL.run(inventory, "one_time").fetchall()
    return tuple(name for (name,) in rows)
