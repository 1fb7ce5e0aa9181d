"""Make an empty bucket or folder a healthy registry store, for every version of the registry, and say what is amiss.

An empty bucket fails the storage health check of Distribution 2.6, and the garbage collection of 2.5 to 2.8. Two
small plain objects, `layout.SEEDS`, cure both, before the first push and after it. They lie one folder down, in
folders whose name no repository can have: a file directly in `repositories/`, or keys that end in `/`, would each
break some version.

    from regstore.seed import Outcome, SeedOptions, seed
    from regstore.storage import OpenOptions, open_storage

    async with open_storage("/srv/new", OpenOptions(create=True)) as storage:
        result = await seed(storage, SeedOptions())
        print([check.name for check in result.checks if check.outcome is Outcome.DONE])
        print(result.configuration)  # the registry's own, for this store

seed does what lacks, and looks, by SeedOptions; its SeedResult has a Check, with its Outcome, of each thing.
"""

from regstore.seed.result import Check, Outcome, SeedOptions, SeedResult
from regstore.seed.seeding import seed

__all__ = ["Check", "Outcome", "SeedOptions", "SeedResult", "seed"]
