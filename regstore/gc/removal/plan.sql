-- What goes of what somebody has named, and what speaks against it. Named things are given as parameters, each a list:
-- $tag_names and $tags, $revision_names and $digests, $repositories.

-- name: named
-- rm_named_tag(repository, name), rm_named_revision(repository, digest), rm_whole(repository): as far as the
-- inventory has such a repository.
create or replace temp table rm_whole as
select r.id as repository from repository r where r.name in (select unnest($repositories::varchar[]));
create or replace temp table rm_named_tag as
select r.id as repository, n.name
from (select unnest($tag_names::varchar[]) as repository, unnest($tags::varchar[]) as name) n
join repository r on r.name = n.repository;
create or replace temp table rm_named_revision as
select r.id as repository, n.digest
from (select unnest($revision_names::varchar[]) as repository, unnest($digests::blob[]) as digest) n
join repository r on r.name = n.repository;

-- name: absent
-- (kind, repository, what): what was named and is not there; what is a tag, a digest's text, or "".
with tag_there as (
    select r.name as repository, t.name from (
        select repository, name from tag union select repository, name from tag_index
    ) t join repository r on r.id = t.repository
),
revision_there as (
    select r.name as repository, x.digest from (
        select repository, digest from revision_link union select repository, revision from signature_link
    ) x join repository r on r.id = x.repository
)
select 'tag' as kind, n.repository, n.name as what
from (select unnest($tag_names::varchar[]) as repository, unnest($tags::varchar[]) as name) n
anti join tag_there t on t.repository = n.repository and t.name = n.name
union all
select 'revision', n.repository, digest_text(n.digest)
from (select unnest($revision_names::varchar[]) as repository, unnest($digests::blob[]) as digest) n
anti join revision_there t on t.repository = n.repository and t.digest = n.digest
union all
select 'repository', n.repository, ''
from (select unnest($repositories::varchar[]) as repository) n
anti join tag_there t on t.repository = n.repository
anti join revision_there v on v.repository = n.repository
order by 1, 2, 3;

-- name: kept
-- rm_kept(repository, digest): revisions that must not go after all, as a later look has shown.
create or replace temp table rm_kept (repository integer, digest blob);

-- name: choose
-- rm_revision(repository, digest), and rm_tag(repository, name): what goes, with the tags of a revision, and of a whole
-- repository all. A tag may have no current/link: its history is what an interrupted run or a client has left. In a
-- later look, nothing of it that is not as the first one (`main`) saw it: somebody has pushed it since.
create or replace temp table rm_revision as
with named as (
    select repository, digest from rm_named_revision
    union
    select x.repository, x.digest
    from (select repository, digest from revision_link union select repository, revision from signature_link) x
    semi join rm_whole w on w.repository = x.repository
)
select n.repository, n.digest
from named n
anti join rm_kept k on k.repository = n.repository and k.digest = n.digest
join repository r on r.id = n.repository
left join revision_link x on x.repository = n.repository and x.digest = n.digest
left join main.repository f on f.name = r.name
left join main.revision_link b on b.repository = f.id and b.digest = n.digest
where x.mtime is not distinct from b.mtime and x.size is not distinct from b.size;
create or replace temp table rm_tag as
with named as (
    select repository, name from rm_named_tag
    union
    select t.repository, t.name
    from tag t semi join rm_revision v on v.repository = t.repository and v.digest = t.target
    union
    select t.repository, t.name
    from (select repository, name from tag union select repository, name from tag_index) t
    semi join rm_whole w on w.repository = t.repository
    left join tag x on x.repository = t.repository and x.name = t.name
    anti join rm_kept k on k.repository = t.repository and k.digest = x.target
)
select n.repository, n.name
from named n
join repository r on r.id = n.repository
left join tag x on x.repository = n.repository and x.name = n.name
left join main.repository f on f.name = r.name
left join main.tag b on b.repository = f.id and b.name = n.name
where x.mtime is not distinct from b.mtime and x.size is not distinct from b.size
    and x.target is not distinct from b.target and x.body is not distinct from b.body;

-- name: staying
-- rm_staying_revision(repository, digest), rm_staying_tag(repository, name, target): what is left of the repositories
-- that lose a revision.
create or replace temp table rm_losing as select distinct repository from rm_revision;
create or replace temp table rm_staying_revision as
select x.repository, x.digest, x.target
from revision_link x
semi join rm_losing l on l.repository = x.repository
anti join rm_revision d on d.repository = x.repository and d.digest = x.digest;
create or replace temp table rm_staying_tag as
select t.repository, t.name, t.target, t.unread
from tag t
semi join rm_losing l on l.repository = t.repository
anti join rm_tag d on d.repository = t.repository and d.name = t.name;

-- name: staying_roots
-- For the reachability: what stays, and names anything. Of a tag that names nothing readable its history counts.
select repository, unnest([digest, target]) as digest, true as expand from rm_staying_revision
union all
select x.repository, x.digest, true
from legacy_revision x
semi join rm_losing l on l.repository = x.repository
anti join rm_revision d on d.repository = x.repository and d.digest = x.digest
union all
select repository, target, true from rm_staying_tag
union all
select t.repository, i.digest, true
from rm_staying_tag t join tag_index i on i.repository = t.repository and i.name = t.name
where t.target is null

