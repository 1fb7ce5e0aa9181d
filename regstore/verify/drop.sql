-- Which tags are to be dropped, by the plan of a verification (`plan.py` says what its tables hold).

-- name: broken_tags
-- For each fault of each tag that can't be pulled whole: repository, tag; size, time and body of its link as seen, or
-- null; the fault's kind, area and digest. At most a hundred of one tag are looked up, for one that still stands is
-- enough; those that need a blob to be read come last.
select r.name, v.tag, t.size, t.mtime, coalesce(t.body, encode(digest_text(t.target))) as body, f.kind, f.area, f.digest
from verify_touched v
join verify_fault f on f.id = v.fault
join repository r on r.id = v.repository
left join tag t on t.repository = v.repository and t.name = v.tag
where v.pull and f.kind in ('blob missing', 'blob damaged', 'link damaged', 'link missing')
    and f.area in ('blob', 'manifest', 'layer', 'revision', 'tag')
qualify row_number() over (partition by r.name, v.tag order by f.kind = 'blob damaged', f.id) <= 100
order by r.name, v.tag, f.kind = 'blob damaged', f.id
