"""gc against clients that write between any two of its storage operations.

Clients push, mount, tag and delete one request at a time (`actors`); the toolkit does one storage operation at a
time (`stepping`); Hypothesis says who is next. A second toolkit tries the lock, a paused one wakes after its lease,
one is killed, and its last delete may take effect much later, as may one that got no answer and was repeated. Others
heal, undo and empty the trash. The registry may have a cache that forgets nothing, the store no conditional writes,
and listings that show entries twice. Single objects can't be read for a while.

More: python -m pytest --examples 2000 tests/gc/test_state_machine.py
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from regstore.digest import Digest
from regstore.errors import InputError, LockHeld, LockLost, Outage, Refused
from regstore.gc.caches import NoCache, RegistryCache
from regstore.gc.heal import Healed, HealOptions, heal_store
from regstore.gc.plan import GcOptions
from regstore.gc.policy import Policy
from regstore.gc.report import GcReport
from regstore.gc.restore import Restored, RestoreOptions, apply_restore, plan_restore
from regstore.gc.run import GcRunOptions, open_run
from regstore.gc.trash import Emptied, EmptyOptions, empty_trash
from regstore.inventory.scan import ScanOptions
from regstore.layout import (
    DATABASE_IN_USE,
    PREFIX,
    BlobKey,
    LayerLinkKey,
    RevisionLinkKey,
    TagCurrentKey,
    TagIndexKey,
    decode,
    encode,
    link_body,
)
from regstore.state import lock as lock_module
from regstore.state.holder import LEASE
from regstore.state.journal import LATE, STALLED
from regstore.state.lock import break_locks, hold_lock
from regstore.storage.base import Storage
from tests.examples import examples
from tests.gc.actors import Deletion, Doc, Push, Step, World, delete_layer, delete_tag
from tests.gc.stepping import Toolkit, WorldStorage
from tests.gc.test_unreadable import TROUBLE

REPOSITORIES = ("a", "b")
TAGS = ("t0", "t1")
#: A policy may take it, once it is older than the grace.
DROPPED = "t1"
SECOND = 1_000_000


@dataclass
class _Late:
    """Keys whose delete was sent by a toolkit that is no more, and has not yet taken effect."""

    keys: list[str]
    sent: int


async def collect(storage: Storage, options: GcRunOptions, cache: RegistryCache) -> GcReport:
    async with hold_lock(storage, command="gc") as lock, open_run(storage, options, lock, cache=cache) as run:
        return await run.apply()


async def empty(storage: Storage, options: GcRunOptions, cache: RegistryCache) -> Emptied:
    async with hold_lock(storage, command="trash empty") as lock:
        return await empty_trash(storage, EmptyOptions(scan=options.scan, settle=0), lock, cache=cache)


async def heal(storage: Storage, options: GcRunOptions, cache: RegistryCache) -> Healed:
    async with hold_lock(storage, command="heal") as lock:
        return await heal_store(storage, HealOptions(scan=options.scan), lock, cache=cache)


async def restore(storage: Storage) -> Restored:
    async with hold_lock(storage, command="trash restore") as lock:
        plan = await plan_restore(storage, RestoreOptions(concurrency=1))
        return await apply_restore(storage, plan, lock, concurrency=1)


class GcMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.world = World()
        self.images = self.world.images
        self.pushes: list[tuple[Push, Step]] = []
        self.deletions: list[tuple[Deletion, Step]] = []
        self.promises: dict[tuple[str, str], Doc] = {}
        self.late: list[_Late] = []
        self.gc: Toolkit | None = None
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(lock_module, "clock", lambda: self.world.now / SECOND)
        #: Of a tag: what a client last wrote to it, and when.
        self._last_write: dict[tuple[str, str], tuple[Doc, int]] = {}
        self._gc_began = 0
        #: The registry may move its metadata to a database; what was pushed since, and no link names.
        self.database = False
        self.in_database: set[str] = set()
        #: From then on nothing of any run so far is under way, and no push goes on that began before its end.
        self._quiet = 0
        #: Layer links that a client deleted, of which a run can know that no run had taken them.
        self._final: set[str] = set()
        #: Something could not be read while the first toolkit ran.
        self._troubled = False
        #: When each push began.
        self._since: dict[int, int] = {}

    def teardown(self) -> None:
        try:
            if hasattr(self, "options"):
                self.look_after_everything()
        finally:
            self.patch.undo()
            if self.gc is not None:
                self.gc.kill()
            self.loop.close()

    @initialize(
        grace=st.sampled_from([0, 100]),
        coarse=st.booleans(),
        stale=st.booleans(),
        untagged=st.booleans(),
        drop=st.booleans(),
        page=st.sampled_from([4, 1000]),
        conditional=st.booleans(),
        empties=st.booleans(),
        repeats=st.booleans(),
        etags=st.booleans(),
        untagged_yes=st.booleans(),
        database=st.sampled_from([False, False, True]),
    )
    def begin(
        self,
        grace: int,
        coarse: bool,
        stale: bool,
        untagged: bool,
        drop: bool,
        page: int,
        conditional: bool,
        empties: bool,
        repeats: bool,
        etags: bool,
        untagged_yes: bool,
        database: bool,
    ) -> None:
        self.database = database
        self.world.coarse, self.world.stale, self.page = coarse, stale, page
        self.world.conditional = conditional
        self.world.repeats, self.world.etags = repeats, etags
        self.cache = NoCache("inmemory" if stale else "none")
        self.options = GcRunOptions(
            plan=GcOptions(
                delete_untagged=untagged,
                grace=grace * SECOND,
                uploads_older_than=10**15,
                policy=Policy.parse(f'[[rule]]\ndrop = ["{DROPPED}"]\n') if drop else None,
            ),
            scan=ScanOptions(concurrency=1),
            settle=0.0,
            max_delete=1.0,
            allow_empty=True,
            trash_older_than=0 if empties else None,
            untagged_repositories=untagged_yes,
        )
        self.push_whole("a", self.images.index, "t0")
        self.push_whole("b", self.images.images[2], "t1")

    def push_whole(self, repository: str, doc: Doc, tag: str) -> None:
        push = Push(self.world, repository, doc, tag)
        self._go(push, push.run(), 1000)

    # -- clients

    @precondition(lambda self: len(self.pushes) < 3)
    @rule(
        repository=st.sampled_from(REPOSITORIES),
        doc=st.integers(0, 3),
        tag=st.sampled_from(TAGS),
        check=st.booleans(),
        mount=st.booleans(),
        only_manifest=st.booleans(),
        steps=st.integers(0, 30),
    )
    def start_push(
        self, repository: str, doc: int, tag: str, check: bool, mount: bool, only_manifest: bool, steps: int
    ) -> None:
        other = "b" if repository == "a" else "a"
        push = Push(
            self.world,
            repository,
            self.images.docs[doc],
            tag,
            check=check,
            mount_from=other if mount else "",
            only_manifest=only_manifest,
        )
        self._start(push, steps)

    @precondition(lambda self: len(self.pushes) < 3)
    @rule(repository=st.sampled_from(REPOSITORIES), steps=st.integers(0, 30))
    def sign(self, repository: str, steps: int) -> None:
        self._start(Push(self.world, repository, self.images.signature, self.images.signature_tag), steps)

    def _start(self, push: Push, steps: int) -> None:
        run = push.run()
        self.pushes.append((push, run))
        self._since[id(push)] = self.world.now
        self._go(push, run, steps)

    @precondition(lambda self: self.pushes)
    @rule(data=st.data(), steps=st.sampled_from([1, 1, 2, 3, 5, 8, 40]))
    def go_on_pushing(self, data: st.DataObject, steps: int) -> None:
        push, run = data.draw(st.sampled_from(self.pushes), label="push")
        self._go(push, run, steps)

    def _go(self, push: Push, run: Step, steps: int) -> None:
        for _ in range(steps):
            before = push.told
            try:
                next(run)
            except StopIteration:
                self.pushes = [(other, steps) for other, steps in self.pushes if other is not push]
                if push.told and not before and not push.disturbed:
                    # Another push may have moved it between the write and now, or the policy have taken it.
                    doc, when = self._last_write.get((push.repository, push.tag), (None, 0))
                    if doc is push.doc and (when > self._gc_began or not self._may_go(push.tag)):
                        self.promises[push.repository, push.tag] = push.doc
                return
            self._note_tags(push)

    def _may_go(self, tag: str) -> bool:
        return self.options.plan.policy is not None and tag == DROPPED

    def _gc_begins(self) -> None:
        """From now on, only what is written later is surely not for the policy to take."""
        self._gc_began = self.world.now
        self.promises = {place: doc for place, doc in self.promises.items() if not self._may_go(place[1])}

    def _note_tags(self, push: Push) -> None:
        """A tag that this push may just have written is no longer what it was promised to be."""
        if push.wrote_tag:
            push.wrote_tag = False
            place = push.repository, push.tag
            if self.promises.get(place) is not push.doc:
                self.promises.pop(place, None)
            self._last_write[place] = push.doc, self.world.now

    @precondition(lambda self: len(self.deletions) < 2)
    @rule(repository=st.sampled_from(REPOSITORIES), doc=st.integers(0, 3), steps=st.integers(0, 5))
    def start_delete(self, repository: str, doc: int, steps: int) -> None:
        which = self.images.docs[doc]
        deletion = Deletion(self.world, repository, which)
        run = deletion.run()
        self.deletions.append((deletion, run))
        self._delete(deletion, run, steps)

    @precondition(lambda self: self.deletions)
    @rule(data=st.data(), steps=st.integers(1, 5))
    def go_on_deleting(self, data: st.DataObject, steps: int) -> None:
        deletion, run = data.draw(st.sampled_from(self.deletions), label="deletion")
        self._delete(deletion, run, steps)

    def _delete(self, deletion: Deletion, run: Step, steps: int) -> None:
        self._disturb(deletion)
        for _ in range(steps):
            try:
                next(run)
            except StopIteration:
                self.deletions = [(other, steps) for other, steps in self.deletions if other is not deletion]
                return
            self._disturb(deletion)

    def _disturb(self, deletion: Deletion) -> None:
        """What a client deletes, and what holds it, is promised to nobody any more."""
        for push, _ in self.pushes:
            push.disturbed |= deletion.touches(push.repository, push.tag, push.doc)
        self.promises = {place: doc for place, doc in self.promises.items() if not deletion.touches(*place, doc)}

    @rule(repository=st.sampled_from(REPOSITORIES), tag=st.sampled_from(TAGS))
    def untag(self, repository: str, tag: str) -> None:
        delete_tag(self.world, repository, tag)
        self._last_write.pop((repository, tag), None)
        self.promises.pop((repository, tag), None)
        for push, _ in self.pushes:
            push.disturbed |= (push.repository, push.tag) == (repository, tag)

    @rule(repository=st.sampled_from(REPOSITORIES), doc=st.integers(0, 2), layer=st.integers(0, 1))
    def unlink_layer(self, repository: str, doc: int, layer: int) -> None:
        """A client's DELETE of a blob. It breaks what names it, and that is how it stays."""
        digest = self.images.images[doc].layers[layer]
        users = [one for one in (*self.images.images, self.images.signature) if digest in one.layers]
        proofs = [self.world.store.objects.get(encode(RevisionLinkKey(repository, one.digest))) for one in users]
        known = self.gc is None and any(proof and proof[1] > self._quiet for proof in proofs)
        stood = self.world.has(LayerLinkKey(repository, digest))
        key = delete_layer(self.world, repository, digest)
        if stood and known and not self.world.stale:
            self._final.add(key)
        for push, _ in self.pushes:
            push.disturbed |= push.repository == repository and digest in push.doc.blobs()
        self.promises = {
            place: one
            for place, one in self.promises.items()
            if place[0] != repository or digest not in one.blobs()
        }

    @rule(data=st.data(), name=st.sampled_from(["", "._x", "@eaDir/x"]))
    def litter(self, data: st.DataObject, name: str) -> None:
        """Somebody makes a marker, or a tool puts its file, beside a key of the registry, or where one was."""
        keys = sorted(key for key in self.world.written | set(self.world.store) if key.startswith(PREFIX))
        parts = data.draw(st.sampled_from(keys), label="beside").split("/")
        depth = data.draw(st.integers(3, len(parts) - 1), label="depth")
        self.world.store.objects["/".join([*parts[:depth], name])] = (b"", self.world.mtime())

    @property
    def _withheld(self) -> set[str]:
        """What stands in the store, and toolkits can't read."""
        return (self.world.unreadable.keys() | self.world.archived.keys()) & set(self.world.store)

    @precondition(lambda self: len(self._withheld) < 2)
    @rule(data=st.data(), trouble=st.sampled_from([*TROUBLE, "archived"]))
    def become_unreadable(self, data: st.DataObject, trouble: str) -> None:
        kinds = LayerLinkKey, RevisionLinkKey, TagCurrentKey, TagIndexKey, BlobKey
        keys = sorted(key for key in self.world.store if isinstance(decode(key), kinds))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys), label="key")
        if trouble == "archived":
            self.world.archived[key] = "GLACIER"
        else:
            self.world.unreadable[key] = TROUBLE[trouble]
        self._troubled = True

    @precondition(lambda self: self._withheld)
    @rule()
    def become_readable(self) -> None:
        self.world.unreadable.clear()
        self.world.archived.clear()

    def _needed_and_unreadable(self) -> set[str]:
        """Repositories of which gc can't read something that it has to."""
        found = set()
        for place in map(decode, self._withheld):
            if isinstance(place, BlobKey):
                found |= {name for name in REPOSITORIES if self.world.has(RevisionLinkKey(name, place.digest))}
            elif isinstance(place, LayerLinkKey | RevisionLinkKey | TagCurrentKey) and not self.world.etags:
                found.add(place.name)  # else the listing proves what it says
        return found

    def _all_of(self, repositories: set[str]) -> set[str]:
        """Their links, and the blobs that these name."""
        found = set()
        for key, place in [(key, decode(key)) for key in self.world.store]:
            if isinstance(place, LayerLinkKey | RevisionLinkKey) and place.name in repositories:
                found |= {key, encode(BlobKey(place.digest))}
            elif isinstance(place, TagCurrentKey | TagIndexKey) and place.name in repositories:
                found.add(key)
        return found & set(self.world.store)

    @rule(seconds=st.sampled_from([1, 200, 200, 4000, 90_000]))
    def wait(self, seconds: int) -> None:
        """No push and no deletion goes on for longer than STALLED."""
        self.world.now += seconds * SECOND
        self.pushes = [
            (push, run) for push, run in self.pushes if self.world.now < self._since[id(push)] + STALLED * 0.8
        ]
        if seconds * SECOND > STALLED:
            self.deletions = []

    @property
    def marked(self) -> bool:
        return DATABASE_IN_USE in self.world.store

    @precondition(lambda self: self.database and not self.marked)
    @rule()
    def move_to_a_database(self) -> None:
        """The registry starts with a metadata database. Its first push comes right after."""
        self.world.store.objects[DATABASE_IN_USE] = (b"{}", self.world.mtime())
        self.push_into_database(0)

    @precondition(lambda self: self.marked)
    @rule(number=st.integers(1, 3))
    def push_into_database(self, number: int) -> None:
        """A blob, and no link."""
        content = b"known to the database only %d" % number
        key = encode(BlobKey(Digest.of(content)))
        self.world.store.objects.setdefault(key, (content, self.world.mtime()))
        self.in_database.add(key)

    @invariant()
    def what_the_database_knows_stays(self) -> None:
        assert self.in_database <= set(self.world.store)

    # -- toolkits

    @precondition(lambda self: self.gc is None)
    @rule(steps=st.sampled_from([0, 10, 30]), command=st.sampled_from([collect, collect, collect, empty, heal]))
    def start_gc(self, steps: int, command: Any) -> None:
        self._gc_begins()
        self._troubled = bool(self._withheld)
        self.gc = Toolkit(self.world, self.loop, page=self.page)
        self.gc.start(command(self.gc, self.options, self.cache))
        self._step_gc(steps)

    @precondition(lambda self: self.gc is None)
    @rule()
    def undo(self) -> None:
        """Whole, and of the newest run: it gives back also what a client deleted since."""
        before = set(self.world.store)
        with contextlib.suppress(InputError, LockHeld):
            self.loop.run_until_complete(restore(WorldStorage(self.world)))
        self.world.deleted -= self.world.store.objects.keys() - before
        self._be_quiet_after(0)

    @precondition(lambda self: self.gc is not None and self._about_to("delete"))
    @rule()
    def lose_the_answer(self) -> None:
        """The delete that it sends is sent again; the first one may take effect later, when the run has ended."""
        assert self.gc is not None and self.gc.waiting is not None
        first, *keys = self.gc.waiting[1]
        self.late.append(_Late(keys[keys.index(first) :], self.world.now))
        self.gc.counters.repeated_deletes += 1
        self._be_quiet_after(LATE + STALLED)
        self.world.now += 70 * SECOND

    @precondition(lambda self: self.gc is not None)
    @rule(steps=st.sampled_from([1, 1, 2, 3, 5, 8, 13]))
    def go_on_collecting(self, steps: int) -> None:
        self._step_gc(steps)

    @precondition(lambda self: self.gc is not None)
    @rule(until=st.sampled_from(["delete", "copy", "end"]))
    def go_on_collecting_until(self, until: str) -> None:
        """To just before it next changes the registry's own keys."""
        self._step_gc(1)
        while self.gc is not None and not self._about_to(until):
            self._step_gc(1)

    def _about_to(self, operation: str) -> bool:
        assert self.gc is not None
        waiting = self.gc.waiting
        return waiting is not None and waiting[0] == operation and waiting[1][0].startswith("docker/")

    def _step_gc(self, steps: int) -> None:
        for _ in range(steps):
            if self.gc is None:
                return
            last = self.gc.waiting
            self.gc.step()
            self._expect_no_change_without_lease(self.gc, last)
            if self.gc.done:
                self._end_gc()

    def _expect_no_change_without_lease(self, toolkit: Toolkit, last: tuple[str, tuple[str, ...]] | None) -> None:
        waiting = toolkit.waiting
        if waiting is None or waiting[0] not in ("delete", "move") or not waiting[1][0].startswith("docker/"):
            return
        if last is not None and last[0] == "delete" and last[1][1:] == waiting[1][1:]:
            return  # the same request, which the store has long had
        locks = [mtime for key, (_, mtime) in self.world.store.objects.items() if key.startswith("regstore/locks/")]
        assert locks, f"{waiting} without a lock"
        assert self.world.now <= max(locks) + LEASE * SECOND, f"{waiting} after its lease"

    def _end_gc(self) -> None:
        assert self.gc is not None
        try:
            report = self.gc.result()
        except (LockHeld, LockLost, Refused):
            self._be_quiet_after(LATE + STALLED)
        except Outage:
            assert self._troubled
            self._be_quiet_after(LATE + STALLED)
        else:
            assert isinstance(report, Healed) or not report.failures or self._troubled
            self._be_quiet_after(LATE + STALLED if self._troubled else STALLED)
        self.gc = None

    def _be_quiet_after(self, microseconds: int) -> None:
        self._quiet = max(self._quiet, self.world.now + microseconds)

    @rule(command=st.sampled_from([collect, collect, empty]))
    def second_toolkit(self, command: Any) -> None:
        """Locked out while the first one's lease runs; else it does a whole run, and the first one has lost."""
        other = WorldStorage(self.world)
        locks = {
            key: mtime for key, (_, mtime) in self.world.store.objects.items() if key.startswith("regstore/locks/")
        }
        held = [key for key, mtime in locks.items() if mtime + LEASE * SECOND >= self.world.now + SECOND]
        self._gc_begins()
        untagged = self._untagged()
        withheld = self._withheld
        protected = self._all_of(self._needed_and_unreadable())
        try:
            self.loop.run_until_complete(command(other, self.options, self.cache))
            assert not self.marked, "by links, where they are not the whole truth"
            assert self.options.untagged_repositories or untagged <= self._with_revisions()
        except Refused:
            pass
        except Outage:
            assert len(withheld & self.world.unreadable.keys()) > 1, "one object is damage"
        except LockHeld:
            assert locks
            left = {key for key in self.world.store if key.startswith("regstore/locks/")}
            assert left <= locks.keys(), "what did not get the lock left one behind"
            return
        assert not held, "two hold the lock"
        assert protected <= set(self.world.store), "of a repository that can't be read"
        self._be_quiet_after(LATE + STALLED if withheld else STALLED)

    def _with_revisions(self) -> set[str]:
        return {key.name for key in map(decode, self.world.store) if isinstance(key, RevisionLinkKey)}

    def _untagged(self) -> set[str]:
        """Repositories with revisions and no tag at all."""
        tagged = {key.name for key in map(decode, self.world.store) if isinstance(key, TagCurrentKey)}
        return self._with_revisions() - tagged

    @precondition(lambda self: self.gc is not None)
    @rule(late=st.booleans())
    def kill_gc(self, late: bool) -> None:
        assert self.gc is not None
        last = self.gc.kill()
        self.gc = None
        self._be_quiet_after(LATE + STALLED)
        if late and last is not None and last[0] == "delete" and last[1][0].startswith("docker/"):
            keys = last[1][1:]
            self.late.append(_Late(list(keys[keys.index(last[1][0]) :]), self.world.now))
        self.loop.run_until_complete(break_locks(WorldStorage(self.world)))

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def late_delete_arrives(self, data: st.DataObject) -> None:
        late = data.draw(st.sampled_from(self.late), label="late")
        self.late.remove(late)
        if self.world.now > late.sent + LATE * 0.8:
            return  # no store takes so long
        for key in late.keys:
            self.world.store.objects.pop(key, None)

    # -- what must hold

    @rule()
    @precondition(lambda self: self.promises and self.gc is None)
    def look_after_everything(self) -> None:
        """A run that nobody disturbs leaves nothing promised missing."""
        if self.gc is not None:
            self._end_by_force()
        self.become_readable()
        self.world.now += 2 * SECOND
        self._gc_begins()
        self.loop.run_until_complete(break_locks(WorldStorage(self.world)))
        # gc heals before it may refuse the plan; where it refuses to look at all, heal alone still gives back.
        last = heal if self.marked else collect
        with contextlib.suppress(Refused):
            self.loop.run_until_complete(last(WorldStorage(self.world), self.options, self.cache))
        self._be_quiet_after(STALLED)
        self._drop_promises_that_follow()
        for (repository, tag), doc in self.promises.items():
            wanted = doc.links(repository) | {encode(TagCurrentKey(repository, tag)): link_body(doc.digest)}
            wanted |= {encode(BlobKey(digest)): self.images.content[digest] for digest in doc.blobs()}
            for key, body in wanted.items():
                assert self.world.store.body(key) == body, f"{repository}:{tag} ({doc.name}) misses {key} after gc"

    def _end_by_force(self) -> None:
        assert self.gc is not None
        while self.gc is not None:
            self._step_gc(1)

    @invariant()
    def nothing_promised_is_lost(self) -> None:
        self._drop_promises_that_follow()
        store = self.world.store
        trashed = {key.split("/", 3)[-1] for key in store if key.startswith("regstore/trash/")}
        claimed = self._claimed() if self.promises else set()
        for (repository, tag), doc in self.promises.items():
            for digest in doc.blobs():
                key = encode(BlobKey(digest))
                assert key in store or key in trashed, f"{repository}:{tag} ({doc.name}) has lost {key}"
            for key in doc.links(repository):
                assert key in store or key in claimed, f"{repository}:{tag} ({doc.name}) has lost {key}"

    def _drop_promises_that_follow(self) -> None:
        """A signature's tag may go with what it signs."""
        tag = self.images.signature_tag
        for repository in REPOSITORIES:
            subject = self.images.images[0].digest
            held = any(
                place[0] == repository and place[1] != tag and subject in {d.digest for d in doc.documents()}
                for place, doc in self.promises.items()
            )
            if not held:
                self.promises.pop((repository, tag), None)

    def _claimed(self) -> set[str]:
        """Links that some run's journal gives back."""
        claimed: set[str] = set()
        for key, entries in self._read_journals("regstore/runs/", lambda name: name[:6].isdigit()):
            run = key.split("/")[2]
            written = max(
                mtime
                for name, (_, mtime) in self.world.store.objects.items()
                if name.startswith(f"regstore/runs/{run}/") and "/seen-" not in name
            )
            done = json.loads(
                self.world.store.body(f"regstore/runs/{run}/done.json") or b'{"failures": ["cut short"]}'
            )
            settled = not done.get("failures") and not done.get("repeated_deletes")
            void = {
                line["key"]
                for name, seen in self._read_journals(
                    f"regstore/runs/{run}/", lambda name: name.startswith("seen-")
                )
                if settled or self.world.store.objects[name][1] > written + LATE
                for line in seen
            }
            claimed |= {line["key"] for line in entries if line.get("body")} - void
        return claimed

    def _read_journals(self, prefix: str, wanted: Any) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        for key in self.world.store:
            if key.startswith(prefix) and wanted(key.rpartition("/")[2]) and key.endswith(".jsonl.gz"):
                body = self.world.store.objects[key][0]
                yield key, [json.loads(line) for line in gzip.decompress(body).splitlines()]

    @invariant()
    def nobody_gains_a_right(self) -> None:
        for key in self.world.store:
            place = decode(key)
            if isinstance(place, LayerLinkKey | RevisionLinkKey | TagCurrentKey | TagIndexKey):
                assert key in self.world.written, f"{key} was made by nobody"

    @invariant()
    def nothing_deleted_comes_back(self) -> None:
        """A tag never; a link only where a manifest that its repository still has names it, and that makes it whole."""
        named: set[str] = set()
        for repository in REPOSITORIES:
            for doc in [*self.images.docs, self.images.signature]:
                links = doc.links(repository)
                own = encode(RevisionLinkKey(repository, doc.digest))
                if own in self.world.store:
                    named |= links.keys() - {own}
                for key in self.world.store:
                    place = decode(key)
                    if (
                        isinstance(place, TagCurrentKey)
                        and place.name == repository
                        and self.world.store.body(key) == link_body(doc.digest)
                    ):
                        named |= links.keys()
        back = {key for key in self.world.deleted if key in self.world.store} - named
        assert not back, f"came back: {back}"
        self._final &= self.world.deleted
        assert not self._final & self.world.store.objects.keys(), "a layer link that a client had deleted came back"


@pytest.mark.filterwarnings("default")
class TestGc(GcMachine.TestCase):  # type: ignore[valid-type, misc]
    settings = settings(max_examples=examples(3), stateful_step_count=40)
