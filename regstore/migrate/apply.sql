-- What `migrate` does, row by row, in the order of its steps.

-- name: blobs
-- Blobs of a lane, of more than $over and at most $most bytes, the largest first: digest, bytes, whether its bytes are
-- suspect at the source, whether the target has it. From `to_copy` or `to_prove`.
select digest, size, suspect, present from ({wanted}) where size > $over and size <= $most order by size desc

-- name: sums
-- How many those of a lane are, and their bytes.
select count(*), coalesce(sum(size), 0)::bigint from ({wanted}) where size > $over and size <= $most

-- name: to_copy
-- What the target lacks.
select digest, size, suspect, false as present from migrate_blob

-- name: to_prove
-- All that will be needed there.
select l.digest, l.size, l.suspect, m.digest is null as present from live_blob l
left join migrate_blob m using (digest)

-- name: layer_links
-- The source's and the target's name of the repository, the link's digest, what it says, and whether that was not copied.
select m.name, m.target, l.digest, l.target, b.digest is not null from migrate_layer_link l
join migrate_repository m on m.id = l.repository
left join (select distinct digest from migrate_blocked) b on b.digest = l.target

-- name: ranks
-- Of manifests, children before what names them.
select distinct rank from migrate_revision order by 1

-- name: revisions
-- Of a $rank. The source's and the target's name of the repository, the manifest, and whether anything of it was not copied.
select m.name, m.target, r.digest, b.digest is not null from migrate_revision r
join migrate_repository m on m.id = r.repository
left join (select distinct digest from migrate_blocked) b using (digest) where r.rank = $rank

-- name: signatures
select m.target, s.revision, s.digest from migrate_signature s
join migrate_repository m on m.id = s.repository
anti join migrate_blocked b on b.digest = s.revision
anti join migrate_blocked c on c.digest = s.digest

-- name: tag_index
-- The history of a tag that can't be written waits for it: a registry lists a tag's folder as a tag.
select m.target, x.name, x.digest from migrate_tag_index x
join migrate_repository m on m.id = x.repository
anti join migrate_blocked b on b.digest = x.digest
where not exists (
    from live_tag t join migrate_blocked c on c.digest = t.target
    where t.repository = x.repository and t.name = x.name
)

-- name: tags_left_out
-- Something of their manifests was not copied.
select m.name, t.name, t.target from migrate_tag t join migrate_repository m on m.id = t.repository
semi join migrate_blocked b on b.digest = t.target

-- name: tags
-- Tags to set; where they are looked at, also the index links that this pass writes, and those that the target had.
with looked_at as (
    select t.repository, m.target as place, t.name from migrate_tag t
    join migrate_repository m on m.id = t.repository where {looked_at}
),
written as (
    select w.repository, w.name, list(x.digest) as digests
    from looked_at w join migrate_tag_index x using (repository, name) group by all
),
history as (
    select w.repository, w.name, list((i.digest, i.mtime)) as links from looked_at w
    join dst.repository o on o.name = w.place
    join dst.tag_index i on i.repository = o.id and i.name = w.name group by all
)
select m.name, m.target, t.name, t.target, t.mtime, t.present, t.was, w.digests, h.links from migrate_tag t
join migrate_repository m on m.id = t.repository
left join written w on w.repository = t.repository and w.name = t.name
left join history h on h.repository = t.repository and h.name = t.name
anti join migrate_blocked b on b.digest = t.target
