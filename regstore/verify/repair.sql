-- What a repair asks of the plan of a verification (`plan.py` says what its tables hold).

-- name: blobs
-- (kind, digest): blobs that are to be fetched.
select kind, digest from verify_fault where kind in ('blob missing', 'blob damaged') order by digest

-- name: to_rewrite
-- (name, area, digest, size, mtime, body): damaged links whose path says what they must hold.
select r.name, f.area, f.digest, f.size, f.mtime, f.body
from verify_fault f join repository r on r.id = f.repository
where f.kind = 'link damaged' and f.repairable and f.area in ('revision', 'layer')
order by 1, 2, 3

-- name: tags_to_fill
-- (name, tag, digest, size, mtime): empty links of tags, with the one manifest that their history holds.
select r.name, f.tag, o.digest, f.size, f.mtime
from verify_fault f
join repository r on r.id = f.repository
join {only_target} o on o.repository = f.repository and o.name = f.tag
where f.kind = 'link damaged' and f.repairable and f.area = 'tag'
order by 1, 2

-- name: to_restore
-- (name, area, tag, digest, kind, size, mtime, body, newest): links that are missing, or damaged beyond what their path
-- says. newest: what the history of a tag says last. Layer links first, then revisions, then tags.
select r.name, f.area, f.tag, f.digest, f.kind, f.size, f.mtime, f.body, (
        select arg_max(i.digest, i.mtime) from tag_index i where i.repository = f.repository and i.name = f.tag
    )
from verify_fault f join repository r on r.id = f.repository
where f.kind in ('link missing', 'link damaged') and not f.repairable and f.area in ('layer', 'revision', 'tag')
order by case f.area when 'layer' then 1 when 'revision' then 2 else 3 end, 1, 3, 4

-- name: history
-- (digest, mtime): what a tag has named.
select i.digest, i.mtime from tag_index i join repository r on r.id = i.repository
where r.name = $repository and i.name = $tag

-- name: struck
-- How many faults keep a manifest of a repository from being pulled whole.
select count(*)
from verify_reached x
join verify_fault f on f.id = x.fault
join repository r on r.id = x.repository
where r.name = $repository and x.digest = $digest and x.pull and f.kind in (
    'blob missing', 'blob damaged', 'blob unreadable', 'link unreadable', 'archived', 'link damaged', 'link missing'
)
