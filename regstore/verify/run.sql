-- What a verification asks its inventory between its looks at the store.

-- name: archived_and_needed
-- (key) of what a listing calls archived and some tag needs; a manifest that is known was read all the same.
select a.key from archived_blob a
join verify_fault f on f.digest = a.digest and f.kind = 'archived'
anti join manifest m on m.digest = a.digest
where a.class <> ''
union select key from verify_archived_link where class <> ''

-- name: suspect
-- reading_suspect(digest): what has another size than a manifest says is read first.
create or replace table reading_suspect as select distinct digest from verify_fault where kind = 'size differs'

-- name: other_sizes
-- (digest) of blobs that have another size than a manifest says.
select distinct r.stored as digest from verify_required r semi join (
    from verify_fault where kind = 'size differs'
) f on f.digest = r.digest

-- name: proven
create or replace table verify_proven as select digest from reading_done

-- name: forget_known
delete from verify_rotten;
delete from verify_unread

-- name: remember_faults
-- verify_seen: what this look found.
create or replace temp table verify_seen as select {identity} from verify_fault

-- name: new_faults
select {identity} from verify_fault except from verify_seen

-- name: missing_blobs
select distinct digest from verify_fault where kind = 'blob missing'

-- name: forget_bad_manifests
-- They are read once more.
delete from manifest where state in ('mismatch', 'unreadable')

-- name: forget_found_manifests
delete from manifest where state = 'missing' and digest in (select digest from blob)

-- name: vanished
-- `given` (digest): what vanished since it was listed.
delete from blob where digest in (select digest from given)

-- name: repositories_concerned
select name from repository where id in (
    select repository from verify_at union select repository from verify_fault
) order by name

-- name: forget_repositories
-- All that was listed below them.
create or replace temp table anew as select id, name from repository where name in (select unnest($names::varchar[]));

delete from layer_link where repository in (select id from anew);
delete from revision_link where repository in (select id from anew);
delete from signature_link where repository in (select id from anew);
delete from tag where repository in (select id from anew);
delete from tag_index where repository in (select id from anew);
delete from upload_part where repository in (select id from anew);
delete from unknown u using anew a where starts_with(u.key, repository_key(a.name, '_'));
delete from litter u using anew a where starts_with(u.key, repository_key(a.name, '_'));
delete from archived u using anew a where starts_with(u.key, repository_key(a.name, '_'))
