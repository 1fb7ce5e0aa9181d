-- From decoded keys (`decode.sql`) to the tables of their kinds; one section for each.

-- name: kinds
select distinct kind from decoded

-- name: blob
insert into blob select digest, size, mtime from decoded where kind = 'blob'

-- name: marker
insert into litter select key, size, mtime, true from decoded where kind = 'marker'

-- name: litter
insert into litter select key, size, mtime, false from decoded where kind = 'litter'

-- name: unknown
insert into unknown select key, size, mtime from decoded where kind = 'unknown'

-- name: located
-- located(decoded's columns, repository): what stands in repositories; those that are new get a number.
insert into repository
select (select coalesce(max(id), 0) from repository) + row_number() over (), name
from (
    select distinct name from decoded anti join repository using (name)
    where name is not null and kind not in ('unknown', 'marker', 'litter', 'seed')
);

create or replace temp table located as
select d.*, r.id as repository from decoded d join repository r using (name)

-- Links whose body the listing did not prove: `target` stays null until `scan` has resolved or read it.

-- name: layer_link
insert into layer_link select repository, digest, case when sound then digest end, null, size, mtime, null
from located where kind = 'layer_link'

-- name: revision_link
insert into revision_link select repository, digest, case when sound then digest end, null, size, mtime, null
from located where kind = 'revision_link'

-- name: signature_link
insert into signature_link select repository, revision, digest, sound, size, mtime
from located where kind = 'signature_link'

-- name: tag
insert into tag select repository, label, null, null, size, mtime, null from located where kind = 'tag';

insert into tag_etag select repository, label, etag from located where kind = 'tag'

-- name: tag_index
insert into tag_index select repository, label, digest, sound, size, mtime from located where kind = 'tag_index'

-- name: upload_part
insert into upload_part select repository, label, part, size, mtime from located where kind = 'upload_part'
