-- What keeps a digest, read from a plan's tables. numbers: of repositories, that of unknown keys included.

-- name: reached
-- (number, name) of the repositories that reach a digest.
select distinct k.repository, coalesce(r.name, 'unknown keys')
from reach k left join repository r on r.id = k.repository
where k.digest = $digest
order by 2;

-- name: stored
-- (stored, goes): how many blobs of this digest there are, and go.
select (select count(*) from blob where digest = $digest), (select count(*) from gc_dead_blob where digest = $digest);

-- name: begin
-- why_met(repository, digest, below, said, round): what the search has met in these repositories, first the digest itself;
-- below: what it names of what was met before, said: as what, an `EdgeKind` or words.
create or replace temp table why_met as
select unnest($numbers::integer[]) as repository, $digest::blob as digest, null::blob as below, '' as said, 0 as round;
-- why_root(repository, digest, reason): what was found.
create or replace temp table why_root (repository integer, digest blob, reason varchar);

-- name: roots
-- Add to why_root those repositories in which something of this round is a root, and in words why; the plainest reason
-- of each. following: a tag that follows what it names counts, too.
insert into why_root
with front as (
    select repository, digest from why_met anti join why_root using (repository) where round = $round
)
select repository, digest, reason
from (
    select f.repository, f.digest, 1 as rank, 'tag ' || t.name as reason
    from front f
    join tag t on t.repository = f.repository and t.target = f.digest
    anti join gc_dead_tag d on d.repository = t.repository and d.name = t.name
    where $following or not $delete_untagged or not exists (
        from revision_link v where v.repository = t.repository and v.digest = tag_subject(t.name)
    )
    union all
    select f.repository, f.digest, 2, case
        when not $delete_untagged then 'revision link'
        when x.mtime >= $cutoff then 'revision link younger than the grace'
        else 'revision link of a protected repository' end
    from front f
    join revision_link x on x.repository = f.repository and x.digest = f.digest
    anti join gc_broken_revision b on b.repository = x.repository and b.digest = x.digest
    where not $delete_untagged or x.mtime >= $cutoff or x.repository in (select repository from gc_protected)
    union all
    select f.repository, f.digest, 3, 'layer link younger than the grace'
    from front f
    join layer_link x on x.repository = f.repository and x.digest = f.digest
    where x.mtime >= $cutoff
    union all
    select f.repository, f.digest, 3, 'layer link younger than the grace'
    from front f
    join layer_link x on x.repository = f.repository and x.target = f.digest
    where x.mtime >= $cutoff
    union all
    select f.repository, f.digest, 4, 'manifest linked as v2.1 did' from front f semi join legacy_revision
    using (repository, digest)
    union all
    select f.repository, f.digest, 5, 'a key that is not understood'
    from front f
    semi join unknown_digest using (digest)
    anti join repository r on r.id = f.repository
)
qualify row_number() over (partition by repository order by rank, reason, digest) = 1;

-- name: above
-- Add to why_met, as the next round, what names anything of this one; how much that was. All of it is reached.
insert into why_met
with front as (
    select repository, digest from why_met anti join why_root using (repository) where round = $round
),
named as (
    select f.repository, e.source as digest, e.target as below, e.kind::varchar as said
    from front f
    join edge e on e.target = f.digest
    semi join (from reach where expand) k on k.repository = f.repository and k.digest = e.source
    where e.kind <> {subject}
    union all
    select f.repository, e.target, e.source, 'referrer'
    from front f
    join edge e on e.source = f.digest and e.kind = {subject}
    semi join gc_sound_revision r on r.repository = f.repository and r.digest = e.source
    semi join reach k on k.repository = f.repository and k.digest = e.target
    union all
    select f.repository, l.digest, l.target, 'what its layer link says'
    from front f
    join layer_link l on l.repository = f.repository and l.target = f.digest and l.target <> l.digest
    semi join reach k on k.repository = f.repository and k.digest = l.digest
    union all
    select f.repository, tag_subject(t.name), t.target, 'what tag ' || t.name || ' names'
    from front f
    join tag t on t.repository = f.repository and t.target = f.digest
    anti join gc_dead_tag d on d.repository = t.repository and d.name = t.name
    semi join reach k on k.repository = f.repository and k.digest = tag_subject(t.name)
)
select repository, digest, below, said, $round + 1
from named anti join why_met using (repository, digest)
qualify row_number() over (partition by repository, digest order by below, said) = 1;

-- name: found
-- (repository, reason, digest, said): the chain of each repository that has one, from its root down; said: as what
-- the digest is named by the one before.
with recursive chain as (
    select r.repository, r.reason, r.digest, '' as said, 0 as depth from why_root r
    union all
    select distinct c.repository, c.reason, m.below, m.said, c.depth + 1
    from chain c join why_met m on m.repository = c.repository and m.digest = c.digest
    where m.below is not null
)
select repository, reason, digest, said from chain order by repository, depth;

-- name: also
-- (words): what keeps a blob though no repository reaches it. path: the digest as it stands in keys.
select 'layer link ' || digest_text(x.digest) || ' of ' || r.name
from layer_link x
join repository r on r.id = x.repository
anti join gc_dead_layer_link d on d.repository = x.repository and d.digest = x.digest
where x.digest = $digest or x.target = $digest
union all
select 'revision link ' || digest_text(x.digest) || ' of ' || r.name || ', which names it'
from revision_link x
join repository r on r.id = x.repository
anti join gc_dead_revision d on d.repository = x.repository and d.digest = x.digest
where x.target = $digest and x.target <> x.digest
union all
select 'a signature of ' || digest_text(x.revision) || ' in ' || r.name
from signature_link x
join repository r on r.id = x.repository
anti join gc_dead_signature d on d.repository = x.repository and d.revision = x.revision and d.digest = x.digest
where x.digest = $digest
union all
select 'unknown key ' || key from unknown
where contains(key, digest_path($digest::blob)) and starts_with(key, '{repositories}')
union all
select 'the blob is younger than the grace' from blob where digest = $digest and mtime >= $cutoff
order by 1 limit 20;
