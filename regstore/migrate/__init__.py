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

Within, the way of a pass:
run             whole passes, again while the source is live (`options` say what is wanted, `result` what came of it)
planning        both stores listed (`source`: one that registries write to meanwhile; `others`: who else removes things
                at the target; `metadata`: whether links are the whole truth), and from that
plan            what to do, in SQL over two inventories: `scope`, `live`, `shared`, `difference`; `estimate` prices it
apply           the steps, one after the other (`work`: what they share): `blobs` (`transfer` moves one, `on_server`
                lets the server copy, `take_back` undoes a bad copy, `sharing` hands them out to other processes, `way`
                is how far they are), `links`, `tags`; `deletion` removes tags
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
