-- Bodies of links that their size and ETag alone did not prove.

-- name: resolve_tags
-- A tag's body by its MD5, among the digests that its repository links as revisions or in the tag's history.
update tag set target = found.target
from (
    with candidate as (
        select repository, digest from revision_link
        union
        select repository, digest from tag_index
    ),
    text as (select repository, digest, digest_text(digest) as body from candidate)
    select tag.repository, tag.name, any_value(text.digest) as target
    from tag
    join tag_etag using (repository, name)
    join text on text.repository = tag.repository and md5(text.body) = tag_etag.etag
        and length(text.body) = tag.size
    group by all
) found
where tag.repository = found.repository and tag.name = found.name;

delete from tag_etag

-- name: forget_missing_manifests
-- A later look: what was missing may have been pushed since.
delete from main.manifest where state = 'missing'

-- name: unknown
-- (table) of those that have a link whose body nothing has told.
(select 'layer_link' from layer_link where {unknown} limit 1)
union all (select 'revision_link' from revision_link where {unknown} limit 1)
union all (select 'tag' from tag where {unknown} limit 1)

-- name: some_unknown
select repository, {column} from {table} where {unknown} limit {most}

-- name: others
-- (name, label) of other links, any.
select r.name, t.{column} from {table} t join repository r on r.id = t.repository
where size > 0 order by hash(r.name, t.{column}) limit $most

-- name: told
-- From found(repository, label, target, body, unread).
update {table} set target = found.target, body = found.body, unread = found.unread from found
where {table}.repository = found.repository and {table}.{column} = found.label

-- name: gone
-- From gone(repository, label).
delete from {table} t using gone where t.repository = gone.repository and t.{column} = gone.label
