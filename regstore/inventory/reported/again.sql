-- A second look at blobs of a report (`again.py`). All in the schema `main`, where a later look finds the same.

-- name: wanted
-- looking(position, digest, size, mtime): of the digests that a query gives, those not looked at yet, in the order of
-- their keys; size and mtime as `blob` has them, null where it has none. looked(digest, size, mtime): none yet.
create or replace temp table looking as
select row_number() over (order by octet_length(digest), digest) as position, digest, size, mtime
from (
    select w.digest, any_value(b.size) as size, any_value(b.mtime) as mtime
    from ({wanted}) w
    anti join main.reported_known k on k.digest = w.digest
    left join main.blob b on b.digest = w.digest
    where w.digest is not null
    group by w.digest
);
create or replace temp table looked (digest blob, size bigint, mtime bigint);
select (select count(*) from looking), (select count(*) from main.blob)

-- name: slice
select digest, mtime from looking where position between $first and $last order by position

-- name: compare
-- looked_otherwise(digest, gone): what the store does not have, or has otherwise than `blob` says.
create or replace temp table looked_otherwise as
select l.digest, f.digest is null as gone
from looking l left join looked f using (digest)
where f.size is distinct from l.size or f.mtime is distinct from l.mtime;

-- name: take_over
-- `blob` is as the store is.
delete from main.blob where digest in (select digest from looked_otherwise);
insert into main.blob select f.digest, f.size, f.mtime from looked f semi join looked_otherwise o using (digest);
insert into main.reported_known select digest from looking;
select count(*), count(*) filter (gone) from looked_otherwise

-- name: forget_absent
-- A later look: what was not there may have come since.
delete from main.reported_known where digest in (
    select digest from main.reported_known anti join main.blob using (digest)
)

-- name: forget_missing
-- Manifests that were asked for and are not there: so their blobs are not.
delete from main.blob where digest in (select digest from main.manifest where state = 'missing')

-- name: unlisted_children
-- Manifests that others name, and of which the report has no blob.
select target as digest from main.edge e anti join main.blob b on b.digest = e.target where kind = {manifest}

-- name: unlisted
-- All that anything names, and of which the report has no blob.
select digest from (
    select target as digest from layer_link
    union select digest from revision_link
    union select digest from signature_link
    union select target from tag
    union select target from main.edge where kind <> {subject}
) named
anti join main.blob b on b.digest = named.digest
