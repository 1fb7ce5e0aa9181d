-- What a plan goes by, of blobs that a report says (`reported.py`).

-- name: relied_on
-- (digest) of the manifests in repositories that lose anything by what else is in them.
select distinct digest from (
    select repository, digest from revision_link
    union all select repository, digest from legacy_revision
    union all select repository, target from tag where target is not null
) semi join (from gc_unlink where step <> {upload}) using (repository)

-- name: gone_by
-- (digest) of the blobs that go, and of these manifests.
select digest from gc_dead_blob union {relied_on}

-- name: last_repository
-- The last id of those that were listed.
select coalesce(max(id), 0) from repository

-- name: read_anew
-- Manifests of blobs that are gone or otherwise (looked_otherwise) are to be read once more. The repositories of which
-- litter is all that there is are the plan's own: to another one they would be some of which links are left.
delete from repository where id > $last;
delete from main.edge where source in (select digest from looked_otherwise);
delete from main.manifest where digest in (select digest from looked_otherwise)

-- name: leave_trashed
-- What lies in the trash may be gone since the report: it is no blob unless somebody has looked.
delete from main.blob where digest in (select digest from trash anti join main.reported_known using (digest))
