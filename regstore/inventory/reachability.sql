-- What each repository's roots keep, round by round. {table} is the relation that is made, {revisions} the revision
-- links that count, {also} and {incoming} are queries.

-- name: create
-- What is reached. expand: the digest is followed; round: in which round it was met, so that the rows of the last one
-- are those to go on from.
create or replace table {table} (
    repository integer not null,
    digest blob not null,
    expand boolean not null,
    round integer not null
);

-- name: beside
-- <table>_beside(repository, digest, beside, expand): where a repository reaches the digest, whatever names it, it
-- keeps what is beside: referrers of it, and what a layer link's body names instead of it.
create or replace temp table {table}_beside as
select r.repository, e.target as digest, r.digest as beside, true as expand
from {revisions} r join edge e on e.source = r.digest and e.kind = {subject}
union all
select repository, digest, target, false from layer_link where target <> digest
union all
{also};

-- name: nothing_else
-- In the place of `also`, where nothing else is to be kept.
select null::integer, null::blob, null::blob, false where false

-- name: advance
-- One round: what is new of `incoming`, which gives (repository, digest, expand). `materialized`: what is joined and
-- what is grouped is held in memory at different times, and spills.
insert into {table}
with incoming as materialized (
    select repository, digest, bool_or(expand) as expand
    from ({incoming}) where digest is not null group by repository, digest
),
widened as materialized (
    select i.repository, i.digest, i.expand or r.digest is not null as expand
    from incoming i left join {revisions} r on r.repository = i.repository and r.digest = i.digest
)
select w.repository, w.digest, w.expand, $round
from widened w
anti join {table} k on k.repository = w.repository and k.digest = w.digest and k.expand >= w.expand;

-- name: named
-- In the place of `incoming`: what the manifests of the round before name.
select f.repository, e.target as digest, e.kind = {manifest} as expand
from {table} f join edge e on e.source = f.digest
where f.round = $round - 1 and f.expand and e.kind <> {subject}

-- name: named_or_beside
-- The same, with what is beside.
select f.repository, e.target as digest, e.kind = {manifest} as expand
from {table} f join edge e on e.source = f.digest
where f.round = $round - 1 and f.expand and e.kind <> {subject}
union all
select f.repository, b.beside, b.expand
from {table} f join {table}_beside b on b.repository = f.repository and b.digest = f.digest
where f.round = $round - 1
