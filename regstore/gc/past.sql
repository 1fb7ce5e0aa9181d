-- What earlier runs took. Times in microseconds.

-- name: tables
-- over: a registry that found the link after this did not find it by what the run was about to take; null where no
-- time says so. attempt: which process of the run was about to take it (`journal.attempt_of`).
create or replace table trash (digest blob, run varchar, key varchar, size bigint);
create or replace table removed (
    run varchar, key varchar, name varchar, step tinyint, digest blob, body blob, over bigint, attempt varchar
);
-- mtime: what is newer was pushed since.
create or replace table removed_tag (key varchar, name varchar, tag varchar, mtime bigint);

-- name: intended
-- What must have gone before others of its repository could. tag, digest: "" and empty where there is none.
create or replace table intended (
    run varchar, attempt varchar, name varchar, step tinyint, tag varchar, digest blob, size bigint, mtime bigint
);

-- name: of_repositories
-- (name): those that anything of this stands in.
select name from removed union select name from removed_tag;

-- name: of_intended
select distinct name from intended;

-- name: void_what_was_not_begun
-- Out of `removed`, the steps of a repository after one of which a key still stands as the journal has it.
delete from removed m
using (
    with standing as (
        select repository, {tag} as step, name as tag, ''::blob as digest, size, mtime from tag
        union all
        select repository, {tag_index}, name, digest, size, mtime from tag_index
        union all
        select repository, {revision}, '', digest, size, mtime from revision_link
    )
    select i.run, i.attempt, i.name, min(i.step) as step
    from intended i
    join repository r using (name)
    semi join standing x on x.repository = r.id and x.step = i.step and x.tag = i.tag and x.digest = i.digest
        and x.size = i.size and x.mtime = i.mtime
    group by i.run, i.attempt, i.name
) stands
where stands.run = m.run and stands.attempt = m.attempt and stands.name = m.name and m.step > stands.step;
drop table intended;

-- name: trust_no_times_of_ours
update removed set over = greatest(over, $written_by_us) where over is not null;

-- name: standing_again
-- (run, key) of the claims to links that stand.
select m.run, m.key
from removed m
join repository r using (name)
semi join (
    select repository, digest, true as is_revision from revision_link
    union all
    select repository, digest, false from layer_link
) x on x.repository = r.id and x.digest = m.digest and x.is_revision = (m.step = {revision});

-- name: with_keys
select run, key from removed where key in (select unnest($keys::varchar[]));
