"""Links and uploads go: of some repositories at a time, a kind of key after the other (`gc.plan.Step`).

Whose plan that is, gc's or one of what somebody has named (`gc.removal`), is said by who makes it: `PlanAgain`.

For each handful of repositories, in order:

1. while the registry serves they are listed again and planned anew (`_look_again`): only what both plans remove, and
   what did not change in between, goes on; of a repository in which a tag is being pushed nothing goes (where only tags
   go, nothing of that tag);
2. every key is journaled, with the body of every link, before any goes; a link whose body can't be had stays;
3. the keys are deleted, step by step. Where one would not go, or where a tag was pushed as it went, nothing of a later
   step goes in its repository;
4. the registry's cache is told of the links, and unfinished multipart uploads are aborted;
5. while the registry serves the repositories are listed once more (`_look_after`): what somebody needed while it was
   taken comes back.

Whatever is cut short leaves garbage, never a link to nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from regstore.concurrency import for_each, in_thread
from regstore.errors import NotFound, StorageError
from regstore.events import Progress
from regstore.gc.apply.application import BATCH, Work
from regstore.gc.apply.fate import Fate
from regstore.gc.apply.going import DeadUpload, Going, Group, Row, dead_uploads, groups, half_pushed
from regstore.gc.children import read_children
from regstore.gc.heal import Healed
from regstore.gc.past import Past
from regstore.gc.plan import Step
from regstore.inventory.inventory import Inventory
from regstore.inventory.links import LINK_MAX
from regstore.inventory.scan import Scanner
from regstore.layout import TagCurrentKey
from regstore.state.journal import ABORTED, Entry
from regstore.state.pushed_again import give_back
from regstore.storage.streams import is_fatal
from regstore.tagging import remove_tag_folders

#: Makes the plan's tables anew in a later look at some repositories (`gc.plan.plan_links`).
PlanAgain = Callable[[Inventory], Awaitable[None]]
#: Keys that stay after all and are told by name.
_KEPT_KEYS: Final = 1000
#: No link: nothing of these is put back.
_WITHOUT_BODY: Final = frozenset({Step.UPLOAD, Step.LITTER})


@dataclass(frozen=True, kw_only=True)
class Unlinked:
    """steps: how many keys went in each. uploads: how many uploads lost a key, upload_bytes what these held. kept: keys
    that were planned, and had changed, or were in use, and kept_keys the first of them. healed: what the looks after
    gave back; tags_back: keys of tags that were pushed as they went, and stand again."""

    steps: Mapping[Step, int]
    uploads: int
    upload_bytes: int
    kept: int
    kept_keys: tuple[str, ...]
    healed: Healed
    tags_back: tuple[str, ...]

    @property
    def links(self) -> int:
        """Those that count as links of the store (`gc.counts`)."""
        return sum(self.steps[step] for step in (Step.TAG, Step.REVISION, Step.LAYER))

    def __add__(self, other: Unlinked) -> Unlinked:
        return Unlinked(
            steps={step: self.steps[step] + other.steps[step] for step in Step},
            uploads=self.uploads + other.uploads,
            upload_bytes=self.upload_bytes + other.upload_bytes,
            kept=self.kept + other.kept,
            kept_keys=(self.kept_keys + other.kept_keys)[:_KEPT_KEYS],
            healed=self.healed + other.healed,
            tags_back=self.tags_back + other.tags_back,
        )

    @property
    def anything_but_litter(self) -> bool:
        return any(number for step, number in self.steps.items() if step is not Step.LITTER)


NOTHING_UNLINKED: Final = Unlinked(
    steps=dict.fromkeys(Step, 0),
    uploads=0,
    upload_bytes=0,
    kept=0,
    kept_keys=(),
    healed=Healed(),
    tags_back=(),
)


class Unlinking:
    """All links and uploads of a plan, the tables of `gc.plan.links`. manifests: what goes depends on them, so that
    looks read those that are new; without, only tags go. fates: gets that of each key that goes, or can't. before: what
    an earlier attempt was about to take, of the same."""

    def __init__(
        self,
        work: Work,
        plan_again: PlanAgain,
        *,
        manifests: bool = True,
        fates: MutableMapping[str, Fate] | None = None,
        before: Sequence[Entry] = (),
    ) -> None:
        self._work = work
        self._plan_again = plan_again
        self._manifests = manifests
        self._fates = fates
        self._before = before
        self._steps = dict.fromkeys(Step, 0)
        self._uploads: set[tuple[str, str]] = set()
        self._upload_bytes = 0
        self._kept = 0
        self._kept_keys: list[str] = []
        self._healed = Healed()
        self._tags_back: list[str] = []
        #: Repositories of which a tag was pushed as it went.
        self._pushed: set[str] = set()

    async def run(self) -> Unlinked:
        inventory = self._work.inventory
        done, total = 0, inventory.count("gc_unlink")
        for group in groups(inventory):
            going = Going(inventory, group)
            await in_thread(going.choose)
            done += len(going)
            await self.unlink(group, going, dead_uploads(inventory, group.ids))
            self._work.on_event(Progress(phase="unlinking", done=done, total=total, unit="links"))
        return self.unlinked()

    async def unlink(self, group: Group, going: Going, uploads: Sequence[DeadUpload]) -> None:
        """What goes of a few repositories, by the order of the steps above."""
        offline = self._work.offline
        if not offline:
            uploads = await self._look_again(group, going, uploads)
        await self._delete(going)
        await self._abort(uploads)
        if not offline:
            self._healed += await self._look_after(group, going)

    def unlinked(self) -> Unlinked:
        """What came of all so far."""
        return Unlinked(
            steps=self._steps,
            uploads=len(self._uploads),
            upload_bytes=self._upload_bytes,
            kept=self._kept,
            kept_keys=tuple(self._kept_keys),
            healed=self._healed,
            tags_back=tuple(self._tags_back),
        )

    # The looks around

    async def _look_again(self, group: Group, going: Going, uploads: Sequence[DeadUpload]) -> list[DeadUpload]:
        """List the repositories anew, plan them anew, and keep what both plans say of keys that did not change. The
        multipart uploads that may be aborted."""
        look = self._work.inventory.child()
        parts = going.uploads()
        losing = {*parts, *(upload.place for upload in uploads)}
        try:
            await self._scan_some(look, group, uploads_of=sorted({repository for repository, _ in losing}))
            await self._plan_again(look)
            dead = dead_uploads(look)
            tags = half_pushed(look, now=self._work.now)
            busy = {name for name, _ in tags} if self._manifests else set()
            kept = await in_thread(going.keep_what_changed, look, busy, tags)
            self._note_kept(kept)
        finally:
            look.close()
        left = going.uploads()
        in_use = {place for place, number in parts.items() if left.get(place) != number}
        aborted = [
            upload
            for upload in uploads
            if upload in dead and upload.place not in in_use and upload.repository not in busy
        ]
        self._kept += len(uploads) - len(aborted)
        return aborted

    def _note_kept(self, keys: Sequence[str]) -> None:
        self._kept += len(keys)
        self._kept_keys += keys[: _KEPT_KEYS - len(self._kept_keys)]

    def _note_fates(self, fates: Mapping[str, Fate]) -> None:
        if self._fates is not None:
            self._fates.update(fates)

    async def _look_after(self, group: Group, removed: Going) -> Healed:
        """List the repositories once more and give back what somebody needed while it was taken."""
        if not (removed or self._before) or not self._manifests:
            return Healed()
        work = self._work
        look = work.inventory.child()
        try:
            scanner = await self._scan_some(look, group)
            past = Past(look, [])  # its relations; no other run's past counts here
            past.add_removed(work.lock.run, self._before)
            removed.note_removed(look, work.lock.run)
            return await work.give_back(look, scanner)
        finally:
            look.close()

    async def _scan_some(self, look: Inventory, group: Group, *, uploads_of: Sequence[str] = ()) -> Scanner:
        scanner = Scanner(self._work.storage, look, self._work.scan)
        await scanner.list_repositories(group.names, uploads_of=uploads_of)
        if self._manifests:
            await scanner.read_manifests()
            if not self._work.blobs_listed:
                await read_children(self._work.storage, look, scanner, concurrency=self._work.concurrency)
        return scanner

    # What goes

    async def _delete(self, going: Going) -> None:
        """Journal, then delete, step by step. What could not be deleted stops the later steps of its repository."""
        work = self._work
        failed: set[str] = set()
        for rows in going.slices():
            await work.lock.guard()
            known = await self._with_bodies(rows, failed)
            kept = {row.position for row in known}
            going.drop([row for row in rows if row.position not in kept])
            await work.journal.write(row.entry for row in known)
        steps = going.steps()
        for step in steps:
            for rows in going.slices(step):
                self._note_kept([row.key for row in rows if row.repository in self._pushed])
                failed |= await self._delete_some(step, [row for row in rows if row.repository not in failed])
        if Step.LITTER in steps:  # it was in the way of folders that the links had left
            await remove_tag_folders(
                work.storage,
                (row.key for rows in going.slices(Step.TAG, Step.TAG_INDEX, Step.LITTER) for row in rows),
            )
        if work.cache.in_reach:
            for rows in going.slices(Step.REVISION, Step.LAYER):
                await work.cache.forget_links(row.link for row in rows)

    async def _delete_some(self, step: Step, rows: Sequence[Row]) -> set[str]:
        """Names of the repositories in which nothing more must go."""
        if not rows:
            return set()
        work = self._work
        keys = [row.key for row in rows]
        outcomes = await work.lock.delete_many(keys)
        work.failures.note(outcomes)
        self._note_fates({key: Fate.FAILED if outcomes[key] is not None else Fate.TAKEN for key in keys})
        stopped = {row.repository for row in rows if outcomes[row.key] is not None}
        gone = [row for row in rows if outcomes[row.key] is None]
        self._steps[step] += len(gone)
        if step is Step.UPLOAD:
            self._uploads |= {row.upload for row in gone}
            self._upload_bytes += sum(row.size for row in gone)
        if step is Step.TAG and not work.offline:
            stopped |= await self._keep_pushed_tags(rows)
        if step in (Step.TAG, Step.TAG_INDEX):
            await remove_tag_folders(work.storage, keys)
        return stopped

    async def _keep_pushed_tags(self, rows: Sequence[Row]) -> set[str]:
        """Repositories whose tags were pushed again as they went; these stand again, and nothing more goes there."""
        work = self._work
        busy, back = await give_back(
            work.storage,
            work.lock,
            {TagCurrentKey(row.repository, row.label): row.mtime for row in rows},
            now=work.now,
            concurrency=work.concurrency,
        )
        self._tags_back += back
        pushed = {tag.name for tag in busy}
        self._pushed |= pushed
        return pushed

    async def _with_bodies(self, rows: Sequence[Row], unread: set[str]) -> Sequence[Row]:
        """Links whose bodies no listing proved are read, for a way back; one that is gone is left out, and so is one
        that can't be read. unread: gets the repositories of such."""
        work = self._work
        found: dict[str, bytes | None] = {}

        async def read(row: Row) -> None:
            try:
                found[row.key] = await work.storage.get(row.key)
            except NotFound:
                found[row.key] = None
                self._note_fates({row.key: Fate.VANISHED})
            except StorageError as error:
                if is_fatal(error):
                    raise
                found[row.key] = None
                unread.add(row.repository)
                self._note_fates({row.key: Fate.FAILED})
                work.failures.add(row.key, error)

        bare = [row for row in rows if row.body is None and row.step not in _WITHOUT_BODY and row.size <= LINK_MAX]
        await for_each(bare, read, concurrency=work.concurrency)
        read_rows = (replace(row, body=found[row.key]) if row.key in found else row for row in rows)
        return [row for row in read_rows if row.key not in found or row.body is not None]

    async def _abort(self, uploads: Sequence[DeadUpload]) -> None:
        if not uploads:
            return
        work = self._work
        await work.lock.guard()
        await work.journal.write(
            Entry(ABORTED, one.key, one.size, one.newest, one.upload_id.encode())
            for one in (dead.upload for dead in uploads)
        )
        outcomes: dict[str, StorageError | None] = {}

        async def abort(dead: DeadUpload) -> None:
            upload = dead.upload
            try:
                await work.storage.abort_multipart_upload(upload)
            except StorageError as error:
                if is_fatal(error):
                    raise
                outcomes[upload.key] = error
                return
            outcomes[upload.key] = None
            self._uploads.add(dead.place)
            self._upload_bytes += upload.size

        for start in range(0, len(uploads), BATCH):
            async with work.lock.batch():
                await for_each(uploads[start : start + BATCH], abort, concurrency=work.concurrency)
        work.failures.note(outcomes)
