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

#: A repository is copied within so long, in microseconds.
_COPIED_WITHIN: Final = 3600 * 1_000_000
_MANIFESTS: Final = 4


def find_one_time(inventory: Inventory, policy: Policy | None) -> tuple[str, ...]:
    """Names of repositories in which a rule chooses the newest among such tags. Reads gc_tag_fate."""
    if policy is None or not any(rule.keep_newest for rule in policy.rules):
        return ()
    rows = inventory.all(
        f"""
        with counted as (
            select f.repository, f.rule, f.name, f.target, f.time, f.fate, f.time_by, d.name is not null as goes
            from gc_tag_fate f
            left join gc_dropped_tag d on d.repository = f.repository and d.name = f.name
            where f.place is not null and f.time_by is not null
        ),
        spans as (
            select repository, rule, time, count(*) filter (time_by = 'link') over (
                partition by repository, rule order by time
                range between current row and {_COPIED_WITHIN} following) as tags,
                count(*) over (partition by repository, rule) as total
            from counted
        ),
        most as (
            select repository, rule, arg_max(time, tags) as start, max(tags) as tags, any_value(total) as total
            from spans group by all
        )
        select distinct r.name from most m
        join counted c on c.repository = m.repository and c.rule = m.rule and c.time_by = 'link'
            and c.time between m.start and m.start + {_COPIED_WITHIN}
        join repository r on r.id = m.repository
        where m.tags * 2 > m.total
        group by m.repository, m.rule, r.name
        having count(distinct c.target) >= {_MANIFESTS}
            and bool_or(c.goes) and bool_or(c.fate = '{Fate.NEWEST}')
        order by 1
        """
    )
    return tuple(name for (name,) in rows)
