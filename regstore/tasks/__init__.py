"""Tasks: work of a store that any process can do. Rows in, rows out; no engine is imported here.

A task is a function `async def task(context, work)`: `work` and what it returns can be pickled, and `context` gives the
stores, opened where the task runs. It holds no state between two calls, and it may be run twice: `context.attempt` is
above 0 where an earlier try may have done a part, and a task that changes a store then looks first. What takes long
without I/O runs in a thread: an event loop that stands still for a minute is taken for one that hangs.

Who runs them is a `Runner`: `Here`, the calling event loop; a `Pool` of worker processes of this machine, each with one
event loop and one storage a store; or the executors of a cluster (`regstore.spark`). The lock, the journal and all that
decides stay with who asks.

    async with Pool(size=2) as pool:
        listed = await pool.run(list_range, ListRange(prefix="docker/"), storage)

Read `runner` (what a task is, and `Here`); the tasks `listing`, `manifests`, `hashing`, `copying` and `putting` (these
two are handed out by `sharing`; `under_lock`: by the lock of who asked) and `trashing`; then `pool`, with `process`
(what runs in a worker), `messages` (what goes between the two) and `packing` (errors on their way).
"""

from __future__ import annotations

from regstore.tasks.pool import Pool
from regstore.tasks.runner import HERE, Context, Here, Runner, WorkerDied

__all__ = ["HERE", "Context", "Here", "Pool", "Runner", "WorkerDied"]
