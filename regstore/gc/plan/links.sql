-- What goes of each repository.

-- name: dead_tag
-- Followers of what is not reached; and what the policy drops, and what points at something broken that goes.
insert into gc_dead_tag
select f.repository, f.name
from gc_follower f
anti join reach k on k.repository = f.repository and k.digest = f.subject
anti join gc_protected p on p.repository = f.repository
union
select repository, name from gc_dropped_tag
union
select repository, name from gc_broken_tag;

-- name: dead_revision
insert into gc_dead_revision
select x.repository, x.digest
from revision_link x
anti join gc_protected p on p.repository = x.repository
anti join reach k on k.repository = x.repository and k.digest = x.digest
where x.mtime < $cutoff;

-- name: dead_broken_revision
-- After the others.
insert into gc_dead_revision
select b.repository, b.digest
from gc_broken_revision b
anti join gc_dead_revision d on d.repository = b.repository and d.digest = b.digest;

-- name: dead_signature
-- Those of revisions that go, and those of nothing: no link, and nothing that reaches it.
insert into gc_dead_signature
select x.repository, x.revision, x.digest
from signature_link x
anti join gc_protected p on p.repository = x.repository
semi join gc_dead_revision d on d.repository = x.repository and d.digest = x.revision
union all
select x.repository, x.revision, x.digest
from signature_link x
anti join gc_protected p on p.repository = x.repository
anti join revision_link r on r.repository = x.repository and r.digest = x.revision
anti join reach k on k.repository = x.repository and k.digest = x.revision
where x.mtime < $cutoff;

-- name: dead_layer_link
-- A link by another algorithm alone tells which blob such a reference means, in whatever repository it stands.
insert into gc_dead_layer_link
with unreached as (
    select x.repository, x.digest, x.target
    from layer_link x
    anti join gc_protected p on p.repository = x.repository
    anti join reach k on k.repository = x.repository and k.digest = x.digest
    where x.mtime < $cutoff and (x.target is not null or x.body is not null or x.size <= {link_max})
)
select u.repository, u.digest
from unreached u
anti join reach k on k.repository = u.repository and k.digest = u.target
anti join gc_reached_odd o on o.digest = u.digest;

-- name: keep_one_layer_link
-- v2.x finds repositories by their layer links alone: its garbage-collect would delete all that a repository without
-- any holds.
delete from gc_dead_layer_link d
using (
    with dead as (
        select repository, count(*) as links, min(digest) as digest from gc_dead_layer_link group by repository
    ),
    held as (select repository, count(*) as links from layer_link group by repository),
    found as (
        select repository from revision_link anti join gc_dead_revision using (repository, digest)
        union all
        select repository from tag anti join gc_dead_tag using (repository, name)
    )
    select repository, digest
    from dead join held using (repository, links) semi join found using (repository)
) kept
where d.repository = kept.repository and d.digest = kept.digest;

-- name: dead_tag_index
-- An index entry goes with its tag, or when it names a revision that is gone; a tag without current/link is a
-- leftover, unless an entry is so young that a push may be between the two.
insert into gc_dead_tag_index
with standing as (from tag anti join gc_dead_tag using (repository, name)),
untagged as materialized (
    select x.repository, x.name, x.digest, x.mtime
    from tag_index x
    anti join gc_protected p on p.repository = x.repository
    anti join standing t on t.repository = x.repository and t.name = x.name
),
superseded as materialized (
    select x.repository, x.name, x.digest
    from tag_index x
    anti join gc_protected p on p.repository = x.repository
    join standing t on t.repository = x.repository and t.name = x.name
    where x.mtime < $cutoff and t.target is distinct from x.digest
)
from superseded s
anti join (from revision_link anti join gc_dead_revision using (repository, digest)) r
    on r.repository = s.repository and r.digest = s.digest
union all
select repository, name, digest
from untagged semi join (
    select repository, name from untagged group by repository, name having max(mtime) < $cutoff
) using (repository, name);

-- name: dead_upload
-- Also in protected repositories: nothing refers to an upload.
insert into gc_dead_upload
select repository, uuid, sum(size)::bigint
from (
    select repository, uuid, size, mtime from upload_part
    union all
    select repository, uuid, size, newest from multipart_upload
)
group by repository, uuid
having max(mtime) < $uploads_cutoff;

-- name: unlink
-- gc_unlink, of the keys that the query `tails` gives.
insert into gc_unlink
select k.repository, k.step, k.label, k.digest, repository_key(r.name, k.tail), k.size, k.mtime, k.body
from ({tails}) k join repository r on r.id = k.repository;

-- name: tag_tails
select repository, {tag} as step, name as label, target as digest, tag_tail(name) as tail, size, mtime,
    coalesce(body, encode(digest_text(target))) as body
from tag join gc_dead_tag using (repository, name)

-- name: tag_index_tails
select repository, {tag_index} as step, name as label, digest, tag_index_tail(name, digest) as tail, size, mtime,
    case when sound then encode(digest_text(digest)) end as body
from tag_index join gc_dead_tag_index using (repository, name, digest)

-- name: revision_tails
select repository, {revision} as step, null as label, digest, revision_link_tail(digest) as tail, size, mtime,
    coalesce(body, encode(digest_text(digest))) as body
from revision_link join gc_dead_revision using (repository, digest)

-- name: signature_tails
select repository, {signature} as step, null as label, digest, signature_link_tail(revision, digest) as tail,
    size, mtime,
    case when sound then encode(digest_text(digest)) end as body
from signature_link join gc_dead_signature using (repository, revision, digest)

-- name: layer_tails
select repository, {layer} as step, null as label, digest, layer_link_tail(digest) as tail, size, mtime,
    case when target is null then body else coalesce(body, encode(digest_text(target))) end as body
from layer_link join gc_dead_layer_link using (repository, digest)

-- name: upload_tails
select u.repository, {upload} as step, u.uuid as label, null as digest, upload_tail(u.uuid, u.part) as tail,
    u.size, u.mtime, null::blob as body
from upload_part u join gc_dead_upload d on d.repository = u.repository and d.uuid = u.uuid

-- name: unlink_litter
insert into gc_unlink
select repository, {litter}, null, null, key, size, mtime, null from gc_dead_litter where repository is not null;
