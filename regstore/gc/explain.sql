-- Why tags stay or go, read from a plan's tables.

-- name: dropped
-- What the rules take, by repository and name; of each repository the newest first. For a cursor of its own.
select r.name, d.name, f.target, d.rule, f.time, f.time_by
from main.gc_dropped_tag d
join main.gc_tag_fate f using (repository, name)
join main.repository r on r.id = d.repository
order by r.name, f.place, d.name

-- name: repository
select id from repository where name = $repository;

-- name: protected
select distinct reason from gc_protected where repository = $number order by 1;

-- name: tags
-- (name, target, goes, broken, rule, fate, time, time_by, place) of each tag of a repository, or of one. broken: what
-- it points at, where that can't be read and may go.
select t.name, t.target, d.name is not null, b.digest, f.rule, f.fate, f.time, f.time_by, f.place
from tag t
left join gc_dead_tag d on d.repository = t.repository and d.name = t.name
left join gc_broken_tag b on b.repository = t.repository and b.name = t.name
left join gc_tag_fate f on f.repository = t.repository and f.name = t.name
where t.repository = $number and ($tag::varchar is null or t.name = $tag)
order by t.name;
