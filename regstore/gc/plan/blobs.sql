-- Which blobs go.

-- name: unresolved
-- (why): what may keep any blob, one reason of some. Only its body tells which blob a link by another algorithm means.
select 'the layer link ' || digest_text(x.digest) || ' of ' || r.name || ' can''t be read'
from {layer_link} x join repository r on r.id = x.repository
where not is_sha256(x.digest) and x.target is null
union all
select 'an unknown key names ' || digest_text(digest) from unknown_digest where not is_sha256(digest)
limit 1

-- name: exchange
-- live_blob and unknown_reach, empty: to be filled from shards (`shards`).
create or replace temp table live_blob (digest blob);
create or replace temp table unknown_reach (digest blob);

-- name: live
-- live_blob(digest): what a repository reaches, and what the links that stay name.
create or replace temp table live_blob as
select digest from reach where repository <> {nowhere}
union
select digest from {layer_link}
union
select target from {layer_link} where target <> digest
union
select digest from {revision_link}
union
select target from {revision_link} where target <> digest
union
select digest from {signature_link};

-- name: reached_by_unknown
-- unknown_reach(digest): what unknown keys name, with all that it reaches.
create or replace temp table unknown_reach as select distinct digest from reach where repository = {nowhere};

-- name: dead_blob
insert into gc_dead_blob
select b.digest, b.size, b.mtime
from blob b anti join live_blob l on l.digest = b.digest
where b.mtime < $cutoff;

-- name: hold
-- Out of gc_dead_blob, what unknown keys alone reach: (blobs, bytes), and of these keys the first (key).
create or replace temp table held_blob as from unknown_reach anti join live_blob using (digest);
create or replace temp table held as
select count(*) as blobs, coalesce(sum(size), 0)::bigint as bytes, null::varchar as key
from gc_dead_blob semi join held_blob using (digest)
union all
select null, null, key
from (
    select distinct key
    from (
        select key, path_digest(unnest(regexp_extract_all(key, '{digest_path}'))) as digest
        from unknown where starts_with(key, '{repositories}')
    ) semi join held_blob using (digest)
    order by key limit {named}
);
delete from gc_dead_blob where digest in (from held_blob);
select blobs, bytes, key from held order by blobs nulls last, key;
