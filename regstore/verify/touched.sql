-- Which tags a fault touches. Of each repository alone.

-- name: reached
-- verify_reached(fault, repository, digest, pull, round): in round 0 where faults strike. How many. A digest may stand
-- twice, once for each value of pull.
create or replace temp table verify_reached as
select distinct fault, repository, digest, true as pull, 0 as round from verify_at

-- name: reached_above
-- The next round: up from that of the one before, through whatever names it or is referred to. How many are new. (A
-- recursion keeps all in memory, whatever the limit.)
insert into verify_reached
with front as (select fault, repository, digest, pull from verify_reached where round = $round - 1),
scheme as (
    select t.repository, t.target as digest, k.digest as subject
    from tag t join verify_followed k on k.repository = t.repository and names_digest(t.name, k.digest)
    where t.target is not null
),
above as (
    select f.fault, f.repository, n.source as digest, f.pull from front f
    join verify_need n on n.repository = f.repository and n.digest = f.digest
    union all
    select f.fault, f.repository, l.digest, f.pull from front f
    join layer_link l on l.repository = f.repository and l.target = f.digest
    where not is_sha256(l.digest)
    union all
    select f.fault, f.repository, e.target, false from front f
    join edge e on e.source = f.digest and e.kind = {subject}
    join verify_followed s on s.repository = f.repository and s.digest = e.source
    join verify_followed k on k.repository = f.repository and k.digest = e.target
    union all
    select f.fault, f.repository, s.subject, false from front f
    join scheme s on s.repository = f.repository and s.digest = f.digest
),
widest as (select fault, repository, digest, bool_or(pull) as pull from above group by fault, repository, digest)
select a.fault, a.repository, a.digest, a.pull, $round from widest a
anti join verify_reached r on r.fault = a.fault and r.repository = a.repository and r.digest = a.digest
    and r.pull >= a.pull

-- name: touched
-- verify_touched(fault, repository, tag, pull): the tags. pull: the tag can't be pulled whole; otherwise something that
-- refers to it is concerned.
create or replace table verify_touched as
select x.fault, x.repository, t.name as tag, bool_or(x.pull) as pull
from verify_reached x join tag t on t.repository = x.repository and t.target = x.digest
group by x.fault, x.repository, t.name
union all
select id, repository, tag, area = 'tag' from verify_fault where tag is not null

-- name: lost_targets
-- Empty links of tags that only ever named one manifest, which is linked and whole: these are repairable.
update verify_fault f set repairable = true where f.kind = 'link damaged' and f.area = 'tag' and f.size = 0 and exists (
    from ({only_target}) o join revision_link r on r.repository = o.repository and r.digest = o.digest
    where o.repository = f.repository and o.name = f.tag and r.target = r.digest
        and o.digest in (select digest from manifest where state = 'ok')
        and not exists (
            from verify_reached x where x.repository = o.repository and x.digest = o.digest and x.pull
        )
)

-- name: only_target
-- Tags whose history holds one manifest, by a sound link: (repository, name, digest, mtime).
select i.repository, i.name, min(i.digest) as digest, max(i.mtime) as mtime from tag_index i
group by i.repository, i.name having count(*) = 1 and not exists (
    from verify_odd_link o where o.area = 'history' and o.repository = i.repository and o.tag = i.name
)
