-- What a shard of repositories asks of the rest of the store.

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
