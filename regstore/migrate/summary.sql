-- The plan in numbers and names.

-- name: numbers
-- (name, number)
select 'live_blob', count(*) from live_blob
union all select 'live_layer_link', count(*) from live_layer_link
union all select 'live_revision', count(*) from live_revision
union all select 'live_signature', count(*) from live_signature
union all select 'live_tag_index', count(*) from live_tag_index
union all select 'live_tag', count(*) from live_tag
union all select 'migrate_blob', count(*) from migrate_blob
union all select 'bytes', coalesce(sum(size), 0)::bigint from migrate_blob
union all select 'migrate_layer_link', count(*) from migrate_layer_link
union all select 'migrate_revision', count(*) from migrate_revision
union all select 'migrate_signature', count(*) from migrate_signature
union all select 'migrate_tag_index', count(*) from migrate_tag_index
union all select 'migrate_tag', count(*) from migrate_tag
union all select 'unknown', count(*) from unknown
union all select 'uploads', count(distinct (repository, uuid)) from upload_part

-- name: deleted_tags
select name || ':' || tag from migrate_delete_tag order by name, tag

-- name: problems
select distinct class, repository, subject, reason from migrate_problem order by all

-- name: conflicts
select m.target, c.name, digest_text(c.target), coalesce(digest_text(c.was), '')
from migrate_conflict c join migrate_repository m on m.id = c.repository order by 1, 2

-- name: shares
-- (name, target, blobs, bytes, layer links, revisions, tags) of each repository that lacks anything.
with reached as (
    select repository, digest from reach union select repository, target from live_layer_link
),
blobs as (
    select r.repository, count(*) as blobs, sum(b.size)::bigint as size
    from reached r join migrate_blob b using (digest) group by all
),
layers as (select repository, count(*) as n from migrate_layer_link group by all),
revisions as (select repository, count(*) as n from migrate_revision group by all),
tags as (select repository, count(*) as n from migrate_tag group by all)
select m.name, m.target, coalesce(blobs.blobs, 0), coalesce(blobs.size, 0), coalesce(layers.n, 0),
    coalesce(revisions.n, 0), coalesce(tags.n, 0)
from migrate_repository m
left join blobs on blobs.repository = m.id
left join layers on layers.repository = m.id
left join revisions on revisions.repository = m.id
left join tags on tags.repository = m.id
where coalesce(blobs.blobs, layers.n, revisions.n, tags.n) is not null
order by m.name
