-- Which blobs are read, and in what order. Digests are random by themselves: their first bits make even parts.

-- name: blobs
-- reading_blob(digest, size, time, proved, manifest, suspect): what can be read; proved: when, null where it never was;
-- suspect: to be read first. No blob that is archived: it is known to give nothing.
create or replace table reading_blob as
with listed as (
    select b.digest, b.size, coalesce(c.time, b.mtime) as time
    from blob b left join reading_changed c on c.digest = b.digest
    anti join archived_blob a on a.digest = b.digest
)
select b.digest, b.size, b.time, nullif(p.proved, 0) as proved, m.digest is not null as manifest,
    s.digest is not null or coalesce(p.proved = 0, false) as suspect
from listed b
left join reading_proof p on p.digest = b.digest and p.size = b.size and p.time = b.time
left join (select distinct digest from manifest where state in ('ok', 'invalid', 'mismatch', 'unreadable')) m
    on m.digest = b.digest
left join reading_suspect s on s.digest = b.digest;

-- name: bytes
-- Bytes of all that is read for its own sake: a scan reads manifests.
select coalesce(sum(size), 0)::bigint from reading_blob where not manifest;

-- name: pick
-- reading_pick(place, digest, size, time): what is chosen, in order; $budget: bytes to begin within, null for all.
create or replace table reading_pick as
with chosen as (
    select digest, size, time,
        row_number() over (order by suspect desc, proved nulls first, md5(hex(digest) || $seed)) as place
    from reading_blob where not manifest and {chosen}
),
running as (
    select *, sum(size) over (order by place rows unbounded preceding) - size as before from chosen
)
select place, digest, size, time from running where $budget::bigint is null or before < $budget::bigint;
