-- Who is protected, and which revisions that can't be read may go instead.

-- name: link_reason
-- What is wrong with the link of a revision `x`, a text; null where nothing is.
case
    when x.target = x.digest then null
    else 'the link of revision ' || digest_text(x.digest) || ' ' || link_fault(x.size, x.target, x.unread)
end

-- name: broken
-- gc_broken_revision: those within the scopes, of which `scope_names` gives the repositories, null for all of them,
-- and `scope_digests` the digest where one is named. gc_broken_tag: the tags that point at them, but for those that a
-- policy protects.
insert into gc_broken_revision
with scope as (select unnest($scope_names::varchar[]) as name, unnest($scope_digests::blob[]) as digest)
select x.repository, x.digest,
    coalesce({link_reason}, 'manifest ' || digest_text(x.digest) || ' can''t be read: ' || m.reason)
from revision_link x
join repository r on r.id = x.repository
left join manifest m on m.digest = x.digest
where (x.target is not distinct from x.digest and m.state <> 'ok'
        or x.target is distinct from x.digest and x.body is not null)
    and x.mtime < $cutoff
    and (
        coalesce(m.state, 'ok') in ('ok', 'missing', 'mismatch') and exists (
            from scope s where s.digest is null and (s.name is null or s.name = r.name))
        or coalesce(m.state, 'ok') in ('ok', 'missing', 'mismatch', 'invalid', 'too large') and exists (
            from scope s where s.name = r.name and s.digest = x.digest)
    );
insert into gc_broken_tag
select t.repository, t.name, b.digest
from tag t
join gc_broken_revision b on b.repository = t.repository and b.digest = t.target
anti join (from gc_tag_fate where fate = '{protected}') f on f.repository = t.repository and f.name = t.name
where t.mtime < $cutoff;

-- name: protect
-- gc_protected, for what stands in the repository itself.
insert into gc_protected
with bad as (select digest, state, 'can''t be read: ' || reason as reason from manifest where state <> 'ok')
select id, 'its name is not one that a registry accepts'
from repository where not is_name(name)
union all
select x.repository, {link_reason}
from revision_link x
anti join gc_broken_revision b on b.repository = x.repository and b.digest = x.digest
where x.target is distinct from x.digest
union all
select x.repository, 'manifest ' || digest_text(x.digest) || ' ' || bad.reason
from (select repository, digest from revision_link union all select repository, digest from legacy_revision) x
join bad on bad.digest = x.digest
anti join gc_broken_revision b on b.repository = x.repository and b.digest = x.digest
union all
select x.repository, 'tag ' || x.name || ' names ' || digest_text(x.target) || ', which ' || bad.reason
from tag x
join bad on bad.digest = x.target and bad.state <> 'missing'
anti join gc_broken_revision b on b.repository = x.repository and b.digest = x.target
union all
select repository, 'the link of tag ' || name || ' ' || link_fault(size, target, unread)
from tag where unread is not null or $delete_untagged and target is null
union all
select repository, 'the link of layer ' || digest_text(digest) || ' ' || link_fault(size, target, unread)
from layer_link where unread is not null;

-- name: spare
-- Protected repositories, whose ids the query `protected` gives, lose nothing that is broken, for it protects them
-- instead, nor any tag by a policy.
insert into gc_protected
select repository, reason from gc_broken_revision where repository in ({protected});
delete from gc_broken_revision where repository in ({protected});
delete from gc_broken_tag where repository in ({protected});
delete from gc_dropped_tag where repository in ({protected});

-- name: broken_in
-- (name, digest) of what is broken and may go.
select r.name, b.digest from gc_broken_revision b join repository r on r.id = b.repository
