-- The keys of some repositories that go now, by the plan's relations. ids: of these repositories in the inventory.

-- name: losing
-- (id, name, keys) of all repositories that lose something, by name.
select u.repository, r.name, sum(u.keys)::bigint
from (
    select repository, count(*) as keys from gc_unlink group by repository
    union all
    select repository, count(*) from multipart_upload join gc_dead_upload using (repository, uuid) group by repository
) u
join repository r on r.id = u.repository
group by u.repository, r.name
order by r.name;

-- name: dead_uploads
-- (name, uuid, key, upload_id, newest, size) of the multipart uploads to abort; of all repositories where ids is null.
select r.name, m.uuid, m.key, m.upload_id, m.newest, m.size
from multipart_upload m
join gc_dead_upload using (repository, uuid)
join repository r on r.id = m.repository
where $ids::integer[] is null or r.id in (select unnest($ids::integer[]))
order by m.key, m.upload_id;

-- name: named_revisions
-- (repository, source, target): dead revisions, and those that they name.
select distinct p.repository, e.source, e.target
from gc_dead_revision p
join edge e on e.source = p.digest and e.kind <> {kind_subject}
join gc_dead_revision c on c.repository = p.repository and c.digest = e.target
where p.repository in (select unnest($ids::integer[]));

-- name: rank
-- gc_rank(repository, step, digest, rank): of dead layer links that depend on each other; two ranks are enough. Two
-- links can name each other: the smaller digest's goes first then.
create or replace temp table gc_rank as
with named as (
    select l.repository, l.digest, l.target
    from gc_dead_layer_link d
    join layer_link l using (repository, digest)
    join gc_dead_layer_link t on t.repository = l.repository and t.digest = l.target
    where l.repository in (select unnest($ids::integer[])) and l.target <> l.digest
        and not (l.digest > l.target and exists (
            from layer_link b where b.repository = l.repository and b.digest = l.target and b.target = l.digest
        ))
)
select repository, {layer}::tinyint as step, digest, min(rank) as rank
from (
    select repository, digest, 1 as rank from named
    union all
    select repository, target, 2 from named
)
group by repository, digest;

-- name: choose
create or replace table gc_now as
select row_number() over (order by u.step, coalesce(k.rank, 0), u.key) as position,
    u.step, u.repository, r.name, u.label, u.digest, u.key, u.size, u.mtime, u.body,
    u.step = {tag} and not exists (
        from revision_link x where x.repository = u.repository and x.digest = u.digest
    ) as loose
from gc_unlink u
join repository r on r.id = u.repository
left join gc_rank k on k.repository = u.repository and k.step = u.step and k.digest = u.digest
where u.repository in (select unnest($ids::integer[]));

-- name: keep_what_changed
-- In a later look: only what its plan removes too, as it was, goes on, and nothing of the busy repositories.
delete from main.gc_now
where name in (select unnest($busy::varchar[])) or key not in (
    select key from main.gc_now n join gc_unlink u using (key)
    where u.size = n.size and u.mtime = n.mtime and u.body is not distinct from n.body
);

-- name: drop
delete from gc_now where position in (select unnest($positions::bigint[]));

-- name: steps
select distinct step from gc_now order by step;

-- name: uploads
-- (repository, id, parts) of the uploads that lose parts.
select name, label, count(*) from gc_now where step = {upload} group by name, label;

-- name: slice
-- The rows behind a position, in their order; of some steps only.
select position, step, name, coalesce(label, ''), coalesce(digest, ''::blob), key, size, mtime, body, loose
from gc_now
where step in (select unnest($steps::tinyint[])) and position > $position
order by position limit $most;

-- name: note_removed
-- Into `removed` (`gc.past`) of a later look, what it can give back.
insert into removed (run, key, name, step, digest, body)
select $run, key, name, step, digest, body from main.gc_now
where step in ({revision}, {layer}) and body is not null;
