-- What the target (`dst`) lacks of live_*, or has differently: a blob by digest and size, a link by its body. Of each
-- repository alone, but for blobs.

-- name: blobs
-- migrate_blob(digest, size, suspect)
create or replace table migrate_blob as
select l.digest, l.size, l.suspect or d.size is not null as suspect
from live_blob l left join dst.blob d using (digest)
where d.size is distinct from l.size

-- name: layer_links
-- migrate_layer_link(repository, digest, target)
create or replace table migrate_layer_link as
select l.repository, l.digest, l.target
from live_layer_link l join migrate_repository m on m.id = l.repository
left join dst.layer_link d on d.repository = m.dst and d.digest = l.digest
where d.target is distinct from l.target

-- name: revisions
-- migrate_revision(repository, digest, rank): a manifest's rank is above that of every manifest it names, for children
-- are written first.
create or replace table migrate_revision as
with recursive parent as materialized (
    select e.source, e.target from edge e
    semi join live_revision s on s.digest = e.source
    semi join live_revision t on t.digest = e.target
    where e.kind <> {subject}
),
-- `union all`: what `union` has seen stays in memory, whatever the limit. No manifest reaches itself, so it ends.
above as (
    select distinct source as digest, 1 as rank from parent
    union all
    select distinct p.source, a.rank + 1 from above a join parent p on p.target = a.digest
),
ranked as (select digest, max(rank)::integer as rank from above group by digest)
select l.repository, l.digest, coalesce(k.rank, 0) as rank
from live_revision l join migrate_repository m on m.id = l.repository left join ranked k using (digest)
left join dst.revision_link d on d.repository = m.dst and d.digest = l.digest
where d.target is distinct from l.digest

-- name: signatures
-- migrate_signature(repository, revision, digest)
create or replace table migrate_signature as
select l.repository, l.revision, l.digest
from live_signature l join migrate_repository m on m.id = l.repository
left join dst.signature_link d on d.repository = m.dst and d.revision = l.revision and d.digest = l.digest
    and d.size = link_size(d.digest)
where d.digest is null

-- name: tag_differences
-- migrate_tag_difference(repository, name, target, mtime, present, was, unread, fate). present, was, unread: of the
-- target's. fate: 'set'; 'conflict' where somebody else set it since, or always; 'unread' where the target does not
-- give it.
create or replace table migrate_tag_difference as
with ours as (
    select distinct m.id as repository, r.tag as name
    from migrate_record r
    join migrate_repository m on m.target = r.repository and m.name = r.origin
    join dst.tag d on d.repository = m.dst and d.name = r.tag
    where r.place = $place and (r.digest = d.target or r.was = d.target and d.mtime <= r.written)
)
select l.repository, l.name, l.target, l.mtime, d.name is not null as present, d.target as was, d.unread,
    case
        when $overwrite or d.name is null then 'set'
        when d.unread is not null then 'unread'
        when o.name is not null then 'set'
        else 'conflict'
    end as fate
from live_tag l join migrate_repository m on m.id = l.repository
left join dst.tag d on d.repository = m.dst and d.name = l.name
left join ours o on o.repository = l.repository and o.name = l.name
where d.target is distinct from l.target

-- name: tags
-- migrate_tag, migrate_conflict(repository, name, target, mtime, present, was); migrate_tag_index(repository, name,
-- digest).
create or replace table migrate_tag as
select repository, name, target, mtime, present, was from migrate_tag_difference where fate = 'set';

create or replace table migrate_conflict as
select repository, name, target, mtime, present, was from migrate_tag_difference where fate = 'conflict';

create or replace table migrate_tag_index as
select l.repository, l.name, l.digest
from live_tag_index l join migrate_repository m on m.id = l.repository
anti join migrate_conflict c on c.repository = l.repository and c.name = l.name
left join dst.tag_index d on d.repository = m.dst and d.name = l.name and d.digest = l.digest
    and d.size = link_size(d.digest)
where d.digest is null

-- name: no_deletions
create or replace table migrate_delete_tag (origin varchar, name varchar, tag varchar, digest blob)

-- name: recorded
-- Which repository of the source became which at the target.
select distinct origin, repository from migrate_record where place = $place

-- name: deletions
-- migrate_delete_tag(origin, name, tag, digest): tags that our record says we set from this source, the target still has
-- so, and the source has no longer. Of deletable(origin, repository).
create or replace table migrate_delete_tag as
select r.origin, r.repository as name, r.tag, r.digest
from migrate_record r semi join deletable using (origin, repository)
join dst.repository dr on dr.name = r.repository
join dst.tag d on d.repository = dr.id and d.name = r.tag and d.target = r.digest
where r.place = $place and not exists (
    from tag t join repository s on s.id = t.repository where s.name = r.origin and t.name = r.tag
)

-- name: deletable
-- How many tags they have that we set.
select count(*) from migrate_record r semi join deletable using (origin, repository)
join dst.repository o on o.name = r.repository
join dst.tag d on d.repository = o.id and d.name = r.tag and d.target = r.digest where r.place = $place
