-- The plan's relations. Each is empty until the part of the plan that fills it has something for it.

-- name: roots

-- Of each tag, what the policy says (`gc.retention`, which makes it anew); and those that go by it.
create or replace table gc_tag_fate (
    repository integer, name varchar, target blob, mtime bigint, rule integer, fate varchar, time bigint,
    time_by varchar, place bigint
);
create or replace table gc_dropped_tag (repository integer, name varchar, rule varchar);

-- Repositories that are left alone, and every reason why.
create or replace table gc_protected (repository integer not null, reason varchar not null);

-- Revisions that can't be read and may go, the tags that point at them, and the other revision links.
create or replace table gc_broken_revision (repository integer, digest blob, reason varchar);
create or replace table gc_broken_tag (repository integer, name varchar, digest blob);
create or replace view gc_sound_revision as
from revision_link x anti join gc_broken_revision b on b.repository = x.repository and b.digest = x.digest;

-- Tags that stay only as long as the manifest that they name, the subject.
create or replace table gc_follower (repository integer, name varchar, target blob, subject blob);

-- Digests of another algorithm that any repository reaches, also one of another shard.
create or replace table gc_reached_odd (digest blob);

-- name: links

-- What goes.
create or replace table gc_dead_tag (repository integer, name varchar);
create or replace table gc_dead_tag_index (repository integer, name varchar, digest blob);
create or replace table gc_dead_revision (repository integer, digest blob);
create or replace table gc_dead_signature (repository integer, revision blob, digest blob);
create or replace table gc_dead_layer_link (repository integer, digest blob);
create or replace table gc_dead_upload (repository integer, uuid varchar, size bigint);
-- repository: in whose own folders it stands, null elsewhere; digest: of the blob in whose folder it stands, else null.
create or replace table gc_dead_litter (repository integer, key varchar, size bigint, mtime bigint, digest blob);

-- Every key of theirs but the blobs' and what stands in no repository, as it was listed. step: `Step`. label: of a
-- tag's keys the tag, of an upload's its id; digest: what a link is named by, and what a tag names; both null
-- elsewhere. body: the link's, where it is known.
create or replace table gc_unlink (
    repository integer, step tinyint, label varchar, digest blob, key varchar, size bigint, mtime bigint, body blob
);

-- name: blobs

create or replace table gc_dead_blob (digest blob, size bigint, mtime bigint);

-- name: present
-- (what): kinds of things that the inventory holds at all. (A select of ten `exists` costs DuckDB 30 ms.)
(select 'digest tags' from tag where is_digest_tag(name) limit 1)
union all
(select 'unreadable' from manifest where state not in ('ok', 'missing') limit 1)
union all
(select 'odd links' from layer_link where not is_sha256(digest) limit 1)
union all
(select 'signatures' from signature_link limit 1)
union all
(select 'uploads' from (select uuid from upload_part union all select uuid from multipart_upload) limit 1)
union all
(select 'litter' from litter limit 1)
union all
(select 'unknown' from unknown limit 1)
