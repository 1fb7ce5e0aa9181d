-- What each repository needs, from its links and from what its manifests say. Of each repository alone.

-- name: links
-- verify_linked(repository, digest): by a revision or a layer link. verify_followed(repository, digest, lost): manifests
-- that are followed: linked revisions, targets of tags, and children of these. lost: a child whose own link was lost.
create or replace table verify_linked as
select repository, digest from revision_link
union all
select repository, digest from layer_link anti join revision_link using (repository, digest);

create or replace table verify_followed as
select repository, digest, false as lost from (
    select repository, digest from revision_link
    union select repository, target from tag where target is not null
    union select repository, digest from legacy_revision
)

-- name: follow_children
-- One row for each that is new. One that nothing links is lost where all that it names is linked, else it is sparse.
insert into verify_followed
with child as (
    select distinct f.repository, e.target as digest, l.digest is not null as linked
    from verify_followed f
    join edge e on e.source = f.digest and e.kind = {manifest}
    left join verify_linked l on l.repository = f.repository and l.digest = e.target
    anti join verify_followed k on k.repository = f.repository and k.digest = e.target
)
select repository, digest, false from child where linked
union all
select c.repository, c.digest, true from child c
join edge e on e.source = c.digest and e.kind not in ({subject}, {foreign_layer})
left join verify_linked l on l.repository = c.repository and l.digest = e.target
where not c.linked
group by c.repository, c.digest having count(*) = count(l.digest)
returning 1

-- name: needs
-- verify_named(repository, digest, source, kind, size, linked, followed): what followed manifests name;
-- verify_need, likewise: of this what is needed.
-- verify_required(repository, digest, stored): every digest that a repository needs, and the one under which its bytes
-- lie, null where that is not known; a digest may stand more than once. Views, as another copy of millions of rows would
-- be written and read again for nothing; verify_alias has the few whose bytes lie elsewhere.
create or replace table verify_named as
select f.repository, e.target as digest, e.source, e.kind, e.size,
    l.digest is not null as linked, k.digest is not null as followed
from verify_followed f
join edge e on e.source = f.digest and e.kind <> {subject}
left join verify_linked l on l.repository = f.repository and l.digest = e.target
left join verify_followed k on k.repository = f.repository and k.digest = e.target;

create or replace view verify_need as from verify_named
where case kind when {manifest} then followed when {foreign_layer} then linked else true end;

create or replace table verify_alias as
select n.repository, n.digest, case
    when l.digest is not null then l.target
    when f.digest is not null then n.digest end as stored
from (
    select repository, digest from verify_followed where not is_sha256(digest)
    union
    select repository, digest from verify_need where not is_sha256(digest)
) n
left join (from layer_link where not is_sha256(digest)) l on l.repository = n.repository and l.digest = n.digest
left join (from verify_followed where not is_sha256(digest)) f on f.repository = n.repository and f.digest = n.digest;

create or replace view verify_required as
select repository, digest, digest as stored from verify_followed where is_sha256(digest)
union all
select repository, digest, digest from verify_need where is_sha256(digest)
union all
select repository, digest, stored from verify_alias
