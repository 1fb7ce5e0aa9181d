-- What a backup packs of each repository, in the order of their names. Of each repository alone, but for blobs.

-- name: roots
-- For `Reachability`: what repositories link.
select repository, digest, true as expand from revision_link
union all select repository, target, true from tag
union all select repository, digest, true from legacy_revision

-- name: chosen
-- backup_chosen(place, repository): the ids of those in `given` (place, name).
create or replace temp table backup_chosen as
select g.place, r.id as repository from given g join repository r using (name)

-- name: weights
-- (place, rows) of those that have any: how much there is to read of each.
with named as materialized (
    select repository, count(*) as number from (
        select repository from layer_link
        union all select repository from revision_link
        union all select repository from signature_link
        union all select repository from tag
        union all select repository from tag_index
        union all
        select t.repository from backup_reach t join edge e on e.source = t.digest where t.expand
    ) group by repository
)
select c.place, n.number from named n join backup_chosen c using (repository) order by c.place

-- name: sorted
-- Where there is much: so that a few repositories are read without the others.
create or replace temp table {table} as from ({query}) order by place

-- name: between
from {table} where place between $first and $last

-- name: drop
drop table {table}

-- Each begins with the place of the repository.

-- name: layer_links
select c.place, t.digest, t.target from layer_link t join backup_chosen c using (repository)
where t.target is not null

-- name: revision_links
select c.place, t.digest, t.target, link_fault(t.size, t.target, t.unread)
from revision_link t join backup_chosen c using (repository)

-- name: legacy_revisions
-- What has a layer link alone, and is known to be a manifest by its signatures or a tag. The link's target and fault.
with known as (
    from legacy_revision
    union
    select repository, target from tag
    anti join revision_link r on r.repository = tag.repository and r.digest = tag.target
    where target is not null
)
select c.place, l.digest, l.target, link_fault(l.size, l.target, l.unread)
from known k join layer_link l on l.repository = k.repository and l.digest = k.digest
join backup_chosen c on c.repository = k.repository

-- name: signature_links
select c.place, t.revision, t.digest from signature_link t join backup_chosen c using (repository)

-- name: tag_index
select c.place, t.name, t.digest from tag_index t join backup_chosen c using (repository)

-- name: tags
select c.place, t.name, t.target, t.mtime, link_fault(t.size, t.target, t.unread)
from tag t join backup_chosen c using (repository)

-- name: edges
-- Of what each repository reaches: what it names, and as what.
select c.place, e.source, e.target, e.kind
from (from backup_reach where expand) t join backup_chosen c using (repository)
join edge e on e.source = t.digest

-- name: manifests
-- Likewise, what is known of it.
select c.place, m.digest, m.state, m.reason, m.media_type
from (from backup_reach where expand) t join backup_chosen c using (repository)
join manifest m on m.digest = t.digest

-- name: blobs
-- That each repository may need, and their bytes.
select c.place, b.digest, b.size
from (
    select repository, digest from backup_reach
    union select repository, target from layer_link
    union select repository, digest from signature_link
) t join backup_chosen c using (repository)
join blob b on b.digest = t.digest
