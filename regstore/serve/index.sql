-- What the pages show, made once from an inventory in which `usage` has made used_blob; and the pages' own queries.

-- name: prepare
-- image_size(digest, size): bytes that each tagged manifest and all that it names take, each blob once.
-- Only manifests are followed step by step, which are few; what they name is joined once, and may spill to disk.
-- `union all`: what `union` has seen stays in memory, whatever the limit. No manifest reaches itself, so it ends.
create or replace table image_size as
with recursive root as (select distinct target as digest from tag where target is not null),
reached(root, digest) as (
    select distinct r.digest, e.target from root r join edge e on e.source = r.digest
    where e.kind in ({manifest}, {entry})
    union all
    select distinct r.root, e.target from reached r join edge e on e.source = r.digest
    where e.kind in ({manifest}, {entry})
),
-- one image: what it names is there once, but for those that name something twice
of_images as (
    select r.digest as root, e.target as digest from root r join edge e on e.source = r.digest where e.kind <> {subject}
    union
    select r.root, e.target from reached r join edge e on e.source = r.digest where e.kind <> {subject}
),
summed as (select o.root, sum(b.size) as size from of_images o join blob b on b.digest = o.digest group by o.root)
select r.digest, (coalesce(b.size, 0) + coalesce(s.size, 0))::bigint as size
from root r left join blob b on b.digest = r.digest left join summed s on s.root = r.digest;

-- tag_of(repository, name, subject): tags such as sha256-<hex>, with the manifest of their repository that each names in
-- full or cut.
create or replace temp table tag_of as
with named as (select repository, name from tag where is_digest_tag(name))
select t.repository, t.name, min(v.digest) as subject
from named t
join revision_link v on v.repository = t.repository and names_digest(t.name, v.digest)
group by t.repository, t.name;

-- page_tag(repository, name, digest, pushed, size, media_type, subject, state): every tag. digest: null where its link
-- names nothing. subject: of a tag such as sha256-<hex>, the manifest of this repository that it names; null where there
-- is none, and then it stands for itself. state: null where all is well.
create or replace table page_tag as
select t.repository, t.name, t.target as digest, t.mtime as pushed, coalesce(s.size, 0) as size, m.media_type,
    f.subject,
    case
        when t.unread is not null then 'its link can''t be read: ' || t.unread
        when t.target is null then 'its link is damaged'
        when m.state is null then 'its manifest was not read'
        when m.state <> 'ok' then 'its manifest is ' || m.state || coalesce(': ' || m.reason, '')
    end as state
from tag t
left join manifest m on m.digest = t.target
left join image_size s on s.digest = t.target
left join tag_of f on f.repository = t.repository and f.name = t.name;

-- page_repository(id, name, tags, revisions, blobs, own, shared, total, pushed): own: bytes that nobody else uses.
create or replace table page_repository as
with bytes as (
    select repository, count(*) as blobs, sum(size) filter (users = 1) as own, sum(size) filter (users > 1) as shared
    from used_blob group by repository
),
tags as (
    select repository, count(*) filter (subject is null) as tags, max(pushed) as pushed from page_tag group by repository
),
revisions as (select repository, count(*) as revisions, max(mtime) as pushed from revision_link group by repository)
select r.id, r.name, coalesce(t.tags, 0) as tags, coalesce(v.revisions, 0) as revisions,
    coalesce(b.blobs, 0) as blobs, coalesce(b.own, 0)::bigint as own, coalesce(b.shared, 0)::bigint as shared,
    (coalesce(b.own, 0) + coalesce(b.shared, 0))::bigint as total,
    greatest(t.pushed, v.pushed) as pushed
from repository r
left join bytes b on b.repository = r.id
left join tags t on t.repository = r.id
left join revisions v on v.repository = r.id;

-- page_totals: one row of repositories, tags, manifests, blobs, bytes, bytes that several repositories use, bytes that
-- none uses.
create or replace table page_totals as
select
    (select count(*) from page_repository) as repositories,
    (select count(*) from page_tag where subject is null) as tags,
    (select count(*) from revision_link) as manifests,
    (select count(*) from blob) as blobs,
    (select coalesce(sum(size), 0)::bigint from blob) as bytes,
    (select coalesce(sum(size), 0)::bigint from (select distinct digest, size from used_blob where users > 1)) as shared,
    (select coalesce(sum(b.size), 0)::bigint from blob b anti join used_blob u on u.digest = b.digest) as unused;

