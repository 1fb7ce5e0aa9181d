-- name: one_time
-- (name) of the repositories in which a rule chooses the newest among tags that were set at one time.
with counted as (
    select f.repository, f.rule, f.name, f.target, f.time, f.fate, f.time_by, d.name is not null as goes
    from gc_tag_fate f
    left join gc_dropped_tag d on d.repository = f.repository and d.name = f.name
    where f.place is not null and f.time_by is not null
),
spans as (
    select repository, rule, time,
        count(*) filter (time_by = 'link') over (
            partition by repository, rule order by time range between current row and {within} following
        ) as tags,
        count(*) over (partition by repository, rule) as total
    from counted
),
most as (
    select repository, rule, arg_max(time, tags) as start, max(tags) as tags, any_value(total) as total
    from spans group by all
)
select distinct r.name
from most m
join counted c on c.repository = m.repository and c.rule = m.rule and c.time_by = 'link'
    and c.time between m.start and m.start + {within}
join repository r on r.id = m.repository
where m.tags * 2 > m.total
group by m.repository, m.rule, r.name
having count(distinct c.target) >= {manifests} and bool_or(c.goes) and bool_or(c.fate = '{newest}')
order by 1;
