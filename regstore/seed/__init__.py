"""Make an empty bucket or folder a healthy registry store, for every version of the registry, and say what is amiss.

An empty bucket fails the storage health check of Distribution 2.6, and the garbage collection of 2.5 to 2.8. Two
small plain objects, `layout.SEEDS`, cure both, before the first push and after it. They lie one folder down, in
folders whose name no repository can have: a file directly in `repositories/`, or keys that end in `/`, would each
break some version.
"""

from regstore.seed.result import Check, Outcome, SeedOptions, SeedResult
from regstore.seed.seeding import seed

__all__ = ["Check", "Outcome", "SeedOptions", "SeedResult", "seed"]
