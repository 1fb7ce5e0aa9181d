-- What a backup packs of each repository: of what the repository links, whatever is complete (`plan.py` says what that
-- is). Of each repository alone, but for blobs. The plan's tables stand only while it is made, but for backup_need.

-- name: chosen
-- backup_chosen(place, repository): the repositories of `given` (place, name), in the order of the packs.
create or replace table backup_chosen as
select g.place, r.id as repository from given g join repository r using (name)

-- name: lost
-- backup_lost(digest, reason), of `given`; backup_held(digest, size): blobs that can be had.
create or replace table backup_lost as from given;
create or replace view backup_held as select digest, size from blob anti join backup_lost using (digest)

-- name: linked
-- backup_linked(repository, digest, revision, sound, fault): links of manifests. revision: a revision link; the others
-- are layer links, as v2.1.0 linked manifests: of those with signatures, and of those that a tag names (a registry of
-- 2.x asks for no more). sound: its body says what its path says; else fault says what is wrong with it.
create or replace table backup_linked as
with link as (
    select repository, digest, true as revision, target, size, unread from revision_link
    union all
    select l.repository, l.digest, false, l.target, l.size, l.unread
    from (
        from legacy_revision
        union
        select t.repository, t.target from tag t
        anti join revision_link r on r.repository = t.repository and r.digest = t.target
        where t.target is not null
    ) k
    join layer_link l on l.repository = k.repository and l.digest = k.digest
)
select repository, digest, revision, coalesce(target = digest, false) as sound,
    case when target is distinct from digest then link_fault(size, target, unread) end as fault
from link semi join backup_chosen using (repository);

-- name: looked_at
-- backup_manifest(repository, digest, round): what is a manifest there: in round 0 the sound links, then children.
create or replace table backup_manifest as
select repository, digest, 0 as round from backup_linked where sound

-- name: children_looked_at
-- The children of the round before; how many are new. One that the repository never had, or has no more, is normal: a
-- sparse index.
insert into backup_manifest
select distinct f.repository, e.target, $round
from (from backup_manifest where round = $round - 1) f
join (from edge where kind = {manifest}) e on e.source = f.digest
left join backup_linked l on l.repository = f.repository and l.digest = e.target
left join blob b on b.digest = e.target
left join backup_lost x on x.digest = e.target
anti join backup_manifest k on k.repository = f.repository and k.digest = e.target
where l.digest is not null or b.digest is not null or x.digest is not null

-- name: named
-- backup_named(repository, digest, kind, target, alias, held): what manifests name. alias: the digest of its bytes,
-- where a layer link says that they lie under another one and there is no blob by the first. held: the blob is there.
create or replace table backup_named as
with named as materialized (
    select m.repository, m.digest, e.kind, e.target, h.digest is not null as held
    from backup_manifest m
    join (from edge where kind <> {subject}) e on e.source = m.digest
    left join backup_held h on h.digest = e.target
)
from (select repository, digest, kind, target, null::blob as alias, held from named where held)
union all
select n.repository, n.digest, n.kind, n.target, l.target, h.digest is not null
from (from named where not held) n
left join (from layer_link where target <> digest) l on l.repository = n.repository and l.digest = n.target
left join backup_held h on h.digest = l.target;

-- backup_below(repository, digest, kind, target, child): of these, what is looked at as a manifest. child: it is named
-- as one, and not only as a layer.
create or replace table backup_below as
select n.repository, n.digest, n.kind, n.target, n.kind = {manifest} or r.digest is not null as child
from backup_named n
join backup_manifest m on m.repository = n.repository and m.digest = n.target
left join (from backup_linked where sound and revision) r on r.repository = n.repository and r.digest = n.target

-- name: problems
-- backup_problem(repository, digest, what, about, reason): why a manifest is not complete, one row each. First its own.
create or replace table backup_problem as
select repository, digest, case
        when lost is not null then 'blob lost'
        when not stands or state = 'missing' then 'manifest missing'
        when state = 'unreadable' then 'manifest unreadable'
        else 'manifest damaged' end as what,
    digest as about, coalesce(lost, reason, '') as reason
from (
    select k.repository, k.digest, coalesce(m.state, 'missing') as state, m.reason, x.reason as lost,
        b.digest is not null as stands
    from backup_manifest k
    left join manifest m on m.digest = k.digest
    left join blob b on b.digest = k.digest
    left join backup_lost x on x.digest = k.digest
)
where lost is not null or not stands or state not in ('ok', {opaque});

