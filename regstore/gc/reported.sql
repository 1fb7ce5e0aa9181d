-- What a plan goes by, of blobs that a report says (`reported.py`).

-- name: gone_by
-- (digest) of the blobs that go, and of the manifests in repositories that lose anything by what else is in them.
select digest from gc_dead_blob
union
select digest from (
    select repository, digest from revision_link
    union all select repository, digest from legacy_revision
    union all select repository, target from tag where target is not null
) semi join (from gc_unlink where step <> {upload}) using (repository)

-- name: read_anew
-- Manifests of blobs that are gone or otherwise (looked_otherwise) are to be read once more.
delete from main.edge where source in (select digest from looked_otherwise);
delete from main.manifest where digest in (select digest from looked_otherwise)

-- name: leave_trashed
-- What lies in the trash may be gone since the report: it is no blob unless somebody has looked.
delete from main.blob where digest in (select digest from trash anti join main.reported_known using (digest))
