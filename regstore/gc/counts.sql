-- name: counts
-- (what, name, number): 'blobs', 'links', and of each repository, by its name, the tags ('tagged'), or the revisions
-- where it has none ('untagged').
select 'blobs' as what, '' as name, count(*) as number from blob
union all
select 'links', '', count(*)
from (select size from tag union all select size from revision_link union all select size from layer_link)
union all
select 'tagged', r.name, count(*) from {tags} t join repository r on r.id = t.repository group by r.name
union all
select 'untagged', r.name, count(*)
from {revisions} v join repository r on r.id = v.repository
anti join {tags} t on t.repository = v.repository
group by r.name;
