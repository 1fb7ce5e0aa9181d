-- What keeps a digest, read from a plan's tables. number: a repository's id, that of unknown keys included.

-- name: reached
-- (number, name) of the repositories that reach a digest.
select distinct k.repository, coalesce(r.name, 'unknown keys')
from reach k left join repository r on r.id = k.repository
where k.digest = $digest
order by 2;

-- name: stored
-- (stored, goes): how many blobs of this digest there are, and go.
select (select count(*) from blob where digest = $digest), (select count(*) from gc_dead_blob where digest = $digest);

-- name: roots
-- (digest, reason): which of the digests are roots of the repository, and in words why; the plainest reason first.
-- following: a tag that follows what it names counts, too.
with wanted as (select unnest($digests::blob[]) as digest)
select digest, reason
from (
    select t.target as digest, 1 as rank, 'tag ' || t.name as reason
    from tag t
    where t.repository = $number and not exists (
        from gc_dead_tag d where d.repository = t.repository and d.name = t.name
    ) and not ($delete_untagged and not $following and coalesce(tag_subject(t.name), ''::blob) in (
        select digest from revision_link where repository = $number))
    union all
    select x.digest, 2, case
        when not $delete_untagged then 'revision link'
        when x.mtime >= $cutoff then 'revision link younger than the grace'
        else 'revision link of a protected repository' end
    from revision_link x
    where x.repository = $number and not exists (
        from gc_broken_revision b where b.repository = x.repository and b.digest = x.digest
    ) and (not $delete_untagged or x.mtime >= $cutoff or x.repository in (select repository from gc_protected))
    union all
    select unnest([x.digest, x.target]), 3, 'layer link younger than the grace'
    from layer_link x where x.repository = $number and x.mtime >= $cutoff
    union all
    select digest, 4, 'manifest linked as v2.1 did' from legacy_revision where repository = $number
    union all
    select digest, 5, 'a key that is not understood'
    from unknown_digest where $number not in (select id from repository)
)
where digest in (from wanted)
order by rank, reason;

-- name: above
-- (digest, what it names of the given ones, as what), all reached in this repository. As what: an `EdgeKind`, or words.
with wanted as (select unnest($digests::blob[]) as digest),
kept as (select digest, bool_or(expand) as expand from reach where repository = $number group by digest)
select e.source, e.target, e.kind::varchar
from edge e join kept k on k.digest = e.source
where k.expand and e.kind <> {subject} and e.target in (from wanted)
union
select e.target, e.source, 'referrer'
from edge e
join kept k on k.digest = e.target
join gc_sound_revision r on r.repository = $number and r.digest = e.source
where e.kind = {subject} and e.source in (from wanted)
union
select l.digest, l.target, 'what its layer link says'
from layer_link l join kept k on k.digest = l.digest
where l.repository = $number and l.target in (from wanted) and l.target <> l.digest
union
select tag_subject(t.name), t.target, 'what tag ' || t.name || ' names'
from tag t join kept k on k.digest = tag_subject(t.name)
where t.repository = $number and t.target in (from wanted)
    and not exists (from gc_dead_tag d where d.repository = t.repository and d.name = t.name)
order by 1, 2, 3;

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
