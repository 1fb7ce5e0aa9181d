-- From a report's files to the inventory's blobs (`rows.py`). Other keys than blobs are passed over, but for unknown
-- ones below blobs/, which a listing shows, too.

-- name: begin
-- reported_known: as the package says.
create table main.reported_known (digest blob not null)

-- name: read
-- reported_row(key, size, mtime, class): what a file has below blobs/. Of versions the latest, and no delete marker.
create or replace temp table reported_row as
select key[{root_length} + 1:] as key, size, mtime, class
from (
    select {key} as key, {size} as size, {mtime} as mtime, {class} as class
    from {source} where {latest}
)
where starts_with(key, {prefix})

-- name: faulty
-- (key) of one without a size, a time, or with nonsense.
select key from reported_row where size is null or size < 0 or mtime is null limit 1

-- name: page
-- page: as `decode` takes it.
create or replace temp view page as select key, size, '' as etag, mtime from reported_row

-- name: unknown
insert into unknown select key, size, mtime from decoded where kind = 'unknown'

-- name: archived
insert into archived
select key, class from reported_row where class in ({archive_classes})

-- name: end
drop view page;
drop table reported_row

-- name: once
-- Each blob once: a report may show a key twice, by two of its versions.
create or replace table main.reported_twice as
select digest, arg_max(size, mtime) as size, max(mtime) as mtime from main.blob group by digest having count(*) > 1;
delete from main.blob where digest in (select digest from main.reported_twice);
insert into main.blob from main.reported_twice;
drop table main.reported_twice
