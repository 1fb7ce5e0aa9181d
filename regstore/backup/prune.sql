-- What a backup holds, and whether anything that stays needs it.

-- name: tables
-- need(digest, size): blobs that the packs need which stay; need_pack(digest): these packs. present: packs, blobs and
-- left temporary files; dead, young: as `judge` says.
create table need (digest blob not null, size bigint not null);
create table need_pack (digest blob not null);
create table present (
    kind varchar, key varchar, digest blob, size bigint, mtime bigint, dead boolean, young boolean
);

-- name: judge
-- dead: nothing needs it. young: only the grace keeps it; of temporary files that is an hour at the least.
update present set
    young = mtime >= case kind when 'temporary' then $young_temporary else $young end,
    dead = true;
update present set dead = false where kind = 'blob' and digest in (select digest from need);
update present set dead = false where kind = 'pack' and digest in (select digest from need_pack);

-- name: lost
-- Needed blobs that are not there with their size.
select distinct n.digest
from need n anti join present p on p.kind = 'blob' and p.digest = n.digest and p.size = n.size
order by 1;

-- name: sums
-- (number, bytes) of what is present and meets a {condition}.
select count(*), coalesce(sum(size), 0)::bigint from present where {condition};

-- name: going
-- (key, size) of what goes, of one kind.
select key, size from present where kind = $kind and dead and not young order by key;
