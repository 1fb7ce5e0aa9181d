-- What is live in the scope: of each repository alone, from its links and from what its manifests say.

-- name: protected
-- migrate_protected(repository, reason): those of which everything linked is taken, since a manifest can't be read.
create or replace table migrate_protected (repository integer not null, reason varchar not null)

-- name: roots
-- The tags of the scope; with no tag pattern every revision too, and layer links that a push under way may have made.
select repository, target as digest, true as expand from migrate_scope_tag where target is not null
union all
select repository, digest, true from (select repository, digest from revision_link union all from legacy_revision)
where {whole} and repository in (select id from migrate_repository)
union all
select repository, unnest([digest, target]), false from layer_link
where {whole} and mtime >= {cutoff} and repository in (select id from migrate_repository)

-- name: protect
-- One row for each repository in which something unreadable was found since. With tag patterns a manifest that has
-- other bytes is left out, and nothing that was not asked for comes instead.
insert into migrate_protected
select repository, min(reason) from (
    select repository, 'the link of revision ' || digest_text(digest) || ' ' || link_fault(size, target, unread) as reason
    from revision_link
    where {whole} and target is distinct from digest and repository in (select id from migrate_repository)
    union all
    select repository, 'manifest ' || digest_text(digest) || ' can''t be read: ' || reason
    from (select repository, digest from revision_link union all from legacy_revision) join manifest using (digest)
    where {whole} and {missing} and state = 'missing' and repository in (select id from migrate_repository)
    union all
    select k.repository, 'manifest ' || digest_text(k.digest) || ' can''t be read: ' || m.reason
    from reach k join manifest m on m.digest = k.digest
    where k.expand and m.state not in ('ok', 'missing') and ({whole} or m.state not in ('mismatch', 'unreadable'))
)
anti join migrate_protected using (repository)
group by repository
returning repository

-- name: roots_of_protected
select repository, digest, true as expand from revision_link
where repository in (select repository from migrate_protected)
union all
select repository, unnest([digest, target]), false from layer_link
where repository in (select repository from migrate_protected)

-- name: follow
-- With tag patterns: tags that name a reached manifest come too (indexes of referrers, cosign's signatures).
insert into migrate_scope_tag
select t.repository, t.name, t.target from tag t
join reach k on k.repository = t.repository and names_digest(t.name, k.digest)
where not exists (from migrate_scope_tag s where s.repository = t.repository and s.name = t.name)
group by all
returning repository

-- name: roots_of_tags
select repository, target as digest, true as expand from migrate_scope_tag

-- name: layer_links
-- live_layer_link(repository, digest, target): sound, to a blob that is there, and reached. One large join a statement:
-- their hash tables would be in memory at once.
create or replace temp table sound_layer_link as
select x.repository, x.digest, x.target, {everything} or p.repository is not null as taken
from layer_link x
semi join blob b on b.digest = x.target
semi join migrate_repository m on m.id = x.repository
left join (select distinct repository from migrate_protected) p on p.repository = x.repository
where is_sound_layer_link(x.digest, x.target);

create or replace table live_layer_link as
select repository, digest, target from sound_layer_link where taken;

insert into live_layer_link
select x.repository, x.digest, x.target
from sound_layer_link x semi join reach k on k.repository = x.repository and k.digest = x.digest
where not taken;

insert into live_layer_link
with alias as materialized (from sound_layer_link where not taken and target <> digest)
select x.repository, x.digest, x.target
from alias x semi join reach k on k.repository = x.repository and k.digest = x.target
anti join live_layer_link l on l.repository = x.repository and l.digest = x.digest;

drop table sound_layer_link

-- name: revisions
-- live_revision(repository, digest): likewise, whose bytes are what the digest says as far as anybody looked. And what
-- has a layer link alone, as v2.1.0 linked manifests, and is known to be one by a signature or a tag: both can go, so
-- that it would be taken for a layer.
create or replace table live_revision as
with sound as (
    select x.repository, x.digest, p.repository is not null as all_of_it
    from revision_link x semi join migrate_repository m on m.id = x.repository
    left join (select distinct repository from migrate_protected) p on p.repository = x.repository
    where x.target = x.digest
),
taken as materialized (
    select repository, digest from sound where {everything} or all_of_it
    union all
    select x.repository, x.digest
    from sound x semi join reach k on k.repository = x.repository and k.digest = x.digest
    where not ({everything} or all_of_it)
    union all
    select l.repository, l.digest from live_layer_link l
    semi join (
        select repository, revision as digest from signature_link union all select repository, target from tag
    ) n on n.repository = l.repository and n.digest = l.digest
    anti join revision_link r on r.repository = l.repository and r.digest = l.digest
    where l.target = l.digest
)
from taken x semi join blob b on b.digest = x.digest
semi join (from manifest where state not in ('missing', 'mismatch', 'unreadable')) m on m.digest = x.digest

-- name: signatures
-- live_signature(repository, revision, digest)
create or replace table live_signature as
select x.repository, x.revision, x.digest from signature_link x
semi join blob b using (digest)
semi join live_revision r on r.repository = x.repository and r.digest = x.revision
where x.size = link_size(x.digest)

-- name: tags
-- live_tag(repository, name, target, mtime): where migrate wrote the source too, a tag is as old as it was there before.
create or replace table live_tag as
select t.repository, t.name, t.target, coalesce(w.time, t.mtime) as mtime from tag t
join repository n on n.id = t.repository
left join source_record w on w.repository = n.name and w.tag = t.name and w.digest = t.target
    and t.mtime <= w.set_by
semi join migrate_scope_tag s on s.repository = t.repository and s.name = t.name
semi join live_revision r on r.repository = t.repository and r.digest = t.target

-- name: tag_index
-- live_tag_index(repository, name, digest)
create or replace table live_tag_index as
select x.repository, x.name, x.digest from tag_index x
semi join live_tag t on t.repository = x.repository and t.name = x.name
semi join live_revision r on r.repository = x.repository and r.digest = x.digest
where x.size = link_size(x.digest)