-- Then what it names and can't be had.
insert into backup_problem
with lacking as (
    select n.repository, n.digest, n.kind, n.target, coalesce(n.alias, n.target) as blob
    from (from backup_named where not held and kind <> {manifest}) n
    anti join (from backup_linked where sound and revision) r
        on r.repository = n.repository and r.digest = n.target
    anti join backup_problem p on p.repository = n.repository and p.digest = n.digest
)
select l.repository, l.digest, if(x.digest is null, 'blob missing', 'blob lost'), l.blob, x.reason
from lacking l left join backup_lost x on x.digest = l.blob
where l.kind <> {foreign_layer} or x.digest is not null
qualify row_number() over (partition by l.repository, l.digest order by l.kind, l.target) = 1

-- name: ranked
-- backup_rank(repository, digest, rank): manifests that name others, in rank 1 and above. A digest may stand more than
-- once: the highest counts. How many.
create or replace table backup_rank as select distinct repository, digest, 1 as rank from backup_below

-- name: ranked_above
-- The next rank: what names the one before. How many.
insert into backup_rank
select distinct n.repository, n.digest, $rank
from backup_below n
semi join (from backup_rank where rank = $rank - 1) r on r.repository = n.repository and r.digest = n.target

-- name: ranks
create or replace table backup_rank as
select repository, digest, max(rank) as rank from backup_rank group by repository, digest

-- name: problems_of_children
-- Of manifests of this rank: what is wrong with the first child that is not complete.
insert into backup_problem
select c.repository, c.digest, p.what, p.about, p.reason
from (from backup_rank where rank = $rank) r
join (from backup_below where child) c on c.repository = r.repository and c.digest = r.digest
join backup_problem p on p.repository = c.repository and p.digest = c.target
anti join backup_problem own on own.repository = c.repository and own.digest = c.digest
qualify row_number() over (partition by c.repository, c.digest order by c.kind, c.target) = 1

-- name: kept
-- backup_kept(repository, digest, linked): manifests that are packed: first what is linked and complete.
create or replace table backup_kept as
select m.repository, m.digest, true as linked from (from backup_manifest where round = 0) m
anti join backup_problem p on p.repository = m.repository and p.digest = m.digest;

-- backup_unlinked(repository, digest): complete, and without a link of its own.
create or replace table backup_unlinked as
select m.repository, m.digest from (from backup_manifest where round > 0) m
anti join backup_problem p on p.repository = m.repository and p.digest = m.digest

-- name: kept_below
-- What these need of those without a link. How many are new.
insert into backup_kept
select distinct u.repository, u.digest, false
from backup_unlinked u
join (from backup_named where held) n on n.repository = u.repository and n.target = u.digest
semi join backup_kept k on k.repository = n.repository and k.digest = n.digest
anti join backup_kept here on here.repository = u.repository and here.digest = u.digest

-- name: layers
-- backup_layer(repository, digest, target): layer links that are packed: of what kept manifests name, or all of a
-- repository where one of them is not understood. A layer pushed by its sha512 has a link by its sha256 too.
create or replace table backup_layer as
with opaque as (
    select distinct k.repository from backup_kept k
    semi join (from manifest where state in ({opaque})) m on m.digest = k.digest
),
named as (
    select n.repository, n.target as digest from (from backup_named where held) n
    semi join backup_kept k on k.repository = n.repository and k.digest = n.digest
    anti join opaque o on o.repository = n.repository
    union all
    select repository, digest from backup_kept k anti join opaque o on o.repository = k.repository
),
link as (select repository, digest, target from layer_link where target is not null)
select l.repository, l.digest, l.target
from (
    from link semi join opaque using (repository)
    union all
    from link semi join named using (repository, digest)
) l
semi join backup_held h on h.digest = l.target;

insert into backup_layer
select l.repository, l.digest, l.target
from (from layer_link where target = digest) l
semi join (from backup_layer where target <> digest) t on t.repository = l.repository and t.target = l.digest
anti join backup_layer k on k.repository = l.repository and k.digest = l.digest

-- name: tags
-- backup_tag(repository, name, target, mtime): tags whose manifest is packed.
create or replace table backup_tag as
select t.repository, t.name, t.target, t.mtime from tag t
semi join (from backup_kept where linked) k on k.repository = t.repository and k.digest = t.target

-- name: some_tag_names
-- The next names of these, in order.
select distinct name from backup_tag where name > $after order by name limit $most

