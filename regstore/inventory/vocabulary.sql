-- What digests, keys and tags are called in SQL: macros of an inventory, and of its children, also for whoever queries
-- the file. Each says what `digest`, `layout` or `reference` says in Python; tests hold the two to each other. A digest
-- is the hash's own bytes. {placeholders} are regular expressions and keys of these modules.

-- name: macros
-- Digests (`digest.Digest`): `sha256`; `sha256:<hex>`; `sha256/<hex>`, as in a key, and back.
create macro algorithm(digest) as
    case octet_length(digest) when 32 then 'sha256' when 48 then 'sha384' when 64 then 'sha512' end;
create macro digest_text(digest) as algorithm(digest) || ':' || lower(hex(digest));
create macro digest_path(digest) as algorithm(digest) || '/' || lower(hex(digest));
create macro path_digest(path) as unhex(split_part(path, '/', 2));

-- A blob is stored by its sha256; a layer link to any other digest of it is an alias that names that one.
create macro is_sha256(digest) as octet_length(digest) = 32;
-- A layer link names its own digest, or that of the same bytes by another algorithm.
create macro is_sound_layer_link(digest, target) as
    target is not null and (target = digest or octet_length(target) <> octet_length(digest));

-- What is wrong with a link of these bytes, after its name; every command says it so. target: what it names, null where
-- that is no digest; unread: why the store does not give it.
create macro link_fault(size, target, unread) as case
    when unread is not null then 'can''t be read: ' || unread
    when target is not null then 'names another digest: ' || digest_text(target)
    when size = 0 then 'is empty'
    else 'has ' || size || ' bytes that are no digest' end;

-- Bytes of a link to it (`layout.LINK_SIZE`).
create macro link_size(digest) as 7 + 2 * octet_length(digest);

-- Keys (`layout.encode`). What stands in a repository is named by its tail: what comes after `<name>/`.
create macro blob_key(digest) as
    '{blobs}' || algorithm(digest) || '/' || lower(hex(digest))[:2] || '/' || lower(hex(digest)) || '/data';
create macro repository_key(name, tail) as '{repositories}' || name || '/' || tail;
create macro layer_link_tail(digest) as '_layers/' || digest_path(digest) || '/link';
create macro revision_link_tail(digest) as '_manifests/revisions/' || digest_path(digest) || '/link';
create macro signature_link_tail(revision, digest) as
    '_manifests/revisions/' || digest_path(revision) || '/signatures/' || digest_path(digest) || '/link';
create macro tag_tail(tag) as '_manifests/tags/' || tag || '/current/link';
create macro tag_index_tail(tag, digest) as '_manifests/tags/' || tag || '/index/' || digest_path(digest) || '/link';
create macro upload_tail(uuid, part) as '_uploads/' || uuid || '/' || part;

-- Tags that name a digest (`reference.DIGEST_TAG_RE`), and the digest that one names in full, else null
-- (`reference.subject_of_tag`).
create macro is_digest_tag(tag) as regexp_full_match(tag, '{digest_tag}');
create macro tag_subject(tag) as case
    when regexp_full_match(tag, '(?:sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128})(?:\..+)?')
        then unhex(split_part(split_part(tag, '.', 1), '-', 2))
    end;
-- Whether a tag names this digest, in full or cut (`reference.names_digest`). A join hashes by the first condition.
create macro names_digest(tag, digest) as
    tag[:71] = replace(digest_text(digest), ':', '-')[:71]
    and is_digest_tag(tag)
    and starts_with(replace(digest_text(digest), ':', '-'), split_part(tag, '.', 1));

-- Names of repositories that a registry accepts (`reference.is_name`).
create macro is_name(name) as
    length(name) <= {repository_name_max} and regexp_full_match(name, '{repository_name}');
