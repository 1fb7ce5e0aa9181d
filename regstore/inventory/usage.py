"""What a registry's storage is used for: bytes of blobs, by repository. Pure SQL over an inventory.

A repository uses a blob that it links, or that its tags and revisions reach (`reachability`). Bytes are those that
are stored: a blob that many repositories use is stored once, and is shared by them.
"""

from __future__ import annotations

from dataclasses import dataclass

from regstore.inventory.inventory import Inventory, text_sql
from regstore.inventory.reachability import Reachability


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryUsage:
    """unique: bytes that only this repository uses; shared: that others use too; uploads: of its open uploads."""

    name: str
    tags: int
    revisions: int
    blobs: int
    unique: int
    shared: int
    uploads: int

    @property
    def total(self) -> int:
        return self.unique + self.shared


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Of the whole store; sizes in bytes. unreferenced: blobs that no repository uses, as far as could be read; unread:
    what could not."""

    repositories: tuple[RepositoryUsage, ...]
    blobs: int
    blob_bytes: int
    shared_blobs: int
    shared_bytes: int
    unreferenced_blobs: int
    unreferenced_bytes: int
    upload_bytes: int
    unread: tuple[str, ...] = ()


def plan_usage(inventory: Inventory) -> Usage:
    """Makes used_blob(repository, digest, size, users) in the inventory."""
    reach = Reachability(inventory, "used")
    reach.add(
        """
        select repository, digest, true as expand from revision_link
        union all select repository, target, true from tag
        union all select repository, digest, true from legacy_revision
        union all select repository, unnest([digest, target]), false from layer_link
        union all select repository, digest, false from signature_link
        """
    )
    inventory.execute(
        """
        create or replace table used_blob as
        select u.repository, b.digest, b.size, count(*) over (partition by b.digest) as users
        from (select distinct repository, digest from used) u join blob b on b.digest = u.digest
        """
    )
    rows = inventory.all(
        """
        with bytes as (
            select repository, count(*) as blobs, sum(size) filter (users = 1) as own,
                sum(size) filter (users > 1) as shared
            from used_blob group by repository
        ),
        tags as (select repository, count(*) as number from tag group by repository),
        revisions as (select repository, count(*) as number from revision_link group by repository),
        uploads as (
            select repository, sum(size) as bytes from (
                select repository, size from upload_part union all select repository, size from multipart_upload
            ) group by repository
        )
        select r.name, coalesce(t.number, 0), coalesce(v.number, 0), coalesce(b.blobs, 0),
            coalesce(b.own, 0)::bigint, coalesce(b.shared, 0)::bigint, coalesce(u.bytes, 0)::bigint
        from repository r
        left join bytes b on b.repository = r.id left join tags t on t.repository = r.id
        left join revisions v on v.repository = r.id left join uploads u on u.repository = r.id
        """
    )
    usages = [
        RepositoryUsage(
            name=name, tags=tags, revisions=revisions, blobs=blobs, unique=own, shared=shared, uploads=open_
        )
        for name, tags, revisions, blobs, own, shared, open_ in rows
    ]
    shared = inventory.all(
        "select count(*), coalesce(sum(size), 0)::bigint"
        " from (select distinct digest, size from used_blob where users > 1)"
    )[0]
    unused = inventory.all(
        "select count(*), coalesce(sum(size), 0)::bigint from blob where digest not in (select digest from used_blob)"
    )[0]
    return Usage(
        repositories=tuple(sorted(usages, key=lambda usage: (-usage.total, usage.name))),
        blobs=inventory.count("blob"),
        blob_bytes=inventory.one("select coalesce(sum(size), 0)::bigint from blob"),
        shared_blobs=shared[0],
        shared_bytes=shared[1],
        unreferenced_blobs=unused[0],
        unreferenced_bytes=unused[1],
        upload_bytes=sum(usage.uploads for usage in usages),
        unread=_name_unread(inventory),
    )


def _name_unread(inventory: Inventory, *, most: int = 1000) -> tuple[str, ...]:
    """A line for each manifest and link that the store has and did not give; so many at most."""
    rows = inventory.all(
        f"""
        select 'manifest ' || {text_sql("digest")} || ' can''t be read: ' || reason
        from manifest where state = 'unreadable'
        union all
        select r.name || ': the link of tag ' || t.name || ' can''t be read: ' || unread
        from tag t join repository r on r.id = t.repository where unread is not null
        union all
        select r.name || ': the link of revision ' || {text_sql("digest")} || ' can''t be read: ' || unread
        from revision_link t join repository r on r.id = t.repository where unread is not null
        union all
        select r.name || ': the link of layer ' || {text_sql("digest")} || ' can''t be read: ' || unread
        from layer_link t join repository r on r.id = t.repository where unread is not null
        order by 1 limit {most}
        """
    )
    return tuple(line for (line,) in rows)
