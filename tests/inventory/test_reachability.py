"""What a root keeps, of stores in which one rule decides."""

from __future__ import annotations

from regstore.digest import Digest
from regstore.inventory.reachability import Reachability
from regstore.inventory.scan import ScanOptions, scan
from tests.model.builder import Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import NOW


async def test_a_referrer_of_what_is_reached_and_not_followed_is_kept_with_its_closure() -> None:
    """A signature of a layer: the layer is marked by the image, and nothing in it is looked for."""
    b = Builder(NOW)
    layer, signed = b.blob(b"layer"), b.blob(b"signature")
    image = b.image(b.blob(b"{}"), [layer])
    referrer = b.image(b.blob(b"{}"), [signed], subject=layer)
    b.push("a", image, "1")
    b.push("a", referrer)
    async with scan(ModelStorage(b.store, now=NOW), ScanOptions(cache_dir=None)) as inventory:
        reach = Reachability(inventory)
        reach.add("select repository, target as digest, true as expand from tag")
        found = {
            Digest.from_raw(bytes(raw)): expand
            for raw, expand in inventory.all(f"select digest, bool_or(expand) from {reach.table} group by digest")
        }
    assert found[layer] is False, "it is followed"
    assert (found[referrer], signed in found) == (True, True)
