-- Links that journals say we removed, and that are to be given back.

-- name: missing
-- heal_missing: the rows of `removed` whose link does not stand.
create or replace temp table heal_missing as
select r.id as repository, m.*
from removed m
join repository r using (name)
anti join (
    select repository, digest, true as is_revision from revision_link
    union all
    select repository, digest, false from layer_link
) x on x.repository = r.id and x.digest = m.digest and x.is_revision = (m.step = {revision});

-- name: needed
-- (repository, step, digest, key, body) of what comes back. looked_for: what a registry looks for among the layers before it takes a manifest.
with recursive old as (select distinct repository, digest, step from heal_missing where over is not null),
found as (
    select o.repository, o.digest, o.step, i.mtime
    from old o
    join tag_index i on i.repository = o.repository and i.digest = o.digest
    where o.step = {revision}
    union all
    select o.repository, o.digest, o.step, i.mtime
    from old o
    join edge e on e.target = o.digest and e.kind = {manifest}
    join tag_index i on i.repository = o.repository and i.digest = e.source
    where o.step = {revision}
    union all
    select o.repository, o.digest, o.step, v.mtime
    from old o
    join edge e on e.target = o.digest and e.kind in ({looked_for})
    join revision_link v on v.repository = o.repository and v.digest = e.source
    where o.step = {layer}
),
last as (select repository, digest, step, max(mtime) as mtime from found group by repository, digest, step),
claim as materialized (
    select c.*
    from heal_missing c left join last l using (repository, digest, step)
    where c.over is null or l.mtime is null or l.mtime <= c.over
),
home as (select distinct repository from claim),
linked as (
    select repository, digest from revision_link semi join home using (repository)
    union
    select repository, digest from legacy_revision semi join home using (repository)
    union
    select repository, digest from claim where step = {revision}
),
root as (
    select repository, digest, true as as_manifest from revision_link semi join home using (repository)
    union
    select repository, digest, true from legacy_revision semi join home using (repository)
    union
    select repository, target, true from tag semi join home using (repository)
    union
    -- The body of a link by another algorithm says which blob is meant.
    select repository, target, false from layer_link semi join home using (repository) where target <> digest
),
-- `union all`: what `union` has seen stays in memory, whatever the limit. No manifest reaches itself, so it ends.
need as (
    from root where digest is not null
    union all
    select distinct n.repository, e.target, e.kind = {manifest}
    from need n
    join linked l on l.repository = n.repository and l.digest = n.digest
    join edge e on e.source = n.digest
    where n.as_manifest and e.kind not in ({needs_nothing})
)
select c.repository, c.step, c.digest, c.key, arg_max(c.body, c.run)
from claim c
join need n on n.repository = c.repository and n.digest = c.digest
where n.as_manifest or c.step = {layer}
group by c.repository, c.step, c.digest, c.key;
