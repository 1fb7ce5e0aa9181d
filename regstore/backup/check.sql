-- Blobs that the packs of a backup need, held against those that are listed.

-- name: tables
-- needed(digest, size), as packs say it; listed(digest, size, mtime).
create table needed (digest blob, size bigint);
create table listed (digest blob, size bigint, mtime bigint);

-- name: need
-- Each needed blob once; (number, bytes) of them.
create or replace table needed as select digest, max(size) as size from needed group by digest;
select count(*), coalesce(sum(size), 0)::bigint from needed;

-- name: found
-- The inventory's `blob`: those that are listed with their size.
insert into blob select l.* from listed l semi join needed n using (digest, size);

-- name: lacking
-- (digest, size, size as listed): those that are not; null where they are not listed at all.
select n.digest, n.size, l.size
from needed n left join listed l on l.digest = n.digest
where l.size is distinct from n.size;

-- name: unneeded
-- (number, bytes) of the listed that nothing needs.
select count(*), coalesce(sum(size), 0)::bigint from listed anti join needed using (digest);

-- name: sizes
select digest, size from needed where digest in (select unnest($digests::blob[]));