-- name: nothing_picked
-- backup_picked_name(name): the tags that were asked for.
create or replace table backup_picked_name (name varchar not null)

-- name: picked
-- backup_picked_tag(repository, name, target, round); backup_picked(repository, digest, round): manifests. In rounds:
-- what these tags name, what that needs, what refers to it, and the tags that follow it. How many tags.
create or replace table backup_picked (repository integer not null, digest blob not null, round integer not null);
create or replace table backup_picked_tag as
select repository, name, target, 0 as round from backup_tag semi join backup_picked_name using (name)

-- name: picked_more
insert into backup_picked
with front as (select repository, digest from backup_picked where round = $round - 1),
more as (
    select repository, target as digest from backup_picked_tag where round = $round - 1
    union
    select n.repository, n.target from (from backup_named where held) n
    semi join front f on f.repository = n.repository and f.digest = n.digest
    union
    select k.repository, k.digest
    from (from backup_kept where linked) k
    join (
        select source, min(target) as target from edge where kind = {subject} group by source
    ) e on e.source = k.digest
    semi join front f on f.repository = k.repository and f.digest = e.target
)
select repository, digest, $round from more
semi join backup_kept using (repository, digest)
anti join backup_picked using (repository, digest)

-- name: picked_tags_more
insert into backup_picked_tag
select distinct t.repository, t.name, t.target, $round
from backup_tag t
join (from backup_picked where round = $round) p on p.repository = t.repository and names_digest(t.name, p.digest)
anti join backup_picked_tag k on k.repository = t.repository and k.name = t.name

-- name: keep_picked
-- Only these. Where one of them needs nothing, it may be one that is not understood: then all layer links stay.
create or replace table backup_kept as
select repository, digest, linked from backup_kept semi join backup_picked using (repository, digest);
create or replace table backup_tag as from backup_tag semi join backup_picked_tag using (repository, name);
create or replace table backup_layer as
with named as (
    select n.repository, n.digest, n.target from (from backup_named where held) n
    semi join backup_kept k on k.repository = n.repository and k.digest = n.digest
),
everything as (
    select distinct repository from backup_kept anti join named using (repository, digest)
),
layer as materialized (
    from backup_layer semi join everything using (repository)
    union
    from backup_layer semi join (
        select repository, target as digest from named union all select repository, digest from backup_kept
    ) using (repository, digest)
)
from layer
union
select l.repository, l.digest, l.target from (from backup_layer where target = digest) l
semi join layer t on t.repository = l.repository and t.target = l.digest

-- name: signatures
-- backup_signature(repository, revision, digest)
create or replace table backup_signature as
select s.repository, s.revision, s.digest from signature_link s
semi join backup_kept k on k.repository = s.repository and k.digest = s.revision
semi join backup_held h on h.digest = s.digest

-- name: create_need
-- backup_need(repository, digest, size): blobs that packs need, of every repository as it was planned last.
create table backup_need (repository integer not null, digest blob not null, size bigint not null)

-- name: need
delete from backup_need where repository in (select repository from backup_chosen);
insert into backup_need
select n.repository, n.digest, h.size
from (
    select n.repository, coalesce(n.alias, n.target) as digest from (from backup_named where held) n
    semi join backup_kept k on k.repository = n.repository and k.digest = n.digest
    union
    select repository, digest from backup_kept
    union
    select repository, target from backup_layer
    union
    select repository, digest from backup_signature
) n
join backup_held h on h.digest = n.digest

-- name: lines
-- backup_line(place, section, tag, rank, one, part, two, text, number, linked): the packs, in their order. Of a
-- manifest what it needs follows it, each a row, in the order of the kinds; more than one of a target counts once. A
-- statement for each section, and one that sorts: together they would share the memory.
create or replace table backup_unsorted (
    repository integer not null, section tinyint not null, tag varchar not null, rank bigint not null,
    one blob not null, part tinyint not null, two blob, text varchar, number bigint, linked boolean
);
insert into backup_unsorted
select n.repository, {of_blob}, '', 0, n.digest, 0, null, null, n.size, null
from backup_need n semi join backup_chosen using (repository);
insert into backup_unsorted
select repository, {of_layer}, '', 0, digest, 0, target, null, null, null from backup_layer;
insert into backup_unsorted
select k.repository, {of_manifest}, '', coalesce(r.rank, 0), k.digest, 0, s.target, coalesce(m.media_type, ''), null,
    k.linked
