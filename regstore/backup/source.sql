-- What a backup takes of a registry, from an inventory and later listings of it. $names are repositories.

-- name: repositories
select name from repository order by name

-- name: tag_names
select distinct t.name from tag t join repository r on r.id = t.repository
where r.name in (select unnest($names::varchar[]))

-- name: contents
-- (name, kind, label, one, two, body, size): everything that a listing, in {schema}, says of a repository, one row each.
-- Times are left out.
select r.name, 'layer_link' as kind, '' as label, t.digest as one, t.target as two, t.body as body, t.size
from {schema}.layer_link t join {schema}.repository r on r.id = t.repository
union all
select r.name, 'revision_link', '', t.digest, t.target, t.body, t.size
from {schema}.revision_link t join {schema}.repository r on r.id = t.repository
union all
select r.name, 'signature_link', '', t.revision, t.digest, null::blob, t.size
from {schema}.signature_link t join {schema}.repository r on r.id = t.repository
union all
select r.name, 'tag', t.name, null::blob, t.target, t.body, t.size
from {schema}.tag t join {schema}.repository r on r.id = t.repository
union all
select r.name, 'tag_index', t.name, t.digest, null::blob, null::blob, t.size
from {schema}.tag_index t join {schema}.repository r on r.id = t.repository

-- name: differing
-- Repositories that two listings show differently.
select distinct name from ((from ({one}) except from ({other})) union all (from ({other}) except from ({one})))

-- name: adopt_repositories
-- Numbers for those that only the later listing has.
insert into main.repository
select (select coalesce(max(id), 0) from main.repository) + row_number() over (), name from (
    select later.name from {schema}.repository later anti join main.repository known on known.name = later.name
    where later.name in (select unnest($names::varchar[]))
)

-- name: columns
-- Of a {table}, without its repository.
select column_name from (describe main.{table}) where column_name <> 'repository'

-- name: adopt
-- The later listing's rows of a {table}, with their {columns}, in place of these.
delete from main.{table} where repository in
    (select id from main.repository where name in (select unnest($names::varchar[])));
insert into main.{table} (repository, {columns})
select m.id, {later_columns} from {schema}.{table} t
join {schema}.repository r on r.id = t.repository join main.repository m on m.name = r.name
where r.name in (select unnest($names::varchar[]))

-- name: forget_blobs
delete from blob where digest in (select unnest($digests::blob[]))

-- name: absent
-- What repositories name that is not among the blobs.
with chosen as (select id from repository where name in (select unnest($names::varchar[]))),
named as (
    select target as digest from layer_link where repository in (from chosen)
    union select digest from revision_link where repository in (from chosen)
    union
    select e.target from revision_link v join edge e on e.source = v.digest
    where v.repository in (from chosen) and e.kind <> {subject}
)
select digest from named anti join blob using (digest) where digest is not null

-- name: present
select digest from blob where digest in (select unnest($digests::blob[]))

-- name: forget_missing
-- Manifests that were missing may have come; what was read stays.
delete from manifest where state = 'missing'

-- name: unlinked
-- Repository, digest and whether it is a manifest: what a manifest names, and no link of the repository does.
select distinct r.name, e.target, e.kind = {manifest}
from repository r join revision_link v on v.repository = r.id join edge e on e.source = v.digest
where r.name in (select unnest($names::varchar[])) and e.kind not in ({subject}, {foreign_layer})
    and not exists (from layer_link l where l.repository = r.id and l.digest = e.target)
    and not exists (from revision_link x where x.repository = r.id and x.digest = e.target)

-- name: repository_numbers
select name, id from repository
