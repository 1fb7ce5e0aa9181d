-- Keys to rows, as `layout.decode` does it; a property test holds the two to each other. In: the view `page` with
-- key, size, etag, mtime. {placeholders} are layout's own regular expressions.

-- name: decode
-- decoded(kind, key, name, digest, revision, label, part, sound, size, etag, mtime)
create or replace temp table decoded as
with split as (
    select
        *,
        key[length('{repositories}') + 1:] as rest,
        strpos(key[length('{repositories}') + 1:], '/_') as cut,
        starts_with(key, '{prefix}') as in_registry,
        starts_with(key, '{blobs}') as in_blobs,
        starts_with(key, '{repositories}') as in_repositories,
        contains(key, '/./') or contains(key, '/../') or ends_with(key, '/.') or ends_with(key, '/..') as dotted
    from page
),
named as (
    select
        *,
        case when in_repositories and cut > 0 then rest[:cut - 1] end as name,
        case when in_repositories and cut > 0 then rest[cut + 1:] end as tail
    from split
),
owns as (
    select
        *,
        case
            when dotted then 'unknown'
            when in_registry and regexp_matches(key, '/{litter_folder}/') then 'litter'
            when in_blobs then
                case
                    when regexp_full_match(key, '{blobs}(?:{blob})/data')
                        and split_part(key, '/', 6) = split_part(key, '/', 7)[:2]
                        then 'blob'
                    when key = '{blobs}_regstore/seed' then 'seed'
                    else 'unknown'
                end
            when key = '{repositories}_regstore/seed' then 'seed'
            when name is null or not regexp_full_match(name, '{name}') then 'unknown'
            when regexp_full_match(tail, '_layers/{digest}/link') then 'layer_link'
            when regexp_full_match(tail, '_manifests/revisions/{digest}/link') then 'revision_link'
            when regexp_full_match(tail, '_manifests/tags/{tag}/current/link') then 'tag'
            when regexp_full_match(tail, '_manifests/tags/{tag}/index/{digest}/link') then 'tag_index'
            when regexp_full_match(tail, '_uploads/{uuid}/{part}') then 'upload_part'
            when regexp_full_match(tail, '_manifests/revisions/{digest}/signatures/{digest}/link')
                then 'signature_link'
            else 'unknown'
        end as own
    from named
),
kinds as (
    select
        *,
        case
            when own <> 'unknown' or dotted or not in_registry then own
            -- one with content is no marker
            when ends_with(key, '/') then case when size = 0 then 'marker' else 'unknown' end
            when regexp_full_match(regexp_extract(key, '[^/]*$'), '{litter_file}') then 'litter'
            else own
        end as kind
    from owns
),
digests as (
    select
        *,
        case kind
            when 'blob' then split_part(key, '/', 5)
            when 'layer_link' then split_part(tail, '/', 2)
            when 'revision_link' then split_part(tail, '/', 3)
            when 'signature_link' then split_part(tail, '/', 6)
            when 'tag_index' then split_part(tail, '/', 5)
        end as algorithm,
        case kind
            when 'blob' then split_part(key, '/', 7)
            when 'layer_link' then split_part(tail, '/', 3)
            when 'revision_link' then split_part(tail, '/', 4)
            when 'signature_link' then split_part(tail, '/', 7)
            when 'tag_index' then split_part(tail, '/', 6)
        end as encoded
    from kinds
)
select
    kind,
    case when kind in ('unknown', 'marker', 'litter') then key end as key,
    case when kind not in ('unknown', 'marker', 'litter', 'seed', 'blob') then name end as name,
    unhex(encoded) as digest,
    case kind when 'signature_link' then unhex(split_part(tail, '/', 4)) end as revision,
    case
        when kind in ('tag', 'tag_index') then split_part(tail, '/', 3)
        when kind = 'upload_part' then split_part(tail, '/', 2)
    end as label,
    case when kind = 'upload_part' then tail[length('_uploads/') + 36 + 2:] end as part,
    -- a link of exactly this size and MD5 says what its path says
    kind in ('layer_link', 'revision_link', 'signature_link', 'tag_index')
        and size = length(algorithm) + 1 + length(encoded)
        and etag = md5(algorithm || ':' || encoded) as sound,
    size,
    etag,
    mtime
from digests;
