-- The keys of some repositories that go now, in their order (`going.py`). $ids: of these repositories.

-- name: groups
-- (id, name, keys and multipart uploads that go) of all repositories that lose something, by name.
select u.repository, r.name, sum(keys)::bigint from (
    select repository, count(*) as keys from gc_unlink group by all
    union all
    select repository, count(*) from multipart_upload join gc_dead_upload using (repository, uuid) group by all
) u join repository r on r.id = u.repository
group by all order by 2;

-- name: dead_uploads
-- The multipart uploads that the plan aborts; of all repositories where $ids is null.
select r.name, m.uuid, m.key, m.upload_id, m.newest, m.size
from multipart_upload m join gc_dead_upload using (repository, uuid) join repository r on r.id = m.repository
where $ids::integer[] is null or r.id in (select unnest($ids::integer[]))
order by m.key, m.upload_id;

-- name: listed_revisions
-- (repository, source, target): dead revisions of which the one's manifest lists the other.
select distinct p.repository, e.source, e.target
from gc_dead_revision p
join edge e on e.source = p.digest and e.kind <> {subject}
join gc_dead_revision c on c.repository = p.repository and c.digest = e.target
where p.repository in (select unnest($ids::integer[]));

-- name: layer_ranks
-- gc_rank(repository, step, digest, rank): of dead links that depend on each other, lower ones go first. Here those of
-- layers, for which two ranks are enough. Two links can name each other: the smaller digest's goes first then.
create or replace temp table gc_rank as
with named as (
    select l.repository, l.digest, l.target from gc_dead_layer_link d
    join layer_link l using (repository, digest)
    join gc_dead_layer_link t on t.repository = l.repository and t.digest = l.target
    where l.repository in (select unnest($ids::integer[])) and l.target <> l.digest
        and not (l.digest > l.target and exists (
            from layer_link b where b.repository = l.repository and b.digest = l.target and b.target = l.digest
        ))
)
select repository, {layer}::tinyint as step, digest, min(rank) as rank from (
    select repository, digest, 1 as rank from named
    union all select repository, target, 2 from named
) group by all;

-- name: choose
-- gc_now: all that the plan removes there.
create or replace table gc_now as
select row_number() over (order by u.step, coalesce(k.rank, 0), u.key) as position,
    u.step, u.repository, r.name, u.label, u.digest, u.key, u.size, u.mtime, u.body,
    u.step = {tag} and not exists (
        from revision_link x where x.repository = u.repository and x.digest = u.digest
    ) as loose
from gc_unlink u join repository r on r.id = u.repository
left join gc_rank k on k.repository = u.repository and k.step = u.step and k.digest = u.digest
where u.repository in (select unnest($ids::integer[]));

-- name: empty
create or replace table gc_now (
    position bigint, step tinyint, repository integer, name varchar, label varchar, digest blob, key varchar,
    size bigint, mtime bigint, body blob, loose boolean
);

-- name: keep_what_changed
-- Run on a later look, with its plan. $busy: names of repositories of which nothing goes now; $tags: tags, each with its
-- repository before it and a colon. Gives the keys that stay.
delete from main.gc_now where key in (
    select key from main.gc_now semi join (select unnest($busy::varchar[]) as name) using (name)
    union
    select n.key from main.gc_now n
    semi join (select unnest($tags::varchar[]) as tag) t on t.tag = n.name || ':' || n.label
    union
    select n.key from main.gc_now n anti join gc_unlink u
        on u.key = n.key and u.size = n.size and u.mtime = n.mtime and u.body is not distinct from n.body
)
returning key;

-- name: slice
-- The next $most rows behind $position of some steps.
select position, step, name, coalesce(label, ''), coalesce(digest, ''::blob), key, size, mtime, body, loose
from gc_now where list_contains($steps::tinyint[], step) and position > $position order by position limit $most;

-- name: note_removed
-- Run on a later look: what of the relation `removed` (`gc.past`) this $run adds.
insert into removed (run, key, name, step, digest, body)
select $run, key, name, step, digest, body from main.gc_now
where step in ({revision}, {layer}) and body is not null;

-- name: half_pushed
-- Run on a later look: (repository, tag) of those whose index link is newer than their current/link, and not older than
-- $since. Such a tag is being pushed (`state.pushed_again`).
select distinct r.name, t.name
from tag_index i
join tag t on t.repository = i.repository and t.name = i.name
join repository r on r.id = i.repository
where i.mtime > t.mtime and i.mtime >= $since;
