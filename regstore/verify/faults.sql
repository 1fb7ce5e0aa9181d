-- What is wrong, a rule each. `faults` puts together what they find.

-- name: known
-- What is known besides the inventory, each a table that stays where it is there: verify_rotten and verify_unread(digest,
-- detail): blobs that were read and are damaged, and that the store did not give. verify_proven(digest): that were right.
-- verify_odd_link: links of histories and of schema1's signatures that were read and are wrong, or could not be read.
-- verify_archived_link: links that a listing calls archived; verify_at_hand(key): what is archived and could be read.
create table if not exists verify_rotten (digest blob not null, detail varchar not null);
create table if not exists verify_unread (digest blob not null, detail varchar not null);
create table if not exists verify_proven (digest blob not null);
create table if not exists verify_odd_link (
    area varchar, repository integer, tag varchar, revision blob,
    digest blob, size bigint, mtime bigint, body blob, unread varchar
);
create table if not exists verify_archived_link (
    key varchar, class varchar, area varchar, repository varchar, digest blob, tag varchar
);
create table if not exists verify_at_hand (key varchar not null);

-- name: nothing_found
-- verify_found(step, sort, kind, area, repository, digest, tag, size, mtime, body, repairable, detail): what the rules
-- find. Each has a statement of its own, for all of them in one would need the memory of all at once.
create or replace table verify_found (
    step integer, sort varchar, kind varchar, area varchar, repository integer, digest blob, tag varchar,
    size bigint, mtime bigint, body blob, repairable boolean, detail varchar
)

-- name: found
insert into verify_found by name {rule}

-- name: faults
-- verify_fault(id, kind, area, repository, digest, tag, size, mtime, body, repairable, detail), in the order of the
-- rules.
create or replace table verify_fault as
with blob_fault as (
    select step, kind, digest, min(detail) as detail from verify_found where area is null group by step, kind, digest
),
of_manifest as (
    select digest from manifest semi join blob_fault using (digest) where state <> 'missing'
    union
    select digest from revision_link semi join blob_fault using (digest)
),
fault as (
    select f.*, case when m.digest is null then 'blob' else 'manifest' end as area
    from blob_fault f left join of_manifest m on m.digest = f.digest
    union all by name
    select * from verify_found where area is not null
)
select row_number() over (order by step, sort, repository, tag, digest) as id, kind, area, repository, digest, tag,
    size, mtime, body, coalesce(repairable, false) as repairable, detail
from fault

-- name: keep
-- Those that `among` has too, a table with the columns of IDENTITY.
delete from verify_fault f where not exists (
    from {among} a where a.kind = f.kind and a.area = f.area
        and a.repository is not distinct from f.repository
        and a.digest is not distinct from f.digest and a.tag is not distinct from f.tag
)

-- name: at
-- verify_at(fault, repository, digest): where a fault strikes.
create or replace table verify_at as
select distinct f.id as fault, s.repository, s.stored as digest
from verify_fault f join verify_required s on s.stored = f.digest
where f.repository is null and f.kind in ('blob missing', 'blob damaged', 'blob unreadable', 'archived')
union all
select distinct f.id, s.repository, s.digest from verify_fault f join verify_required s on s.digest = f.digest
where f.kind = 'size differs'
union all
select distinct f.id, s.repository, s.digest from verify_fault f join verify_followed s on s.digest = f.digest
where f.kind = 'manifest unreadable'
union all
select id, repository, digest from verify_fault
where repository is not null and digest is not null and area in ('layer', 'revision')
union all
select f.id, o.repository, o.revision from verify_fault f join verify_odd_link o
    on o.area = f.area and o.repository = f.repository and o.digest = f.digest
where f.area = 'signature'

-- Rules about blobs: (step, kind, digest, detail). `step` is the rule's place.

-- name: blob_missing
select distinct {step} as step, 'blob missing' as kind, stored as digest, 'its blob is not there' as detail
from verify_required r anti join blob b on b.digest = r.stored where stored is not null

-- name: blob_damaged
select {step} as step, 'blob damaged' as kind, digest, reason as detail from manifest where state = 'mismatch'
union all
select {step}, 'blob damaged', digest, detail from verify_rotten

-- name: blob_unreadable
select {step} as step, 'blob unreadable' as kind, digest, detail
from (
    select digest, detail from verify_unread
    union all
    select digest, 'it can''t be read: ' || reason from manifest where state = 'unreadable'
) anti join archived_blob using (digest)

-- name: blob_archived
select {step} as step, 'archived' as kind, digest, {archived} as detail from archived_blob a
semi join verify_required r on r.stored = a.digest
anti join verify_at_hand h on h.key = a.key
anti join (from manifest where state in ('ok', 'mismatch', 'invalid')) m on m.digest = a.digest

-- name: manifest_unreadable
select {step} as step, 'manifest unreadable' as kind, digest, reason as detail from manifest
where state in ('invalid', 'too large') and digest in (select digest from verify_followed)

