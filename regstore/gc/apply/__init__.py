"""The application of a plan of gc: what makes it safe while the registry serves is an order of steps.

The steps (`steps`), in their order, and what must be true when each begins:

1. **unlink** (`unlink`): the journal is open, and nothing has gone. A repository at a time: listed and planned anew
   right before, listed once more right after. A key is in the journal before it is deleted.
2. **sweep** (`sweep`): the links are gone. A blob goes only when a listing of all links, made after that and not
   long ago, does not reach it (`looks`); the copy in the trash is listed before the blob is deleted.
3. **the last look**: some time after the last blob went. What was linked meanwhile comes back.
4. **leftovers** (`leftovers`): litter, the registry's cache, and the trash of older runs (`gc.freeing`), only after the
   last look, for it may show that what this run or an older one took is needed.
5. **the end** (`finish`): what the run leaves is written, `done.json` last of all. Where that is missing, the run
   was cut short, and the next one takes care of it.

Every step is given an `application`. What goes is relations: `going` of links, `candidates` of blobs.

Offline nothing but this run changes the store, so the looks are left out, and only these.

Other processes can do the first two in parts, as tasks (`regstore.tasks`): `unlink_repositories` and `sweep_range`, by
the same `unlink` (with `planning_again`) and `taking`. Lock, looks and the end stay with the run's own process. Such a
process journals in parts of its own and looks at the lock, which it never writes; each key has its `fate`. Whoever
hands tasks out

- begins the sweep when every unlinking has ended, then looks at all links, and says until when that stands: by the
  store's clock, `latest` when the look began, and so many seconds more;
- gives each task a shard's number that no other of the run has, and each try at it an attempt's: counted from 0, or any
  that no other has, and then it says whether the same was begun before;
- tells the registry's cache of what was taken, before the next look at the links, and once more at the end;
- adds `repeated_deletes` to the storage's counters, where no pool does: after a second attempt, or a process of which
  nothing is known, `done.json` then says that the run is not settled, and the next ones take care for a day of what may
  yet be done; where a task failed for good, the run fails and no `done.json` is written.

`steps.Hands` is where the two are exchanged: `OwnHands` is this process, `regstore.spark.hands` a cluster.
"""
