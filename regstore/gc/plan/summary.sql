-- The plan in numbers and words.

-- name: freed
-- gc_freed(repository, digest): what the links that go name, each once.
create or replace temp view gc_freed as
with alias as (
    select distinct x.repository, x.target as digest
    from layer_link x semi join gc_dead_layer_link using (repository, digest) where x.target <> x.digest
)
from gc_dead_revision
union all
from gc_dead_layer_link anti join gc_dead_revision using (repository, digest)
union all
from alias anti join gc_dead_revision using (repository, digest) anti join gc_dead_layer_link using (repository, digest);

-- name: freed_by_others
-- The same, empty: to be filled from shards.
create or replace temp table gc_freed (repository integer, digest blob);

-- name: numbers
-- (what, number, bytes), and of what is young (links, oldest, ahead, latest).
with orphan as (select b.size from gc_dead_blob b anti join gc_freed f on f.digest = b.digest),
upload as (select repository, uuid from upload_part union select repository, uuid from multipart_upload),
written as (
    select true as is_blob, size, mtime from blob
    union all select false, 0, mtime from tag
    union all select false, 0, mtime from revision_link
    union all select false, 0, mtime from layer_link
)
select 'blob' as what, count(*) as number, sum(size)::bigint as bytes from blob
union all by name select 'dead blob' as what, count(*) as number, sum(size)::bigint as bytes from gc_dead_blob
union all by name select 'orphan' as what, count(*) as number, sum(size)::bigint as bytes from orphan
union all by name select 'revision' as what, count(*) as number from revision_link
union all by name select 'dead revision' as what, count(*) as number from gc_dead_revision
union all by name select 'layer link' as what, count(*) as number from layer_link
union all by name select 'dead layer link' as what, count(*) as number from gc_dead_layer_link
union all by name select 'tag' as what, count(*) as number from tag
union all by name select 'dead tag' as what, count(*) as number from gc_dead_tag
union all by name select 'tag index' as what, count(*) as number from tag_index
union all by name select 'dead tag index' as what, count(*) as number from gc_dead_tag_index
union all by name select 'signature' as what, count(*) as number from signature_link
union all by name select 'dead signature' as what, count(*) as number from gc_dead_signature
union all by name select 'upload' as what, count(*) as number from upload
union all by name select 'dead upload' as what, count(*) as number, sum(size)::bigint as bytes from gc_dead_upload
union all by name select 'litter' as what, count(*) as number from litter
union all by name select 'dead litter' as what, count(*) as number from gc_dead_litter
union all by name select 'repository' as what, count(*) as number from repository
union all by name select 'unknown' as what, count(*) as number from unknown
union all by name
select 'young' as what, count(*) filter (is_blob) as number, sum(size)::bigint as bytes,
    count(*) filter (not is_blob) as links, min(mtime) as oldest,
    count(*) filter (mtime > $ahead) as ahead, max(mtime) filter (mtime > $ahead) as latest
from written where mtime >= $cutoff;

-- name: words
-- (kind, repository, text): why a repository is 'protected'; the 'untagged', that have no tag but such
-- as follow what they name, and would lose all revisions for want of one; each 'problem', with its repository in it.
select distinct 'protected' as kind, r.name as repository, p.reason as text
from gc_protected p join repository r on r.id = p.repository
union all
select 'untagged', r.name, ''
from (select repository, count(*) as revisions from gc_dead_revision group by repository) d
join (select repository, count(*) as revisions from revision_link group by repository) v using (repository, revisions)
join repository r on r.id = d.repository
anti join (from tag anti join gc_follower using (repository, name)) t on t.repository = d.repository
where $delete_untagged
union all
select 'problem', '', r.name || ': tag ' || t.name || ' names ' || digest_text(t.target)
    || ', which the repository does not link; what it reaches is kept'
from tag t
join repository r on r.id = t.repository
anti join revision_link x on x.repository = t.repository and x.digest = t.target
where t.target is not null
union all
select 'problem', '', r.name || ': the link of tag ' || t.name || ' ' || link_fault(t.size, t.target, t.unread)
from tag t join repository r on r.id = t.repository where t.target is null and t.unread is null
union all
select 'problem', '', r.name || ': the link of layer ' || digest_text(l.digest) || ' ' || link_fault(l.size, l.target, l.unread)
from layer_link l join repository r on r.id = l.repository
where l.unread is null and (l.target is null or l.target <> l.digest and is_sha256(l.digest));

-- name: shares
-- What goes from each repository, as `RepositoryShare` says it, but for its bytes.
with dead as (
    select repository, 'tag' as kind from gc_dead_tag
    union all select repository, 'tag_index' from gc_dead_tag_index
    union all select repository, 'revision' from gc_dead_revision
    union all select repository, 'signature' from gc_dead_signature
    union all select repository, 'layer_link' from gc_dead_layer_link
    union all select repository, 'upload' from gc_dead_upload
    union all select repository, 'litter' from gc_dead_litter where repository is not null
),
every as (
    select repository from tag union all select repository from tag_index
    union all select repository from revision_link union all select repository from signature_link
    union all select repository from layer_link
    union all select repository
    from (select repository, uuid from upload_part union select repository, uuid from multipart_upload)
),
totals as (select repository, count(*) as keys from every group by repository),
odd as (
    select distinct r.id as repository
    from repository r
    semi join (
        select key[{repositories_length} + 1:] as rest from unknown where starts_with(key, '{repositories}')
    ) u on strpos(u.rest, '/_') > 0 and r.name = u.rest[:strpos(u.rest, '/_') - 1]
),
share as (
    select repository,
        count(*) filter (kind = 'tag') as tags,
        count(*) filter (kind = 'revision') as revisions,
        count(*) filter (kind = 'layer_link') as layer_links,
        count(*) filter (kind = 'upload') as uploads,
        count(*) filter (kind <> 'litter') as keys
    from dead group by repository
)
select r.name, tags, revisions, layer_links, uploads,
    s.keys = coalesce(t.keys, 0) and o.repository is null as emptied
from share s
join repository r on r.id = s.repository
left join totals t on t.repository = s.repository
left join odd o on o.repository = s.repository;

-- name: bytes
-- (name, bytes) of the dead blobs that each repository's dead links name.
select r.name, sum(b.size)::bigint
from gc_freed f
join gc_dead_blob b on b.digest = f.digest
join repository r on r.id = f.repository
group by r.name;

-- name: rules
-- (rule, tags, dropped, unknown_times, own_times), of each rule that is about any tag.
select f.rule, count(*), count(*) filter (d.name is not null), count(*) filter (fate = '{unknown_time}'),
    count(*) filter (time_by <> 'created')
from gc_tag_fate f left join gc_dropped_tag d on d.repository = f.repository and d.name = f.name
where f.rule is not null
group by f.rule;

-- name: broken
-- What can't be read and goes, as `BrokenRevision` says it.
with pointing as (select repository, digest, list(name order by name) as tags from gc_broken_tag group by all)
select r.name, digest_text(b.digest) as digest, b.reason, coalesce(p.tags, [])
from gc_broken_revision b
join repository r on r.id = b.repository
left join pointing p on p.repository = b.repository and p.digest = b.digest;
