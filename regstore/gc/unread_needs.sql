-- name: anything_unread
(select 1 from manifest where state in ('unreadable', 'unsure') limit 1)
union all
(select 1 from tag where unread is not null limit 1)
union all
(select 1 from layer_link where unread is not null limit 1);

-- name: held
-- (run, repository, why): runs that took something from a repository in which something can't be read, or from any one
-- where that is named by an unknown key; and runs with a copy of it in the trash.
with unread as (
    select k.repository, 'manifest ' || digest_text(m.digest) || ' can''t be read: ' || m.reason as why
    from {reach} k join manifest m using (digest)
    where k.expand and m.state in ('unreadable', 'unsure')
    union all
    select repository, 'the link of tag ' || name || ' can''t be read: ' || unread
    from tag where unread is not null
    union all
    select repository, 'the link of layer ' || digest_text(digest) || ' can''t be read: ' || unread
    from layer_link where unread is not null
),
needy as (
    select coalesce(r.name, '') as name, min(why) as why
    from unread left join repository r on r.id = unread.repository
    group by all
),
-- An unknown key stands in no repository that is known: it may be any.
took as (
    select m.run, m.digest, n.name, n.why from removed m join needy n on n.name in ('', m.name)
)
select run, min(name), min(why)
from (
    select run, name, why from took
    union all
    select t.run, k.name, k.why from trash t join took k using (digest)
)
group by run
order by run;
