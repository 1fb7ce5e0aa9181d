"""migrate: what one registry store has and another lacks, copied in an order that keeps the target a correct registry.

    from regstore.migrate import MigrateOptions, migrate, plan_only
    from regstore.seed import SeedOptions, seed
    from regstore.storage import OpenOptions, open_storage

    options = MigrateOptions(repositories=("team/*",))
    async with (
        open_storage("/srv/registry") as source,
        open_storage("/srv/moved", OpenOptions(create=True)) as target,
    ):
        await seed(target, SeedOptions())  # an empty store that every registry finds healthy
        summary = await plan_only(source, target, options)  # nothing is written
        print(summary.blobs.to_copy, "blobs to copy")
        result = await migrate(source, target, options)
        print(result.blobs, "blobs and", result.tags, "tags are there now;", len(result.failed), "failed")

migrate         one pass, or passes until nothing is new, by MigrateOptions (Verify: what is read back); a MigrateResult
plan_only       a MigrateSummary, with an Estimate of the requests and what they cost on AWS
check_source    whether the source is a registry whose links are the whole truth: before anything is made at the target
ScanOptions     how a store is listed

Within: `options` says what is wanted, `plan` finds out what to do in SQL over two inventories, `others` sees who else
is at work at the target, `transfer` moves one blob, `apply` does a plan, and `run` does whole passes.
"""

from regstore.inventory.scan import ScanOptions
from regstore.migrate.options import MigrateOptions, Verify
from regstore.migrate.result import Estimate, MigrateResult, MigrateSummary
from regstore.migrate.run import check_source, migrate, plan_only

__all__ = [
    "Estimate",
    "MigrateOptions",
    "MigrateResult",
    "MigrateSummary",
    "ScanOptions",
    "Verify",
    "check_source",
    "migrate",
    "plan_only",
]
