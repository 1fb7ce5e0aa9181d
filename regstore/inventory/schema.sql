-- One registry's storage, as listed once. Digests are the hash's own bytes: 32 for sha256, 48 for sha384, 64 for
-- sha512, so the length names the algorithm. Times are microseconds since 1970, UTC, by the store's clock.

-- name: shared
-- What a later look shares with the first: blobs, and what is known of manifests.
create table blob (
    digest blob not null,
    size bigint not null,
    mtime bigint not null
);

-- Every digest that was looked at as a manifest. state: 'ok', 'missing', 'mismatch' (other bytes than the digest
-- says), 'invalid' (not understood without guessing), 'too large', 'unreadable' (the store has it and does not give
-- it: nothing is known of it), 'unsure' (wrong once, and not known to be wrong: `gc.confirm`).
create table manifest (
    digest blob not null,
    state varchar not null,
    reason varchar,
    media_type varchar,
    artifact_type varchar,
    size bigint not null
);

-- kind: manifest.EdgeKind. size: what the descriptor says, -1 where it does not.
create table edge (
    source blob not null,
    target blob not null,
    kind tinyint not null,
    size bigint not null
);

-- name: own
-- What each look has of its own.
create table repository (
    id integer not null,
    name varchar not null
);

-- target: what the link's body names, null where it names nothing. body: the bytes, only where they are not exactly
-- the link's own digest (null too where they were too long to read: then size tells). unread: why the store did not
-- give them, null where it did or was not asked.
create table layer_link (
    repository integer not null,
    digest blob not null,
    target blob,
    body blob,
    size bigint not null,
    mtime bigint not null,
    unread varchar
);

create table revision_link (
    repository integer not null,
    digest blob not null,
    target blob,
    body blob,
    size bigint not null,
    mtime bigint not null,
    unread varchar
);

-- Schema1 signatures as v2.0 to 2.4 stored them, one link each below the revision. sound: LIST proved that the link's
-- body is its own digest (else it was not read).
create table signature_link (
    repository integer not null,
    revision blob not null,
    digest blob not null,
    sound boolean not null,
    size bigint not null,
    mtime bigint not null
);

-- One row for each tag's current/link.
create table tag (
    repository integer not null,
    name varchar not null,
    target blob,
    body blob,
    size bigint not null,
    mtime bigint not null,
    unread varchar
);

-- Used while scanning: what LIST said of each tag's link.
create table tag_etag (
    repository integer not null,
    name varchar not null,
    etag varchar not null
);

-- The history of a tag: one row for each digest that it ever named. sound: as above.
create table tag_index (
    repository integer not null,
    name varchar not null,
    digest blob not null,
    sound boolean not null,
    size bigint not null,
    mtime bigint not null
);

-- One row for each object of an upload.
create table upload_part (
    repository integer not null,
    uuid varchar not null,
    part varchar not null,
    size bigint not null,
    mtime bigint not null
);

-- Unfinished S3 multipart uploads of objects below _uploads/. newest: the time of the newest part.
create table multipart_upload (
    repository integer not null,
    uuid varchar not null,
    key varchar not null,
    upload_id varchar not null,
    size bigint not null,
    newest bigint not null
);

-- S3 directory markers and files of NAS and desktop systems: they refer to nothing.
create table litter (
    key varchar not null,
    size bigint not null,
    mtime bigint not null,
    marker boolean not null
);

create table unknown (
    key varchar not null,
    size bigint not null,
    mtime bigint not null
);

-- Keys whose storage class, as the listing has it, says that they can't be read at once, and those of which reading
-- told (class '': Intelligent-Tiering archives what still lists as its own class); hardly any.
create table archived (
    key varchar not null,
    class varchar not null
);

create view archived_blob as
select unhex(split_part(key, '/', 7)) as digest, key, any_value(class) as class from archived
where regexp_full_match(key, '{blobs}(?:{blob})/data') group by key;

-- v2.1.0 linked manifests under _layers, with their signatures under _manifests/revisions: 2.x still
-- serves them, 3.x does not. A client's DELETE takes the layer link too (2.x), so these are not deleted ones.
create view legacy_revision as
select distinct s.repository, s.revision as digest
from signature_link s
join layer_link l on l.repository = s.repository and l.digest = s.revision
anti join revision_link r on r.repository = s.repository and r.digest = s.revision;

-- Digests that stand in keys of repositories which could not be decoded. followed: named as a manifest.
create view unknown_digest as
select unhex(regexp_replace(named, '^[^/]*/', '')) as digest, bool_or(followed) as followed
from (
    select unnest(regexp_extract_all(key, '{digest}')) as named, contains(key, '/_manifests/') as followed
    from unknown where starts_with(key, '{repositories}')
)
group by digest;
