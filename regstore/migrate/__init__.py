"""migrate: what one registry store has and another lacks, copied in an order that keeps the target a correct registry.

`options` says what is wanted, `plan` finds out what to do in SQL over two inventories, `others` sees who else is at
work at the target, `transfer` moves one blob, `apply` does a plan, and `run` does whole passes.
"""

from regstore.migrate.options import MigrateOptions, Verify
from regstore.migrate.result import Estimate, MigrateResult, MigrateSummary
from regstore.migrate.run import check_source, migrate, plan_only

__all__ = [
    "Estimate",
    "MigrateOptions",
    "MigrateResult",
    "MigrateSummary",
    "Verify",
    "check_source",
    "migrate",
    "plan_only",
]
