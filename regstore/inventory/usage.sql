-- What a registry's storage is used for.

-- name: roots
-- All that a repository links, whatever it is.
select repository, digest, true as expand from revision_link
union all select repository, target, true from tag
union all select repository, digest, true from legacy_revision
union all select repository, unnest([digest, target]), false from layer_link
union all select repository, digest, false from signature_link

-- name: used_blobs
-- used_blob(repository, digest, size, users): the blobs that a repository uses, and how many do.
create or replace table used_blob as
select u.repository, b.digest, b.size, count(*) over (partition by b.digest) as users
from (select distinct repository, digest from used) u join blob b on b.digest = u.digest

-- name: repositories
-- (name, tags, revisions, blobs, bytes of its own, shared bytes, bytes of uploads)
with bytes as (
    select repository, count(*) as blobs, sum(size) filter (users = 1) as own,
        sum(size) filter (users > 1) as shared
    from used_blob group by repository
),
tags as (select repository, count(*) as number from tag group by repository),
revisions as (select repository, count(*) as number from revision_link group by repository),
uploads as (
    select repository, sum(size) as bytes from (
        select repository, size from upload_part union all select repository, size from multipart_upload
    ) group by repository
)
select r.name, coalesce(t.number, 0), coalesce(v.number, 0), coalesce(b.blobs, 0),
    coalesce(b.own, 0)::bigint, coalesce(b.shared, 0)::bigint, coalesce(u.bytes, 0)::bigint
from repository r
left join bytes b on b.repository = r.id left join tags t on t.repository = r.id
left join revisions v on v.repository = r.id left join uploads u on u.repository = r.id

-- name: store
-- (blobs, bytes, shared blobs, bytes of these, unused blobs, bytes of these)
with users as (select digest, max(users) as users from used_blob group by digest)
select count(*), coalesce(sum(b.size), 0)::bigint,
    count(*) filter (u.users > 1), coalesce(sum(b.size) filter (u.users > 1), 0)::bigint,
    count(*) filter (u.users is null), coalesce(sum(b.size) filter (u.users is null), 0)::bigint
from blob b left join users u on u.digest = b.digest

-- name: unread
-- A line for each manifest and link that the store has and did not give.
select 'manifest ' || digest_text(digest) || ' can''t be read: ' || reason
from manifest where state = 'unreadable'
union all
select r.name || ': the link of tag ' || t.name || ' can''t be read: ' || unread
from tag t join repository r on r.id = t.repository where unread is not null
union all
select r.name || ': the link of revision ' || digest_text(digest) || ' can''t be read: ' || unread
from revision_link t join repository r on r.id = t.repository where unread is not null
union all
select r.name || ': the link of layer ' || digest_text(digest) || ' can''t be read: ' || unread
from layer_link t join repository r on r.id = t.repository where unread is not null
order by 1 limit $most
