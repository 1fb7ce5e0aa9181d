"""Garbage collection, removal and tags by name, and the way back.

    from regstore.gc import GcOptions, GcRunOptions, hold_lock, open_run
    from regstore.storage import open_storage

    options = GcRunOptions(plan=GcOptions(delete_untagged=True), offline=True)  # the registry is stopped
    async with open_storage("/srv/registry") as storage:
        async with open_run(storage, options) as run:  # a dry run: nothing is written
            print(run.summary.blobs.dead, "blobs are dead")
        async with hold_lock(storage, command="gc") as lock, open_run(storage, options, lock) as run:
            run.check()  # Refused where a safety stop speaks against it
            report = await run.apply()
        print(report.blobs, "blobs are in the trash of run", report.run)

open_run        a GcRun: its plan in numbers (GcSummary), and what came of it (GcReport). GcOptions say what goes, by
                a Policy of Rules and Patterns where tags go, too; GcRunOptions how. hold_lock gives the Lock
find_trash      each TrashedRun. plan_restore and apply_restore undo one (RestoreOptions, RestorePlan, Restored)
empty_trash     deletes for good (EmptyOptions, Emptied)
heal_store      gives back what is needed and lies in the trash (HealOptions, Healed), as every run does first;
                plan_heal only looks
NoCache("none") says that the registry has no descriptor cache; open_redis reaches its Redis. Both are a RegistryCache
ScanOptions     how a store is listed

What somebody names goes, and nothing else; a tag is set as by a push. Both while the registry serves:

    from regstore import Reference
    from regstore.gc import Named, apply_tag, hold_lock, open_removal, plan_tag
    from regstore.storage import open_storage

    async with open_storage("/srv/registry") as storage:
        async with hold_lock(storage, command="tag") as lock:
            tag = await plan_tag(storage, Reference.parse("team/app:1.1"), "stable")
            print("set by run", await apply_tag(storage, tag, lock))
        named = Named.parse(["team/app:1.0", "team/worker"], recursive=True)
        async with hold_lock(storage, command="rm") as lock, open_removal(storage, named, lock=lock) as removal:
            for repository in removal.repositories:
                print(len(repository.tags), "tags and", len(repository.revisions), "images go from", repository.name)
            print((await removal.apply()).tags, "tags are gone")

open_removal    a Removal of what is Named: a plan (a RepositoryRemoval each), and what came of it (RemovalReport); how,
                RemovalOptions say. Without the lock it only looks
plan_tag        a TagPlan, which apply_tag carries out

Within, the way of a run (`run`; `run_options` say how):
begin           what a run with the lock does first: `heal` gives back, by `heal_plan`, what `past` knows to be taken
                and `claims` allows, copied by `copying_back`
planning        all that only reads: `vanished` (by `counts`), `created`, `confirm`, and
reported        what a plan goes by is looked at again, where blobs are those of a report
plan            what goes, in SQL, a part of the plan a file; tags by a `policy` of rules, applied by `retention` and
                doubted by `one_time`; `unmatched` are its patterns that mean nothing. `explain` and `why` read it
stops           what is refused without a yes
apply           the plan carried out: its folder says in what order, and why. `failures` are counted, `forgetting` tells
                the registry's cache (`caches`), `report` is what came of it
removal         instead of all that: what somebody names goes, by the same unlinking; its folder says what must not go
children        manifests that others list, where blobs were not listed
set_tag         one tag set by name
freeing         of older trash: `trash` empties it, but for what it may still be needed for (`unread_needs`), once the
                registry was restarted (`restart`, or seen by `process_start`)
restore         undo: `restore_taken` reads what went, `restore_plan` holds it beside what stands; `trash_list` finds
                the run
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from regstore.lazy import lazily

if TYPE_CHECKING:
    from regstore.gc.caches import NoCache, RegistryCache, open_redis
    from regstore.gc.heal import Healed, HealOptions, heal_store, plan_heal
    from regstore.gc.plan import GcOptions, GcSummary
    from regstore.gc.policy import Pattern, Policy, Rule
    from regstore.gc.removal.named import Named
    from regstore.gc.removal.plan import RepositoryRemoval
    from regstore.gc.removal.run import Removal, RemovalOptions, RemovalReport, open_removal
    from regstore.gc.report import GcReport
    from regstore.gc.restore import Restored, RestoreOptions, RestorePlan, apply_restore, plan_restore
    from regstore.gc.run import GcRun, GcRunOptions, open_run
    from regstore.gc.set_tag import TagPlan, apply_tag, plan_tag
    from regstore.gc.trash import Emptied, EmptyOptions, empty_trash
    from regstore.inventory.scan import ScanOptions
    from regstore.state.lock import Lock, hold_lock
    from regstore.state.trashed import TrashedRun, find_trash
else:
    __getattr__, __dir__ = lazily(__name__)

__all__ = [
    "Emptied",
    "EmptyOptions",
    "GcOptions",
    "GcReport",
    "GcRun",
    "GcRunOptions",
    "GcSummary",
    "HealOptions",
    "Healed",
    "Lock",
    "Named",
    "NoCache",
    "Pattern",
    "Policy",
    "RegistryCache",
    "Removal",
    "RemovalOptions",
    "RemovalReport",
    "RepositoryRemoval",
    "RestoreOptions",
    "RestorePlan",
    "Restored",
    "Rule",
    "ScanOptions",
    "TagPlan",
    "TrashedRun",
    "apply_restore",
    "apply_tag",
    "empty_trash",
    "find_trash",
    "heal_store",
    "hold_lock",
    "open_redis",
    "open_removal",
    "open_run",
    "plan_heal",
    "plan_restore",
    "plan_tag",
]
