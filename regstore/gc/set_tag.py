"""One tag set by name: a new one, or with somebody's word another image for one that stands.

    async with hold_lock(storage, command="tag") as lock:
        plan = await plan_tag(storage, Reference.parse("team/app:1.0"), "stable")
        await apply_tag(storage, plan, lock)

In the order of a push: the index link, then current/link (`regstore.tagging`). Nobody who pushes the tag meanwhile is
written over. The journal says what was to be written: REWRITTEN with what the tag held, which an undo puts back, or
CREATED. So nothing takes the times of these links for a registry's word that all was there which the image needs
(`gc.past`).
"""

from __future__ import annotations

from dataclasses import dataclass

from regstore import layout
from regstore.digest import Digest
from regstore.errors import InputError, NotFound, Refused
from regstore.inventory.links import LINK_MAX
from regstore.inventory.whose import Use, database_in_use, refuse_database
from regstore.layout import RevisionLinkKey, TagCurrentKey, TagIndexKey
from regstore.reference import Reference, parse_tag
from regstore.registry import Registry
from regstore.registry.links import is_begun
from regstore.state.journal import CREATED, REWRITTEN, Entry, Journal
from regstore.state.lock import Lock
from regstore.storage.base import ObjectInfo, Storage
from regstore.tagging import UNDER_WAY, list_tag, replace_tag


@dataclass(frozen=True, kw_only=True)
class TagPlan:
    """tag is to name digest. held: what its link holds, None where there is none; stands: that link as listed. known:
    the times of its index links, in microseconds."""

    tag: TagCurrentKey
    digest: Digest
    held: bytes | None
    stands: ObjectInfo | None
    known: dict[Digest, int]

    @property
    def was(self) -> str:
        """What the tag names; "" where there is none."""
        if self.held is None:
            return ""
        digest = layout.parse_link(self.held)
        return str(digest) if digest is not None else "nothing that can be read"

    def is_being_pushed(self, *, since: int) -> bool:
        """Whether its links show half of a push that is not older, in microseconds: that would be written over. Of this
        image it does no harm, and may be what a run that was killed has left."""
        if self.stands is not None and is_begun(self.held or b"") and self.stands.mtime >= since:
            return True  # on a disk a registry empties the file first
        set_at = self.stands.mtime + 1 if self.stands is not None else 0
        return any(mtime >= max(since, set_at) for digest, mtime in self.known.items() if digest != self.digest)

    @property
    def nothing_to_do(self) -> bool:
        return self.held == layout.link_body(self.digest)


async def plan_tag(storage: Storage, image: Reference, new: str, *, force: bool = False) -> TagPlan:
    """Look. The image's manifest is read and verified, and what it refers to is looked for, as a registry does at a
    push. force: the tag may name another image, and an index may lack some of its images.

    TagUnknown, ManifestUnknown, BlobUnknown, NameUnknown; IntegrityError where the image can't be read as its digest
    says; Refused where the tag names another image, or is being pushed.
    """
    if (image.tag is None) == (image.digest is None):
        raise InputError(f"{image} is no image: say REPOSITORY:TAG or REPOSITORY@DIGEST")
    tag = TagCurrentKey(image.name, parse_tag(new))
    refuse_database(storage.url, await database_in_use(storage), Use.WRITE)
    repository = Registry(storage).repository(image.name)
    stored = await repository.manifests.get(image.digest or image.tag or "")
    await repository.manifests.require_references(stored.manifest, sparse=force)
    links = await list_tag(storage, tag)
    stands = links.get(tag)
    if stands is not None and stands.size > LINK_MAX:
        raise Refused(
            f"{stands.key} holds {stands.size:,} bytes, which is no link, and no journal could bring it back"
        )
    plan = TagPlan(
        tag=tag,
        digest=stored.digest,
        held=await storage.get(stands.key) if stands is not None else None,
        stands=stands,
        known={key.digest: info.mtime for key, info in links.items() if isinstance(key, TagIndexKey)},
    )
    if plan.is_being_pushed(since=await storage.now() - UNDER_WAY):
        raise Refused(
            f"{tag.name}:{tag.tag} is being pushed just now; nothing was changed; look again when it is there"
        )
    if plan.held is not None and not plan.nothing_to_do and not force:
        raise Refused(f"{tag.name}:{tag.tag} names {plan.was} already; to make it name {plan.digest}, say --force")
    return plan


async def apply_tag(storage: Storage, plan: TagPlan, lock: Lock) -> str:
    """Set it; the run's name. Refused, with nothing of it written over, where somebody has set it since; and where the
    image was removed meanwhile, which is then what the tag names."""
    refuse_database(storage.url, await database_in_use(storage), Use.WRITE)  # the plan may have waited for a yes
    tag, body = plan.tag, layout.link_body(plan.digest)
    key = layout.encode(tag)
    journal = Journal(storage, lock.run)
    await journal.begin({"command": "tag", "tag": f"{tag.name}:{tag.tag}", "digest": str(plan.digest)})
    if plan.stands is None:
        entry = Entry(CREATED, key, len(body), await storage.now(), body)
    else:
        entry = Entry(REWRITTEN, key, plan.stands.size, plan.stands.mtime, plan.held)
    await journal.write([entry])
    async with lock.batch():
        await storage.put(layout.encode(TagIndexKey(tag.name, tag.tag, plan.digest)), body)
        found = await replace_tag(storage, tag, body, expected={plan.held}, known=plan.known, ours={plan.digest})
    await journal.end({"failures": 0, "set": found is None})
    if found is not None:
        names = layout.parse_link(found)
        raise Refused(f"{tag.name}:{tag.tag} was set meanwhile, and names {names}; it was left so")
    await _require_image(storage, plan)
    return lock.run


async def _require_image(storage: Storage, plan: TagPlan) -> None:
    """A client that deletes an image takes the tags that it sees."""
    name, tag = plan.tag.name, plan.tag.tag
    try:
        await storage.stat(layout.encode(RevisionLinkKey(name, plan.digest)))
    except NotFound as error:
        raise Refused(
            f"{name}@{plan.digest} was removed while {name}:{tag} was set to it; remove that tag, too"
        ) from error
