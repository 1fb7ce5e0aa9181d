-- What a listing of a source in use may have seen half of.

-- name: unlisted_blobs
-- (digest) that young links name, and that were not listed.
select distinct target from (
    select target, mtime from layer_link
    union all select target, mtime from revision_link
    union all select target, mtime from tag
) young
anti join blob b on b.digest = young.target
where mtime >= $young and target is not null

-- name: unlisted_links
-- (repository, its name, digest, whether it is a manifest) that young manifests and tags name, and that nothing links.
select distinct r.repository, n.name, e.target, e.kind = {manifest}
from revision_link r join edge e on e.source = r.digest join repository n on n.id = r.repository
where r.mtime >= $young and e.kind not in ({subject}, {foreign_layer})
    and not exists (from layer_link l where l.repository = r.repository and l.digest = e.target)
    and not exists (from revision_link x where x.repository = r.repository and x.digest = e.target)
union
select t.repository, n.name, t.target, true from tag t join repository n on n.id = t.repository
where t.mtime >= $young and t.target is not null
    and not exists (from revision_link x where x.repository = t.repository and x.digest = t.target)

-- name: links_to_nothing
-- (table, repository, its name, digest, tag, target) of links to a manifest that is missing.
select 'revision_link', x.repository, n.name, x.digest, null, x.target
from revision_link x join manifest m using (digest) join repository n on n.id = x.repository
where m.state = 'missing'
union all
select 'layer_link', x.repository, n.name, x.digest, null, x.target
from layer_link x semi join legacy_revision v on v.repository = x.repository and v.digest = x.digest
join manifest m using (digest) join repository n on n.id = x.repository
where m.state = 'missing'
union all
select 'tag', x.repository, n.name, null, x.name, x.target
from tag x join manifest m on m.digest = x.target join repository n on n.id = x.repository
where m.state = 'missing'

-- name: forget_link
delete from {table} where repository = $repository and {column} = $label

-- name: moved_tag
update tag set target = $target, mtime = $now where repository = $repository and name = $tag
