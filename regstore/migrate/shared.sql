-- What repositories have in common, by digest: blobs, and what must not be written since something that it reaches
-- can't be copied. A part of the repositories, planned alone, gives and takes these relations and no others.

-- name: blobs
-- live_blob(digest, size, suspect): what the scope uses. suspect: a descriptor says another size, so that it is never
-- left to the server to copy unseen.
create or replace table live_blob as
with named as materialized (
    select digest from reach
    union select target from live_layer_link
    union select digest from live_revision
    union select digest from live_signature
    union select digest from blob where {orphans}
),
suspect as materialized (
    select distinct e.target as digest
    from edge e join blob b on b.digest = e.target where e.size >= 0 and e.size <> b.size
),
listed as materialized (from blob b semi join named n on n.digest = b.digest)
select b.digest, any_value(b.size) as size, bool_or(s.digest is not null) as suspect
from listed b left join suspect s on s.digest = b.digest
group by b.digest

-- name: blocked
-- migrate_blocked(digest): what must not be written.
create or replace table migrate_blocked (digest blob not null)

-- name: block
-- blocking(digest, round): `given` (digest), in round 0. What a manifest that is not understood reaches is all that its
-- repository links.
create or replace temp table blocking as
select digest, 0 as round from (
    select digest from given
    union
    select r.digest from live_revision r join manifest m using (digest)
    where m.state in ('invalid', 'too large') and r.repository in (
        select l.repository from layer_link l join given g on g.digest = l.target
    )
) anti join migrate_blocked using (digest)

-- name: block_above
-- The next round: what reaches that of the one before, and is not blocked yet. How many. (A recursion keeps all in
-- memory, whatever the limit.)
insert into blocking
select distinct a.digest, $round
from blocking n
join (
    select source as digest, target as below from edge where kind <> {subject}
    union all
    select digest, target from layer_link where digest <> target
) a on a.below = n.digest
anti join blocking b on b.digest = a.digest
anti join migrate_blocked k on k.digest = a.digest
where n.round = $round - 1

-- name: block_all
insert into migrate_blocked select digest from blocking

-- name: damaged_manifests
select digest from manifest where state in ('mismatch', 'unreadable')

-- name: drop_blocked
-- What is blocked is not live; revisions are named.
insert into migrate_problem
select 'damaged', m.name, 'revision ' || digest_text(x.digest), 'reaches a manifest that is damaged, or can''t be read'
from live_revision x join migrate_repository m on m.id = x.repository semi join migrate_blocked b using (digest);

delete from live_layer_link where target in (from migrate_blocked);
delete from live_revision where digest in (from migrate_blocked);
delete from live_signature where revision in (from migrate_blocked);
delete from live_tag where target in (from migrate_blocked);
delete from live_tag_index where digest in (from migrate_blocked);
delete from live_tag_index x where not exists (
    from live_tag t where t.repository = x.repository and t.name = x.name
);
delete from live_blob where digest in (select digest from manifest where state in ('mismatch', 'unreadable'));
