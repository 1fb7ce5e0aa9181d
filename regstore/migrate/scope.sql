-- Which repositories and tags a pass is about. Of each repository alone.

-- name: repositories
-- migrate_repository(id, name, target, dst): those of the scope, and what each is called at the target. dst: its id
-- there, null where it has none. From chosen(id, name, target).
create or replace table migrate_repository as
select c.id, c.name, c.target, d.id as dst from chosen c left join dst.repository d on d.name = c.target

-- name: tags
-- migrate_scope_tag(repository, name, target): their tags that match a pattern; with no pattern all.
create or replace table migrate_scope_tag as
select repository, name, target from tag
where repository in (select id from migrate_repository) and (
    len($patterns::varchar[]) = 0
    or exists (select 1 from (select unnest($patterns::varchar[]) as pattern) where name glob pattern)
)

-- name: matched_patterns
select pattern from (select unnest($patterns::varchar[]) as pattern)
where exists (select 1 from migrate_scope_tag where name glob pattern)
