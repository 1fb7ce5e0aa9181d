-- Digests that are not yet known as manifests: (digest, size), size null where the blob was not listed.

-- name: linked
select digest, any_value(blob.size) from (
    from (
        select digest from revision_link
        union
        select target from tag where target is not null
        union
        select digest from legacy_revision
        union
        select digest from unknown_digest where followed
        union
        -- one of these is what such a tag names
        select digest from tag_index join tag using (repository, name) where tag.unread is not null
    ) anti join manifest using (digest)
)
left join blob using (digest) group by digest limit {most}

-- name: children
select blob.digest, any_value(blob.size) from (
    from (select distinct target from edge where kind = {manifest}) e
    anti join manifest m on m.digest = e.target
) join blob on blob.digest = target
group by blob.digest limit {most}
