-- The plan in numbers and names.

-- name: counts
select kind, count(*) from verify_fault group by kind order by kind

-- name: numbers
-- (name, number)
select 'repositories', count(*) from repository
union all select 'tags', count(*) from tag
union all select 'revisions', count(*) from revision_link
union all select 'layer_links', count(*) from layer_link
union all select 'blobs', count(*) from blob
union all select 'blob_bytes', coalesce(sum(size), 0)::bigint from blob
union all select 'unknown', count(*) from unknown

-- name: touched_tags
-- (all, those that can't be pulled whole) by damage.
select count(*), count(*) filter (pull) from (
    select v.repository, v.tag, bool_or(v.pull) as pull
    from verify_touched v join verify_fault f on f.id = v.fault where f.kind <> 'manifest unreadable'
    group by v.repository, v.tag
)

-- name: absences
-- (name, number), of what is normal.
select 'foreign', count(distinct digest) from verify_named anti join blob using (digest)
where kind = {foreign_layer} and not linked and not followed
union all
select 'sparse', count(*) from (
    select distinct repository, digest from verify_named where kind = {manifest} and not followed
)
union all
select 'leftovers', count(*) from layer_link l
anti join blob b on b.digest = l.target
anti join verify_required r on r.repository = l.repository and r.digest = l.digest
where l.target is not null and (l.target = l.digest or not is_sha256(l.digest))
union all
select 'signatures', count(*) from signature_link anti join blob using (digest)
union all
select 'cached', count(distinct stored) from verify_required r anti join blob b on b.digest = r.stored
where {pull_through} and stored is not null

-- name: faults
select f.id, f.kind, f.area, f.detail, r.name, f.digest, f.tag, f.repairable
from verify_fault f left join repository r on r.id = f.repository order by f.id limit {most}

-- name: tags_of_faults
select v.fault, r.name, v.tag, v.pull from verify_touched v join repository r on r.id = v.repository
where v.fault <= $last order by 1, 2, 3

-- name: repositories_of_faults
select distinct a.fault, r.name from verify_at a join repository r on r.id = a.repository
where a.fault <= $last order by 1, 2
