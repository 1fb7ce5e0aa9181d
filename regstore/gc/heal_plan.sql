-- What is needed, gone, and can be given back (`heal_plan.py`): one round of it.

-- name: tags
-- (key, repository, name, tag, digest, mtime): tags whose current/link went although they had been pushed again, with
-- what their newest index link names.
select m.key, r.id, m.name, m.tag, arg_max(i.digest, i.mtime), max(i.mtime)
from removed_tag m
join repository r using (name)
join tag_index i on i.repository = r.id and i.name = m.tag and i.mtime > m.mtime
where not exists (from tag t where t.repository = r.id and t.name = m.tag)
group by m.key, r.id, m.name, m.tag order by m.key;

-- name: blobs
-- (digest, key, size): the newest copy in the trash of what is in {reach} and is no blob.
select t.digest, arg_max(t.key, t.run), arg_max(t.size, t.run)
from trash t semi join {reach} k on k.digest = t.digest anti join blob b on b.digest = t.digest
group by t.digest;

-- name: no_longer_missing
-- Manifests that were, and whose blob stands now: they are to be read.
delete from main.manifest where state = 'missing' and digest in (select digest from main.blob);

-- name: damaged
-- Copies of these $keys are no good.
delete from trash where key in (select unnest($keys::varchar[]));

-- name: reach_all
-- (repository, digest, expand) of all that anything names.
select repository, unnest([digest, target]) as digest, true as expand from revision_link
union all select repository, target, true from tag
union all select repository, unnest([digest, target]), false from layer_link
union all select repository, digest, false from signature_link
union all select repository, digest, true from legacy_revision
union all select -1, digest, followed from unknown_digest
