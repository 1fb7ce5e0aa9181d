-- Keys to rows, as `layout.decode` does it; a property test holds the two to each other. In: the view `page` with
-- key, size, etag, mtime. {placeholders} are layout's own regular expressions.
--
-- Every key of a store comes through here, in batches. A key is cut into the parts that its beginning lets expect; where
-- these, with what stands between them, are not all of it, it is another one. So no regular expression counts a digest's
-- digits, which takes long to compile, at each batch, and to match; and `substr` takes a tenth of the time of a slice.

-- name: decode
-- decoded(kind, key, name, digest, revision, label, part, sound, size, etag, mtime)
create or replace temp table decoded as
with split as (
    select
        *,
        case when starts_with(key, '{repositories}') then substr(key, length('{repositories}') + 1) end as rest,
        starts_with(key, '{prefix}') as in_registry,
        contains(key, '/./') or contains(key, '/../') or ends_with(key, '/.') or ends_with(key, '/..') as dotted
    from page
),
named as (
    select
        *,
        case when cut > 0 then substr(rest, 1, cut - 1) end as name,
        case when cut > 0 then substr(rest, cut + 1) end as tail
    from (select *, strpos(rest, '/_') as cut from split)
),
shaped as (
    select
        *,
        case
            when starts_with(tail, '_layers/') then 'layer_link'
            when starts_with(tail, '_manifests/tags/') then
                case when ends_with(tail, '/current/link') then 'tag' else 'tag_index' end
            when starts_with(tail, '_manifests/revisions/') then
                case when contains(tail, '/signatures/') then 'signature_link' else 'revision_link' end
            when starts_with(tail, '_uploads/') then 'upload_part'
            when starts_with(key, '{blobs}') then 'blob'
        end as shape
    from named
),
cut_up as (
    select
        *,
        case shape
            when 'blob' then split_part(key, '/', 5)
            when 'layer_link' then split_part(tail, '/', 2)
            when 'revision_link' then split_part(tail, '/', 3)
            when 'signature_link' then split_part(tail, '/', 6)
            when 'tag_index' then split_part(tail, '/', 5)
        end as algorithm,
        case shape
            when 'blob' then split_part(key, '/', 7)
            when 'layer_link' then split_part(tail, '/', 3)
            when 'revision_link' then split_part(tail, '/', 4)
            when 'signature_link' then split_part(tail, '/', 7)
            when 'tag_index' then split_part(tail, '/', 6)
        end as encoded,
        case when shape = 'signature_link' then split_part(tail, '/', 3) end as revision_algorithm,
        case when shape = 'signature_link' then split_part(tail, '/', 4) end as revision_encoded,
        case
            when shape in ('tag', 'tag_index') then split_part(tail, '/', 3)
            when shape = 'upload_part' then split_part(tail, '/', 2)
        end as label
    from shaped
),
judged as (
    select
        *,
        case when dotted or not in_registry then false else regexp_matches(key, '/{litter_folder}/') end as littered,
        case when name is not null then regexp_full_match(name, '{name}') else false end as is_named,
        case when strlen(encoded) = case algorithm {hex_lengths} end and lower(encoded) = encoded
            then try(unhex(encoded)) end as digest,
        case when strlen(revision_encoded) = case revision_algorithm {hex_lengths} end
                and lower(revision_encoded) = revision_encoded
            then try(unhex(revision_encoded)) end as revision,
        -- whether the parts and what stands between them are the whole key
        case shape
            when 'blob' then ends_with(key, '/data') and split_part(key, '/', 6) = substr(encoded, 1, 2)
                and strlen(key) = strlen('{blobs}xx//data') + 1 + strlen(algorithm) + strlen(encoded)
            when 'layer_link' then ends_with(tail, '/link')
                and strlen(tail) = strlen('_layers///link') + strlen(algorithm) + strlen(encoded)
            when 'revision_link' then ends_with(tail, '/link')
                and strlen(tail) = strlen('_manifests/revisions///link') + strlen(algorithm) + strlen(encoded)
            when 'signature_link' then tail = '_manifests/revisions/' || revision_algorithm || '/' || revision_encoded
                || '/signatures/' || algorithm || '/' || encoded || '/link'
            when 'tag' then strlen(tail) = strlen('_manifests/tags//current/link') + strlen(label)
            when 'tag_index' then ends_with(tail, '/link') and split_part(tail, '/', 4) = 'index'
                and strlen(tail) = strlen('_manifests/tags//index///link') + strlen(label) + strlen(algorithm)
                    + strlen(encoded)
            else true
        end as is_whole
    from cut_up
),
owns as (
    select
        *,
        case
            when dotted then 'unknown'
            when littered then 'litter'
            when shape = 'blob' and digest is not null and is_whole then 'blob'
            when key in ('{blobs}_regstore/seed', '{repositories}_regstore/seed') then 'seed'
            when not is_named or not is_whole then 'unknown'
            when shape in ('layer_link', 'revision_link') and digest is not null then shape
            when shape = 'tag' and regexp_full_match(label, '{tag}') then shape
            when shape = 'tag_index' and digest is not null and regexp_full_match(label, '{tag}') then shape
            when shape = 'signature_link' and digest is not null and revision is not null then shape
            when shape = 'upload_part' and regexp_full_match(tail, '_uploads/{uuid}/{part}') then shape
            else 'unknown'
        end as own
    from judged
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
)
select
    kind,
    case when kind in ('unknown', 'marker', 'litter') then key end as key,
    case when kind not in ('unknown', 'marker', 'litter', 'seed', 'blob') then name end as name,
    case when kind = shape then digest end as digest,
    case when kind = 'signature_link' then revision end as revision,
    case when kind = shape then label end as label,
    case when kind = 'upload_part' then substr(tail, length('_uploads/') + 36 + 2) end as part,
    -- a link of exactly this size and MD5 says what its path says
    case
        when kind = shape and kind <> 'blob' and size = strlen(algorithm) + 1 + strlen(encoded)
            then etag = md5(algorithm || ':' || encoded)
        else false
    end as sound,
    size,
    etag,
    mtime
from kinds;