-- page_attached(repository, subject, name, digest, media_type, size): what belongs to a manifest, by a digest tag, its
-- name, or by a subject of its own.
create or replace table page_attached as
select repository, subject, name, digest, media_type, size from page_tag where subject is not null
union all
select r.repository, e.target, null, e.source, coalesce(m.artifact_type, m.media_type), m.size
from edge e join manifest m on m.digest = e.source join revision_link r on r.digest = e.source
where e.kind = {subject};

-- name: totals
from page_totals

-- name: level
-- What stands at one level of the tree of names: folders (how many repositories are below) and repositories.
with below as (
    select *, name[length($path) + 1:] as rest from page_repository where starts_with(name, $path)
),
rows as (
    select split_part(rest, '/', 1) as label, name, 1 as repositories, tags, blobs, own, total, pushed
    from below where not contains(rest, '/')
    union all
    select split_part(rest, '/', 1), null, count(*), sum(tags)::bigint, sum(blobs)::bigint, sum(own)::bigint, null,
        max(pushed)
    from below where contains(rest, '/')
    group by 1
)
select label, name, repositories, tags, blobs, own, total, pushed, count(*) over () as found
from rows order by {order} limit $limit offset $offset

-- name: find_repositories
-- Repositories whose name contains the words, as `level` gives them.
select name as label, name, 1 as repositories, tags, blobs, own, total, pushed, count(*) over () as found
from page_repository where contains(name, $words)
order by {order} limit $limit offset $offset

-- name: repository
select id, name, tags, revisions, blobs, own, shared, total, pushed from page_repository where name = $name

-- name: tags
-- A repository's tags that are not digest tags, filtered by any column (`listing.tag_filter`): by a part of the name, how
-- the digest begins, the types, when they were pushed; and always by the size.
select name, digest, pushed, size, media_type, state, count(*) over () as found
from page_tag
where repository = $repository and subject is null
    and (
        contains(name, $words) or digest between $low and $high or list_contains($types, media_type)
        or pushed >= $since and pushed < $until
    )
    and size between $smallest and $largest
order by {order} limit $limit offset $offset

-- name: attached
-- What belongs to manifests, at most so much of each.
select subject, name, digest, media_type, size from page_attached
where repository = $repository and subject in (select unnest($subjects))
qualify row_number() over (partition by subject order by name nulls last, digest) <= $limit

-- name: tags_of
select name from page_tag where repository = $repository and digest = $digest order by name limit 100

-- name: image_total
-- What a tagged manifest and all that it names take, each blob once.
select size from image_size where digest = $digest

-- name: layer_users
-- For each of these digests: its bytes, and how many repositories use it.
select digest, any_value(size), any_value(users) from used_blob where digest in (select unnest($digests)) group by digest

-- name: users
-- The repositories that use a blob.
select r.name, r.id, count(*) over () as found
from used_blob u join repository r on r.id = u.repository where u.digest = $digest order by r.name limit 500

-- name: named_by
-- The manifests that name a digest, with the first of the tags that lead to each, and their number; kind as
-- `manifest.EdgeKind`.
with naming as (
    select v.repository, r.name, e.source, e.kind
    from edge e
    join revision_link v on v.digest = e.source
    join repository r on r.id = v.repository
    where e.target = $digest
    order by r.name, e.source limit 500
)
select n.name, n.source, n.kind, min(t.name), count(t.name)
from naming n left join page_tag t on t.repository = n.repository and t.digest = n.source
group by n.name, n.source, n.kind order by n.name, n.source

-- name: find_tags
select r.name, t.name, t.digest, t.pushed from page_tag t join repository r on r.id = t.repository
where t.subject is null and contains(t.name, $words) order by t.pushed desc limit $limit

-- name: find_digests
-- Revisions and blobs whose digest lies between two, which are the first and the last that begin with some digits.
select digest, max(kind), any_value(size) from (
    select digest, 'manifest' as kind, size from manifest where digest between $low and $high
    union all
    select digest, 'blob', size from blob where digest between $low and $high
) group by digest order by digest limit $limit

-- name: largest
-- Repositories by the bytes that are theirs alone and those they share.
select name, own, shared from page_repository where total > 0 order by own + shared desc, name limit $limit

-- name: damage
select count(*) from manifest where state in ('missing', 'mismatch', 'invalid', 'too large', 'unreadable')
    and digest in (select digest from revision_link)
