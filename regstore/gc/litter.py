"""S3 directory markers and the files of NAS and desktop systems: they refer to nothing, and go with the folder that gc
empties. What of them goes, in SQL over the plan's tables.

Each stands in some folder (a marker stands for one, `@eaDir/…` in the folder above it): that of a link, a tag, an
upload or a blob, that of a whole repository, or one above repositories. It goes where nothing else in that folder stays
and it is itself older than the grace, whether something goes with it now or the folder was empty before: a registry
that lists by prefix goes on showing a repository, or a tag, of which only a marker is left.

Tables: litter_place(key, size, mtime, name, repository, inner, folder), and

    gc_dead_litter(repository, key, size, mtime, digest)

repository: in whose own folders it stands, null elsewhere; digest: of the blob in whose folder it stands, else null.
"""

from __future__ import annotations

from regstore import layout
from regstore.digest import HEX_LENGTH
from regstore.inventory.inventory import Inventory, path_sql

_OWN = "_(?:layers|manifests|uploads)/"
_BLOB = "|".join(f"{name}/[0-9a-f]{{2}}/[0-9a-f]{{{length}}}" for name, length in HEX_LENGTH.items())


def collect_litter(inventory: Inventory, *, cutoff: int) -> None:
    """What goes from the repositories' own folders, by the dead links, tags and uploads of the plan; nothing goes from
    a protected repository."""
    run = inventory.execute
    run(
        "create or replace table gc_dead_litter"
        " (repository integer, key varchar, size bigint, mtime bigint, digest blob)"
    )
    if not inventory.count("litter"):
        return
    run(
        f"""
        create or replace temp table litter_place as
        with placed as (
            select *,
                coalesce(
                    nullif(regexp_extract(key, '^(.*?/){layout.LITTER_FOLDER_RE}/', 1), ''),
                    case when marker then key end,
                    regexp_extract(key, '^(.*/)', 1)
                ) as folder
            from litter where mtime < {cutoff} and not regexp_matches(key, '{layout.KEPT_LITTER_RE}')
        ),
        named as (
            select *,
                nullif(regexp_extract(folder, '^{layout.REPOSITORIES}({layout.NAME_RE})/{_OWN}', 1), '') as name
            from placed
        )
        select key, size, mtime, folder, name, folder[{len(layout.REPOSITORIES) + 2} + length(name):] as inner_folder
        from named
        """
    )
    # Repositories of which nothing but litter is left: the registry may list them.
    run(
        """
        insert into repository
        select (select coalesce(max(id), 0) from repository) + row_number() over (), name
        from (
            select distinct name from litter_place
            where name is not null and name not in (select name from repository)
        )
        """
    )
    run(f"create or replace temp table litter_level as {_level('litter_place', 'size, mtime', 'inner_folder')}")
    run(f"create or replace temp table staying as {_STAYING} union all {_UNKNOWN}")
    run(
        """
        insert into gc_dead_litter
        select repository, key, size, mtime, null from litter_level l
        where repository not in (select repository from gc_protected) and case level
            when 'repository' then repository not in (select repository from staying)
            when 'tag' then not exists (
                from staying s where s.repository = l.repository and s.level in ('tag', 'tag index') and s.tag = l.tag)
            when 'tag index' then not exists (
                from staying s where s.repository = l.repository and s.level = 'tag index' and s.tag = l.tag
                    and s.part = l.part)
            else not exists (
                from staying s where s.repository = l.repository and s.level = l.level and s.part = l.part) end
        """
    )


