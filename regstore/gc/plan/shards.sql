-- What shards of a store ask and tell each other.

-- name: asked
-- asked_manifest(digest, round): those that the shard has asked for.
create or replace temp table asked_manifest (digest blob, round integer);

-- name: ask
-- The next round: what its repositories name as manifests, and what the manifests that it was given do.
insert into asked_manifest
with named as (
    select digest from revision_link
    union all select target from tag
    union all select digest from tag_index
    union all select digest from legacy_revision
    union all select digest from unknown_digest
    union all select target from edge where kind = {manifest}
)
select distinct digest, $round from named anti join asked_manifest using (digest) where digest is not null;

-- name: by_digest
-- linked_digest(digest), freed_blob(digest, name), named_by_unknown(digest, key): to be read by others.
create or replace temp view linked_digest as select distinct digest from ({linked});
create or replace temp view freed_blob as
select f.digest, r.name from gc_freed f join repository r on r.id = f.repository;
create or replace temp view named_by_unknown as
select path_digest(unnest(regexp_extract_all(key, '{digest_path}'))) as digest, key
from unknown where starts_with(key, '{repositories}');

-- name: no_by_digest
create or replace temp table linked_digest (digest blob);
create or replace temp table freed_blob (digest blob, name varchar);
create or replace temp table named_by_unknown (digest blob, key varchar);

-- name: take_by_digest
-- What others told, in the places where the plan looks for it.
insert into repository
select row_number() over (), name from (select distinct name from freed_blob);
insert into gc_freed select r.id, f.digest from freed_blob f join repository r using (name);
insert into unknown select distinct key, 0, 0 from named_by_unknown;
