-- What is not right in the scope, in words. Of each repository alone.

-- name: table
-- migrate_problem(class, repository, subject, reason)
create or replace table migrate_problem (class varchar, repository varchar, subject varchar, reason varchar)

-- name: find
-- After `difference`, of what is left in live_*. What may be wrong with a layer link is found by joins, each of which
-- spills: an `in` beneath an `or` would hold all blobs in memory.
insert into migrate_problem
with wrong_layer_link as (
    select repository, digest from layer_link where not is_sound_layer_link(digest, target)
    union
    select l.repository, l.digest from layer_link l anti join blob b on b.digest = l.target where {missing}
    union
    select l.repository, l.digest from layer_link l semi join migrate_blocked k on k.digest = l.target
),
lacking as (
    select x.repository, x.digest, e.target
    from live_revision x
    join edge e on e.source = x.digest
    anti join blob b on b.digest = e.target
    where {missing} and e.kind not in ({subject}, {manifest}, {foreign_layer})
)
-- a protected repository
select 'protected', m.name, '', p.reason
from migrate_protected p join migrate_repository m on m.id = p.repository

union all -- layer links
select 'damaged', m.name, 'layer link ' || digest_text(x.digest), case
    when x.unread is not null or not is_sound_layer_link(x.digest, x.target)
        then link_fault(x.size, x.target, x.unread)
    when b.digest is not null then 'names a manifest that is damaged, or can''t be read'
    else 'names a blob that is missing' end
from wrong_layer_link join layer_link x using (repository, digest)
join migrate_repository m on m.id = x.repository left join blob b on b.digest = x.target
where {reached}

union all -- revisions
select 'damaged', m.name, 'revision ' || digest_text(x.digest), case
    when x.target is distinct from x.digest then 'has a link that ' || link_fault(x.size, x.target, x.unread)
    else 'can''t be read: ' || d.reason end
from revision_link x join migrate_repository m on m.id = x.repository left join manifest d using (digest)
where {reached} and (x.target is distinct from x.digest
    or d.state in ('mismatch', 'unreadable') or d.state = 'missing' and {missing})

union all -- tags
select 'damaged', m.name, 'tag ' || t.name, case
    when t.target is null then 'has a link that ' || link_fault(t.size, t.target, t.unread)
    else 'names ' || digest_text(t.target) || ', which is no readable revision here' end
from tag t join migrate_repository m on m.id = t.repository
semi join migrate_scope_tag s on s.repository = t.repository and s.name = t.name
anti join live_tag l on l.repository = t.repository and l.name = t.name
where {missing} or t.target is null

union all -- tags of the target that can't be seen: they are not written over
select 'damaged', m.target, 'tag ' || x.name,
    'stands at the target, can''t be read there, and is not written over without --overwrite-tags: ' || x.unread
from migrate_tag_difference x join migrate_repository m on m.id = x.repository where x.fate = 'unread'

union all -- what is copied all the same
select distinct 'incomplete', m.name, 'revision ' || digest_text(e.digest),
    'names ' || digest_text(e.target) || ', which the source does not have'
from lacking e join migrate_repository m on m.id = e.repository
anti join (select l.repository, l.digest from layer_link l join blob b on b.digest = l.target) held
    on held.repository = e.repository and held.digest = e.target

-- name: reached
-- With tag patterns: only what is reached is anybody's concern.
exists (from reach k where k.repository = x.repository and k.digest = x.digest)

-- name: any
true
