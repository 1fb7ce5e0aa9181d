-- Links that no table of the inventory says enough of.

-- name: archived
-- (key, class) of links that a listing calls archived, or reading told.
select distinct key, class from archived where starts_with(key, '{repositories}')

-- name: forget_archived
delete from verify_archived_link

-- name: unproven
-- (name, area, repository, tag, revision, digest, size, mtime) of those that the listing did not prove.
select r.name, 'history', x.repository, x.name, null, digest, size, mtime
from tag_index x join repository r on r.id = x.repository where not sound
union all
select r.name, 'signature', x.repository, null, revision, digest, size, mtime
from signature_link x join repository r on r.id = x.repository where not sound

-- name: forget_odd
delete from verify_odd_link
