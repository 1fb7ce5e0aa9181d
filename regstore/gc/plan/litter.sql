-- S3 directory markers and the files of NAS and desktop systems that go. The regular expressions are `layout`'s.

-- name: places
-- litter_place(key, size, mtime, folder, name, inner_folder): where each stands that is old enough. name: of the
-- repository in whose own folders that is, else null; inner_folder: the folder below the repository's.
create or replace temp table litter_place as
with placed as (
    select *,
        coalesce(
            nullif(regexp_extract(key, '^(.*?/){litter_folder}/', 1), ''),
            case when marker then key end,
            regexp_extract(key, '^(.*/)', 1)
        ) as folder
    from litter where mtime < $cutoff and not regexp_matches(key, '{kept_litter}')
),
named as (
    select *, nullif(regexp_extract(folder, '^{repositories}({name})/{own}', 1), '') as name from placed
)
select key, size, mtime, folder, name, folder[{repositories_length} + 2 + length(name):] as inner_folder
from named;

-- name: repositories
-- Repositories of which nothing but litter is left: the registry may list them.
insert into repository
select (select coalesce(max(id), 0) from repository) + row_number() over (), name
from (select distinct name from litter_place where name is not null) anti join repository using (name);

-- name: level
-- What of its repository a folder belongs to, of a relation `p` with its name and the `path` of the folder in it.
-- tag; part: the digest as in a key, or the upload's id.
case
    when regexp_matches({path}, '^_layers/{digest}/') then 'layer'
    when regexp_matches({path}, '^_manifests/revisions/{digest}/') then 'revision'
    when regexp_matches({path}, '^_manifests/tags/{tag}/index/{digest}/') then 'tag index'
    when regexp_matches({path}, '^_manifests/tags/{tag}/') then 'tag'
    when regexp_matches({path}, '^_uploads/{uuid}/') then 'upload'
    else 'repository'
end as level,
regexp_extract({path}, '^_manifests/tags/([^/]+)/', 1) as tag,
concat(
    regexp_extract({path}, '^_layers/({digest})/', 1),
    regexp_extract({path}, '^_manifests/revisions/({digest})/', 1),
    regexp_extract({path}, '^_manifests/tags/{tag}/index/({digest})/', 1),
    regexp_extract({path}, '^_uploads/({uuid})/', 1)
) as part

-- name: staying
-- staying(repository, level, tag, part): every key of a repository that stays, by what its folder is named by; and
-- the unknown keys in repositories' own folders. standing_repository(name): those of which something stays.
create or replace temp table staying as
select repository, 'layer' as level, null as tag, digest_path(digest) as part
from layer_link anti join gc_dead_layer_link using (repository, digest)
union all
select repository, 'revision', null, digest_path(digest)
from revision_link anti join gc_dead_revision using (repository, digest)
union all
select repository, 'revision', null, digest_path(revision)
from signature_link anti join gc_dead_signature using (repository, revision, digest)
union all
select repository, 'tag', name, null from tag anti join gc_dead_tag using (repository, name)
union all
select repository, 'tag index', name, digest_path(digest)
from tag_index anti join gc_dead_tag_index using (repository, name, digest)
union all
select repository, 'upload', null, uuid
from (select repository, uuid from upload_part union select repository, uuid from multipart_upload)
anti join gc_dead_upload using (repository, uuid)
union all
select r.id, {level_of_unknown}
from (
    select name, key[{repositories_length} + 2 + length(name):] as below
    from (select key, regexp_extract(key, '^{repositories}({name})/{own}', 1) as name from unknown)
) p
join repository r using (name);
create or replace temp table standing_repository as
select r.name from repository r
semi join (select repository from staying union select repository from gc_protected) s on s.repository = r.id;

-- name: inner
-- gc_dead_litter, from the repositories' own folders: nothing else in its folder stays.
insert into gc_dead_litter
with placed as materialized (
    select p.key, p.size, p.mtime, r.id as repository, {level_of_litter}
    from litter_place p join repository r using (name)
)
select repository, key, size, mtime, null
from (
    from placed l anti join staying s on s.repository = l.repository where l.level = 'repository'
    union all
    from placed l anti join (from staying where level in ('tag', 'tag index')) s
        on s.repository = l.repository and s.tag = l.tag where l.level = 'tag'
    union all
    from placed l anti join staying s
        on s.repository = l.repository and s.level = l.level and s.tag = l.tag and s.part = l.part
    where l.level = 'tag index'
    union all
    from placed l anti join staying s on s.repository = l.repository and s.level = l.level and s.part = l.part
    where l.level not in ('repository', 'tag', 'tag index')
) anti join gc_protected using (repository);

-- name: no_standing
create or replace temp table standing_repository (name varchar);

-- name: in_folders_of_blobs
-- (digest) of blobs' folders, in which litter stands.
select distinct unhex(split_part(folder, '/', 7)) as digest
from litter_place where regexp_matches(folder, '^{blobs}(?:{blob})/');

-- name: outer
-- gc_dead_litter, from the folders of blobs, and from those above repositories, where no repository below stays.
insert into gc_dead_litter
with placed as materialized (
    select *, unhex(split_part(folder, '/', 7)) as digest
    from litter_place where regexp_matches(folder, '^{blobs}(?:{blob})/')
),
unknown_place as (
    select unhex(split_part(key, '/', 7)) as digest from unknown where regexp_matches(key, '^{blobs}(?:{blob})/')
),
parts as (
    select string_split(name, '/') as parts from standing_repository
    union all
    select string_split(key[{repositories_length} + 1:], '/') from unknown where starts_with(key, '{repositories}')
),
above as (
    select distinct '{repositories}' || array_to_string(parts[:n], '/') || '/' as folder
    from parts, unnest(range(1, len(parts) + 1)) as t(n)
)
select null, key, size, mtime, digest
from (
    from placed anti join blob using (digest) union all from placed semi join gc_dead_blob using (digest)
) anti join unknown_place using (digest)
union all
select null, key, size, mtime, null from litter_place anti join above using (folder)
where name is null and regexp_matches(folder, '^{repositories}{name}/$');