-- name: size_differs
-- From what a manifest says. Of a damaged blob that is no news.
with differing as materialized (
    select n.source, n.digest, n.size as said, n.digest as stored, b.size
    from verify_need n join blob b on b.digest = n.digest
    where is_sha256(n.digest) and n.size >= 0 and b.size <> n.size
    union all
    select n.source, n.digest, n.size, a.stored, b.size
    from verify_need n join verify_alias a on a.repository = n.repository and a.digest = n.digest
    join blob b on b.digest = a.stored
    where n.size >= 0 and b.size <> n.size
),
proven as (
    select p.digest from verify_proven p semi join differing d on d.stored = p.digest
    union
    select m.digest from manifest m semi join differing d on d.stored = m.digest where m.state in ('ok', 'invalid')
)
select {step} as step, 'size differs' as kind, d.digest,
    'manifest ' || digest_text(d.source) || ' says ' || d.said || ' bytes, it has ' || d.size || case
        when p.digest is not null then '; its own bytes are right, the manifest is wrong'
        else '' end as detail
from differing d
left join proven p on p.digest = d.stored
anti join (from manifest where state = 'mismatch') m on m.digest = d.stored
anti join verify_rotten r on r.digest = d.stored

-- Rules about links: (step, sort, kind, area, repository, digest, tag, size, mtime, body, repairable, detail), or of
-- these what they have; of each repository alone.

-- name: link_unreadable
select {step} as step, sort, 'link unreadable' as kind, x.area, x.repository, x.digest, x.tag, x.size, x.mtime,
    'it can''t be read: ' || x.unread as detail
from (
    select '1' as sort, 'revision' as area, repository, digest, null as tag, size, mtime, unread from revision_link
    union all
    select '2', 'layer', repository, digest, null, size, mtime, unread from layer_link
    union all
    select '3', 'tag', repository, null, name, size, mtime, unread from tag
) x
join repository r on r.id = x.repository
anti join verify_archived_link a on a.area = x.area and a.repository = r.name
    and a.digest is not distinct from x.digest and a.tag is not distinct from x.tag
where x.unread is not null

-- name: odd_link_unreadable
select {step} as step, area as sort, 'link unreadable' as kind, area, repository, digest, tag, size, mtime,
    'it can''t be read: ' || unread as detail
from verify_odd_link where unread is not null

-- name: link_archived
select {step} as step, a.area as sort, 'archived' as kind, a.area, r.id as repository, a.digest, a.tag,
    {archived} as detail
from verify_archived_link a join repository r on r.name = a.repository
anti join verify_at_hand h on h.key = a.key

-- name: link_damaged
with damaged as materialized (
    from (
        select '1' as sort, 'revision' as area, * from revision_link union all select '2', 'layer', * from layer_link
    )
    where unread is null
        and (target is null or target <> digest and (area = 'revision' or is_sha256(digest)))
),
held as (select distinct digest from blob semi join damaged using (digest))
select {step} as step, sort, 'link damaged' as kind, area, repository, d.digest, size, mtime,
    case when target is null then body else coalesce(body, encode(digest_text(target))) end as body,
    is_sha256(d.digest) and h.digest is not null and not {pull_through} as repairable,
    'it ' || link_fault(size, target, null) as detail
from damaged d left join held h on h.digest = d.digest

-- name: tag_damaged
select {step} as step, 'link damaged' as kind, 'tag' as area, repository, name as tag, size, mtime, body,
    'it ' || link_fault(size, target, null) as detail
from tag where target is null and unread is null

-- name: odd_link_damaged
select {step} as step, area as sort, 'link damaged' as kind, area, repository, digest, tag, size, mtime, body,
    'it ' || case when size = 0 then link_fault(size, null::blob, null) else 'has ' || size || ' bytes that are not this digest' end
    as detail
from verify_odd_link where unread is null

-- name: tag_missing
select {step} as step, 'link missing' as kind, 'tag' as area, repository, arg_max(digest, mtime) as digest,
    name as tag, 'its history is there, its current/link is not' as detail
from tag_index i anti join tag t on t.repository = i.repository and t.name = i.name
group by repository, name

-- name: link_missing
select {step} as step, 'link missing' as kind, area, repository, digest, min(detail) as detail from (
    select 'revision' as area, t.repository, t.target as digest,
        'a tag names it, and the repository does not link it' as detail
    from tag t
    anti join verify_linked l on l.repository = t.repository and l.digest = t.target
    where t.target is not null
    union all
    select 'revision', repository, digest,
        'an index names it, and what it names is linked, but not the manifest itself'
    from verify_followed where lost
    union all
    select 'layer', repository, digest,
        'manifest ' || digest_text(source) || ' names it, and the repository does not link it'
    from verify_need where not linked and kind not in ({manifest}, {foreign_layer})
) group by area, repository, digest

-- Pieces of them.

-- name: archived
-- What is said of a row of `archived`. class: "" where reading told.
case class
    when '' then 'it is archived, as reading it tells (a listing does not show what Intelligent-Tiering archives)'
    else 'its storage class is ' || class end || ': nobody can pull it before it is restored'