from backup_kept k
join manifest m on m.digest = k.digest
left join backup_rank r on r.repository = k.repository and r.digest = k.digest
left join (
    select source, min(target) as target from edge where kind = {subject} group by source
) s on s.source = k.digest;
insert into backup_unsorted
select n.repository, {of_manifest}, '', coalesce(r.rank, 0), n.digest, n.kind, n.target, null, null, null
from (from backup_named where held) n
semi join backup_kept k on k.repository = n.repository and k.digest = n.digest
left join backup_rank r on r.repository = n.repository and r.digest = n.digest;
insert into backup_unsorted
select repository, {of_signature}, '', 0, revision, 0, digest, null, null, null from backup_signature;
insert into backup_unsorted
select h.repository, {of_history}, h.name, 0, h.digest, 0, null, null, null, null
from tag_index h
semi join backup_tag t on t.repository = h.repository and t.name = h.name
semi join backup_kept k on k.repository = h.repository and k.digest = h.digest;
insert into backup_unsorted
select repository, {of_tag}, name, 0, target, 0, null, null, mtime, null from backup_tag;
create or replace table backup_line as
select c.place, l.* exclude (repository)
from backup_unsorted l join backup_chosen c on c.repository = l.repository
order by c.place, l.section, l.tag, l.rank, octet_length(l.one), l.one, l.part, l.two;
drop table backup_unsorted

-- name: some_lines
select place, section, tag, one, part, two, text, number, linked from backup_line
where rowid between $first and $last order by rowid

-- name: left_out_links
-- (name, digest, fault) of links of manifests that are not sound.
select r.name, l.digest, l.fault from (from backup_linked where not sound) l join repository r on r.id = l.repository

-- name: left_out_tags
-- (name, tag, target, fault, broken, what, about, reason) of tags that are not packed. fault: of the tag's own link,
-- where it names nothing. broken: its manifest has a link, and that is not sound.
select r.name, t.name, t.target, case when t.target is null then link_fault(t.size, t.target, t.unread) end,
    l.digest is not null and not l.sound, p.what, p.about, p.reason
from tag t
semi join backup_chosen c using (repository)
join repository r on r.id = t.repository
left join backup_linked l on l.repository = t.repository and l.digest = t.target
left join backup_problem p on p.repository = t.repository and p.digest = t.target and l.sound
where l.digest is null or not l.sound or p.digest is not null

-- name: left_out_manifests
-- (name, digest, what, about, reason) of sound links that no tag names, and whose manifests are not complete.
select r.name, p.digest, p.what, p.about, p.reason
from backup_problem p
join (from backup_manifest where round = 0) m on m.repository = p.repository and m.digest = p.digest
join repository r on r.id = p.repository
anti join (from tag where target is not null) t on t.repository = p.repository and t.target = p.digest

-- name: not_linked
-- (name, target, as a manifest, one that names it): links that the repository lacks, of parts of what is packed whose
-- blobs are there.
with lacking as (
    select n.repository, n.digest, n.target, n.kind = {manifest} as manifest
    from (from backup_named where held and kind <> {foreign_layer}) n
    semi join backup_kept k on k.repository = n.repository and k.digest = n.digest
    anti join backup_linked l on l.repository = n.repository and l.digest = n.target
    left join (from layer_link where target is not null) y on y.repository = n.repository and y.digest = n.target
    where n.kind = {manifest} or y.digest is null
)
select r.name, l.target, l.manifest, arg_min(l.digest, (coalesce(k.rank, 0), octet_length(l.digest), l.digest))
from lacking l
join repository r on r.id = l.repository
left join backup_rank k on k.repository = l.repository and k.digest = l.digest
group by r.name, l.target, l.manifest

-- name: missing
-- (name, digest): what has no blob and kept something from being complete.
select distinct r.name, p.about from backup_problem p join repository r on r.id = p.repository
where p.what in ('manifest missing', 'blob missing')

-- name: needing
-- (name) of repositories whose packs need one of these blobs.
select distinct r.name from repository r join backup_need n on n.repository = r.id
where n.digest in (select unnest($digests::blob[]))

-- name: drop
-- What only the plan needed.
drop table backup_chosen;
drop view backup_held;
drop table backup_lost;
drop table backup_linked;
drop table backup_manifest;
drop table backup_named;
drop table backup_below;
drop table backup_problem;
drop table backup_rank;
drop table backup_kept;
drop table backup_unlinked;
drop table backup_layer;
drop table backup_tag;
drop table backup_signature;
drop table backup_line
