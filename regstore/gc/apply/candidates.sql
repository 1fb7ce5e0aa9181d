-- The blobs that may go, and those that went (`candidates.py`).

-- name: begin
-- gc_candidate(position, digest, size, mtime): the planned blobs, in the order of their keys: by algorithm, then by
-- digest. gc_gone(digest, position): none yet.
create or replace table gc_candidate as
select row_number() over (order by octet_length(digest), digest) as position, digest, size, mtime
from gc_dead_blob order by position;
create or replace table gc_gone (digest blob, position bigint);

-- name: keep_reached
-- Run on a later look at all links, with its plan. Gives how many stay: what it reaches, and what a repository may need
-- that has become unreadable, of the very links that this run took from it.
delete from main.gc_candidate where digest in (
    select digest from main.gc_candidate anti join gc_dead_blob using (digest)
    union
    select unnest([l.digest, l.target]) from main.layer_link l
    join main.gc_dead_layer_link using (repository, digest)
    join main.repository r on r.id = l.repository
    where r.name in (select name from repository join gc_protected p on p.repository = id)
);

-- name: after
-- The next $most behind $position.
select position, digest, size, mtime from gc_candidate where position > $position order by position limit $most;

-- name: done
-- What is gone from position $first on is no blob any more, and what has had its turn, up to $last, no candidate.
delete from blob where digest in (select digest from gc_gone where position >= $first);
delete from gc_candidate where position <= $last;
