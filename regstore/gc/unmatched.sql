-- How many there are of what a condition (SQL, filled in) is true of.

-- name: repositories
select count(*) from (select name as repo from repository) where {condition};

-- name: tags
-- Columns: repo, name; rule, the position of the rule that is about it, or null; goes.
select count(*)
from (
    select r.name as repo, t.name, t.rule, d.name is not null as goes
    from gc_tag_rule t
    join repository r on r.id = t.repository
    left join gc_dropped_tag d on d.repository = t.repository and d.name = t.name
)
where {condition};
