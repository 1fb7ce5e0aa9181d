-- What each repository keeps: tags that follow what they name, roots, and the repositories that come to be protected
-- for what they reach.

-- name: followers
-- gc_follower: tags whose subject is in the relation `subjects`, the revisions that may go.
insert into gc_follower
with named as (
    select repository, name, target, tag_subject(name) as subject
    from tag where mtime < $cutoff and target is not null and is_digest_tag(name)
)
select n.repository, n.name, n.target, n.subject
from named n
semi join {subjects} r on r.repository = n.repository and r.digest = n.subject
anti join gc_protected p on p.repository = n.repository
anti join gc_broken_tag b on b.repository = n.repository and b.name = n.name
anti join (from gc_tag_fate where fate = '{protected}') f on f.repository = n.repository and f.name = n.name
where n.target <> n.subject;

-- name: held
-- gc_held: of what followers' targets hold, the manifests, and the subject where it is among it. followed, round: as
-- in `inventory.reachability`.
create or replace temp table gc_held (
    repository integer, name varchar, subject blob, digest blob, followed boolean, round integer
);

-- name: hold
-- The next round of gc_held, from the manifests that `front` gives.
insert into gc_held
with next as (
    select f.repository, f.name, f.subject, e.target as digest, e.kind = {manifest} as followed
    from ({front}) f join edge e on e.source = f.digest
    where e.kind <> {subject}
),
widened as (
    select n.repository, n.name, n.subject, n.digest, bool_or(n.followed or r.digest is not null) as followed
    from next n left join revision_link r on r.repository = n.repository and r.digest = n.digest
    group by n.repository, n.name, n.subject, n.digest
)
select w.repository, w.name, w.subject, w.digest, w.followed, $round
from widened w
anti join gc_held h on h.repository = w.repository and h.name = w.name
    and h.digest = w.digest and h.followed >= w.followed
where w.followed or w.digest = w.subject;

-- name: targets
-- In the place of `front`, in the first round.
select repository, name, subject, target as digest from gc_follower

-- name: met
-- In the place of `front`, in the later ones.
select repository, name, subject, digest from gc_held where round = $round - 1 and followed

-- name: ordinary
-- A tag whose own target holds the manifest that it names is an ordinary tag.
delete from gc_follower f using gc_held h
where h.repository = f.repository and h.name = f.name and h.digest = f.subject;

-- name: with_subject
-- For the reachability: where a subject is reached, so is the target of the tag that follows it.
select repository, subject, target, true from gc_follower

-- name: roots
-- For the reachability. The keys of repositories that can't be decoded stand in the repository `nowhere`.
select repository, unnest([digest, target]) as digest, false as expand from layer_link where mtime >= $cutoff
union all
select t.repository, t.target, true
from tag t
anti join gc_follower f on f.repository = t.repository and f.name = t.name
anti join gc_dropped_tag d on d.repository = t.repository and d.name = t.name
anti join gc_broken_tag b on b.repository = t.repository and b.name = t.name
union all
select repository, digest, true from {sound} where not $delete_untagged or mtime >= $cutoff
union all
select x.repository, x.digest, true from {sound} x semi join gc_protected p on p.repository = x.repository
where $delete_untagged and mtime < $cutoff
union all
select repository, digest, true from legacy_revision
union all
select t.repository, i.digest, true
from tag t join tag_index i on i.repository = t.repository and i.name = t.name
where t.unread is not null
union all
select {nowhere}, digest, followed from unknown_digest

-- name: protect_reaching
-- Repositories that reach a manifest which is there but can't be read; the ids of those that were not protected.
insert into gc_protected
select distinct k.repository, 'manifest ' || digest_text(k.digest) || ' can''t be read: ' || m.reason
from reach k
join manifest m on m.digest = k.digest
anti join gc_protected p on p.repository = k.repository
where k.expand and m.state not in ('ok', 'missing') and k.repository <> {nowhere}
returning repository;

-- name: protect_needing
-- Repositories in which something that stays needs a revision that was to go, unreadable as it is; their ids.
insert into gc_protected
select distinct b.repository, b.reason || '; what stays refers to it'
from gc_broken_revision b join reach k on k.repository = b.repository and k.digest = b.digest
returning repository;

-- name: protected_roots
-- For the reachability: all that newly protected repositories hold.
select repository, digest, true as expand from revision_link where repository in (select unnest($newly::integer[]))
union all
select repository, target, true from tag where repository in (select unnest($newly::integer[]))

-- name: reached_odd
insert into gc_reached_odd select distinct digest from reach where not is_sha256(digest);