-- name: needed
-- (repository, digest, by, tags): revisions that were to go and that something needs which stays; by: a manifest that
-- lists it, null where none does; tags: those that name `by`, or the revision itself.
select r.name, v.digest, e.source, list(t.name order by t.name) filter (t.name is not null)
from rm_revision v
join repository r on r.id = v.repository
semi join rm_reach k on k.repository = v.repository and k.digest = v.digest
left join (
    select distinct s.repository, e.source, e.target
    from edge e join rm_reach s on s.digest = e.source and s.expand
    where e.kind <> {subject}
) e on e.repository = v.repository and e.target = v.digest
left join rm_staying_tag t on t.repository = v.repository and t.target = coalesce(e.source, v.digest)
group by r.name, v.digest, e.source
order by r.name, v.digest, e.source;

-- name: unknown_needs
-- (repository, why): what stays, can't be read, and may list a revision that is to go.
with staying as (
    select repository, digest from rm_staying_revision
    union
    select x.repository, x.digest
    from legacy_revision x
    semi join rm_losing l on l.repository = x.repository
    anti join rm_revision d on d.repository = x.repository and d.digest = x.digest
),
reached as (select distinct repository, digest from rm_reach where expand),
found as (
    select s.repository, 'manifest ' || digest_text(s.digest) || ' can''t be read: ' || coalesce(m.reason, 'it was not')
        as why
    from staying s left join manifest m on m.digest = s.digest
    where m.state is distinct from 'ok'
    union
    select k.repository, 'manifest ' || digest_text(k.digest) || ' can''t be read: ' || coalesce(m.reason, 'it was not')
    from reached k left join manifest m on m.digest = k.digest
    where m.state is null or m.state not in ('ok', 'missing')
    union
    select t.repository, 'the link of tag ' || t.name || coalesce(' can''t be read: ' || t.unread, ' is damaged')
    from tag t
    anti join rm_tag d on d.repository = t.repository and d.name = t.name
    where t.target is null
    union
    select l.repository, 'the key ' || u.key || ' is not understood'
    from rm_losing l
    join repository r on r.id = l.repository
    anti join rm_whole w on w.repository = l.repository
    join unknown u on starts_with(u.key, repository_key(r.name, '_manifests/'))
)
select r.name, f.why from found f join repository r on r.id = f.repository order by all;

-- name: keep_needed
-- Into rm_kept: the revisions of `needed`; the digests of those.
insert into rm_kept
select distinct v.repository, v.digest
from rm_revision v semi join rm_reach k on k.repository = v.repository and k.digest = v.digest
returning digest;

-- name: keep_all
-- Into rm_kept: all revisions of these repositories; the digests of those.
insert into rm_kept
select v.repository, v.digest
from rm_revision v join repository r on r.id = v.repository
where r.name in (select unnest($names::varchar[]))
returning digest;

-- name: dead
-- The tables of `gc.plan.links` that say what goes.
insert into gc_dead_tag select t.repository, t.name from tag t semi join rm_tag d using (repository, name);
insert into gc_dead_tag_index
select i.repository, i.name, i.digest from tag_index i semi join rm_tag d using (repository, name);
insert into gc_dead_revision
select x.repository, x.digest from revision_link x semi join rm_revision d using (repository, digest);
insert into gc_dead_signature
select x.repository, x.revision, x.digest
from signature_link x semi join rm_revision d on d.repository = x.repository and d.digest = x.revision;

-- name: without_way_back
-- (key, size): links too long to be links, which no journal holds.
select key, size from gc_unlink where body is null and size > {link_max} order by key;

-- name: going
-- (repository, whole, kind, what, digest): 'tag' with the digest's text that it names (null where it names none), and
-- 'revision' with its digest's text; whole: all of the repository goes.
select r.name, w.repository is not null, g.kind, g.what, g.digest
from (
    select t.repository, 'tag' as kind, t.name as what, digest_text(x.target) as digest
    from rm_tag t left join tag x on x.repository = t.repository and x.name = t.name
    union all
    select d.repository, 'revision', digest_text(d.digest), digest_text(d.digest) from gc_dead_revision d
) g
join repository r on r.id = g.repository
left join rm_whole w on w.repository = g.repository
order by all;

-- name: attached
-- (repository, kind, what): what is about a revision that goes, and stays: 'tag' by the tag's name, 'referrer' a
-- revision whose subject it is.
select r.name, a.kind, a.what
from (
    select distinct t.repository, 'tag' as kind, t.name as what
    from rm_revision d
    join tag t on t.repository = d.repository and names_digest(t.name, d.digest)
    anti join rm_tag g on g.repository = t.repository and g.name = t.name
    union
    select d.repository, 'referrer', digest_text(x.digest)
    from rm_revision d
    join edge e on e.target = d.digest and e.kind = {subject}
    join revision_link x on x.repository = d.repository and x.digest = e.source
    anti join rm_revision g on g.repository = x.repository and g.digest = x.digest
) a
join repository r on r.id = a.repository
order by all;
