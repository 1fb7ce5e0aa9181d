-- A policy applied to the tags. What its rules say of a row (is_kept and the like, SQL of columns) is filled in.

-- name: times
create table if not exists main.config_created (digest blob not null, time bigint, state varchar not null);
create table if not exists main.migrate_record
    (repository varchar, tag varchar, digest blob, time bigint, set_by bigint);

-- name: sort
create or replace table gc_tag_rule as
with named as (
    select t.repository, t.name, t.target, t.mtime, r.name as repo
    from tag t join repository r on r.id = t.repository
),
ruled as (select *, {rule} as rule from named),
record as (
    select repository, tag, digest, max(time) as time, min(set_by) as set_by from main.migrate_record group by all
)
select u.repository, u.name, u.target, u.mtime, u.rule,
    coalesce(m.time, u.mtime) as own_time,
    case when m.time is null then 'link' else 'record' end as own_by,
    case
        when {is_protected} then '{protected}'
        when is_digest_tag(u.name) then '{names_digest}'
        when rule is null then '{no_rule}'
        when u.target is null then '{damaged}'
        when {is_kept} then '{kept}'
        when not {is_meant} then '{not_meant}'
    end as fate
from ruled u
left join record m on m.repository = u.repo and m.tag = u.name and m.digest = u.target and u.mtime <= m.set_by;

-- name: images
-- gc_tag_image(digest, config): the configs of each tag's image, or of all images of its index.
create or replace temp table gc_tag_image as
with recursive below(digest, part) as (
    select distinct target, target from gc_tag_rule where fate is null and {by_created}
    union all  -- what `union` has seen stays in memory, whatever the limit; no manifest reaches itself, so it ends
    select distinct b.digest, e.target from below b join edge e on e.source = b.part
    where e.kind = {manifest}
)
select distinct b.digest, e.target as config from below b join edge e on e.source = b.part
where e.kind = {config};

-- name: no_images
create or replace temp table gc_tag_image (digest blob, config blob);

-- name: configs
-- (digest, size) of those whose time is not known.
select i.config, any_value(b.size)
from gc_tag_image i left join blob b on b.digest = i.config
anti join main.config_created c on c.digest = i.config
group by i.config;

-- name: decide
create or replace table gc_tag_fate as
with made as (
    select i.digest, bool_or(coalesce(c.state, 'unreadable') = 'unreadable') as unknown,
        max(c.time) filter (c.time between $earliest and $latest) as time
    from gc_tag_image i left join main.config_created c on c.digest = i.config
    group by i.digest
),
timed as (
    select t.*, {by_created} as by_created, m.time as made, by_created and coalesce(m.unknown, false) as unknown
    from gc_tag_rule t left join made m on m.digest = t.target
),
known as (
    select repository, name, target, mtime, rule,
        case when fate is null and unknown then '{unknown_time}' else fate end as fate,
        case when by_created and made is not null then made else own_time end as time,
        case when by_created and made is not null then 'created' else own_by end as time_by
    from timed
),
placed as (
    select * replace (case when fate is null then time end as time,
            case when fate is null then time_by end as time_by),
        case when fate is null then row_number() over (
            partition by repository, rule, fate is null order by time desc, mtime desc, name desc
        ) end as place
    from known
)
select * replace (case
        when fate is not null then fate
        when {is_newest} then '{newest}'
        when {is_younger} then '{younger}'
        when mtime >= $cutoff then '{grace}'
        else '{goes}'
    end as fate)
from placed;

-- name: dropped
insert into gc_dropped_tag
select repository, name, ($labels::varchar[])[rule + 1] from gc_tag_fate where fate = '{goes}';