def collect_outer_litter(inventory: Inventory) -> None:
    """The same for the folders of blobs, and for those above repositories."""
    if not inventory.count("litter"):
        return
    run = inventory.execute
    run(
        f"""
        insert into gc_dead_litter
        with placed as (
            select *, unhex(split_part(folder, '/', 7)) as digest
            from litter_place where regexp_matches(folder, '^{layout.BLOBS}(?:{_BLOB})/')
        )
        select null, key, size, mtime, digest from placed
        where (digest not in (select digest from blob) or digest in (select digest from gc_dead_blob))
            and digest not in (
                select unhex(split_part(key, '/', 7)) from unknown
                where regexp_matches(key, '^{layout.BLOBS}(?:{_BLOB})/')
            )
        """
    )
    run(
        f"""
        insert into gc_dead_litter
        with parts as (
            select string_split(name, '/') as parts from repository
            where id in (select repository from staying) or id in (select repository from gc_protected)
            union all
            select string_split(key[{len(layout.REPOSITORIES) + 1}:], '/') from unknown
            where starts_with(key, '{layout.REPOSITORIES}')
        ),
        above as (
            select distinct '{layout.REPOSITORIES}' || array_to_string(parts[:n], '/') || '/' as folder
            from parts, unnest(range(1, len(parts) + 1)) as t(n)
        )
        select null, key, size, mtime, null from litter_place
        where name is null and regexp_matches(folder, '^{layout.REPOSITORIES}{layout.NAME_RE}/$')
            and folder not in (select folder from above)
        """
    )


#: Every key of a repository that stays, by what its folder is named by.
_STAYING = f"""
    select repository, 'layer' as level, null as tag, {path_sql("digest")} as part
    from layer_link anti join gc_dead_layer_link using (repository, digest)
    union all
    select repository, 'revision', null, {path_sql("digest")}
    from revision_link anti join gc_dead_revision using (repository, digest)
    union all
    select repository, 'revision', null, {path_sql("revision")}
    from signature_link anti join gc_dead_signature using (repository, revision, digest)
    union all
    select repository, 'tag', name, null from tag anti join gc_dead_tag using (repository, name)
    union all
    select repository, 'tag index', name, {path_sql("digest")}
    from tag_index anti join gc_dead_tag_index using (repository, name, digest)
    union all
    select repository, 'upload', null, uuid from (
        select repository, uuid from upload_part union select repository, uuid from multipart_upload
    ) anti join gc_dead_upload using (repository, uuid)
"""


def _level(table: str, columns: str, path: str) -> str:
    """SQL: what of its repository a row's folder belongs to. path: the column that holds it, from `_layers` and the
    like on, with a slash at the folder's end. tag; part: the digest as in a key, or the upload's id."""
    named = (
        f"^_layers/({layout.DIGEST_PATH_RE})/",
        f"^_manifests/revisions/({layout.DIGEST_PATH_RE})/",
        f"^_manifests/tags/{layout.TAG_RE}/index/({layout.DIGEST_PATH_RE})/",
        f"^_uploads/({layout.UUID_RE})/",
    )
    parts = "concat(" + ", ".join(f"regexp_extract({path}, '{regex}', 1)" for regex in named) + ")"
    return f"""
        select key, {columns}, r.id as repository, case
            when regexp_matches({path}, '^_layers/{layout.DIGEST_PATH_RE}/') then 'layer'
            when regexp_matches({path}, '^_manifests/revisions/{layout.DIGEST_PATH_RE}/') then 'revision'
            when regexp_matches({path}, '^_manifests/tags/{layout.TAG_RE}/index/{layout.DIGEST_PATH_RE}/')
                then 'tag index'
            when regexp_matches({path}, '^_manifests/tags/{layout.TAG_RE}/') then 'tag'
            when regexp_matches({path}, '^_uploads/{layout.UUID_RE}/') then 'upload'
            else 'repository' end as level,
            regexp_extract({path}, '^_manifests/tags/([^/]+)/', 1) as tag,
            {parts} as part
        from {table} p join repository r using (name)
    """


_UNKNOWN_PLACE = f"""
    (
        select *, key[{len(layout.REPOSITORIES) + 2} + length(name):] as below
        from (
            select key, regexp_extract(key, '^{layout.REPOSITORIES}({layout.NAME_RE})/{_OWN}', 1) as name from unknown
        )
    )
"""
#: Unknown keys in repositories' own folders.
_UNKNOWN = f"select repository, level, tag, part from ({_level(_UNKNOWN_PLACE, 'below', 'below')})"
