-- Blobs that came after the newest link, and that no link names. Times in microseconds.

-- name: newest_link
-- When the newest link was written; null where there is none.
select max(mtime)
from (
    select mtime from tag union all select mtime from tag_index
    union all select mtime from revision_link union all select mtime from layer_link
);

-- name: unlinked
-- unlinked_blob(digest, size, mtime): those that came after $since. linked: the digests that links name.
create or replace table unlinked_blob as
with late as materialized (select digest, size, mtime from blob where mtime > $since)
from late anti join ({linked}) l on l.digest = late.digest;

-- name: linked
select digest from layer_link
union all select digest from revision_link
union all select target from layer_link where target <> digest
union all select target from tag where target is not null

-- name: sums
-- (blobs, bytes, the days on which they came).
select count(*), coalesce(sum(size), 0)::bigint, coalesce(list(distinct mtime // $day), []) from unlinked_blob;

-- name: small
-- Some of them that may be manifests by their size.
select digest from unlinked_blob where size between $least and $most order by digest limit $number;
