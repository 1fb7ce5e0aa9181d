"""Every blob that stays can say why, and every one that goes has nothing to say."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from regstore.digest import Digest
from regstore.gc.plan import GcOptions, plan_gc
from regstore.gc.policy import BrokenScope, Policy
from regstore.gc.why import why
from regstore.inventory.scan import ScanOptions, scan
from tests.gc.test_retention import generated, policies
from tests.model.builder import Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, GRACES, NOW, UPLOADS_OLDER_THAN, registries
from tests.model.store import ModelStore


@settings(generated, max_examples=6)
@given(
    registries(disk=False), st.one_of(st.none(), policies()), st.sampled_from(GRACES), st.booleans(), st.booleans()
)
def test_what_stays_has_a_reason(
    store: ModelStore, policy: Policy | None, grace: int, delete_untagged: bool, broken: bool
) -> None:
    options = GcOptions(
        delete_untagged=delete_untagged,
        grace=grace,
        uploads_older_than=UPLOADS_OLDER_THAN,
        policy=policy,
        drop_broken=(BrokenScope(),) if broken else (),
    )

    async def check() -> None:
        async with scan(ModelStorage(store, now=NOW), ScanOptions(cache_dir=None)) as inventory:
            found = plan_gc(inventory, options, now=NOW)
            dead = {bytes(raw) for (raw,) in inventory.all("select digest from gc_dead_blob")}
            for (raw,) in inventory.all("select digest from blob"):
                reason = why(inventory, options, Digest.from_raw(bytes(raw)), now=NOW, limit=3)
                assert reason.stored
                assert reason.goes == (bytes(raw) in dead)
                assert len(reason.chains) == min(3, reason.repositories)
                if reason.goes:
                    assert not reason.chains and not reason.also
                else:
                    assert reason.chains or reason.also or found.sweep_blocked
                for chain in reason.chains:
                    assert chain.root != "unknown", chain
                    assert chain.links[-1].digest == reason.digest

    asyncio.run(check())


async def test_the_chain_of_a_layer() -> None:
    b = Builder(NOW - 60 * DAY)
    layer = b.blob(b"layer")
    child = b.image(b.blob(b"config"), [layer])
    index = b.index([child])
    b.push("team/app", index, "1.0")
    signature = b.image(b.blob(b"signed"), [b.blob(b"signature")], subject=index)
    b.push("team/app", signature)
    cosign = b.image(b.blob(b"old signed"), [])
    b.push("team/app", cosign, f"sha256-{index.encoded}.sig")
    options = GcOptions(delete_untagged=True)
    async with scan(ModelStorage(b.store, now=NOW), ScanOptions(cache_dir=None)) as inventory:
        plan_gc(inventory, options, now=NOW)

        def told(digest: Digest) -> tuple[str, list[tuple[str, str]]]:
            (chain,) = why(inventory, options, digest, now=NOW).chains
            return chain.root, [(link.named_as, link.digest) for link in chain.links]

        top = [("", str(index))]
        assert told(index) == ("tag 1.0", top)
        assert told(layer) == ("tag 1.0", [*top, ("manifest", str(child)), ("layer", str(layer))])
        of_signature = [*top, ("referrer", str(signature)), ("layer", str(Digest.of(b"signature")))]
        assert told(Digest.of(b"signature")) == ("tag 1.0", of_signature)
        root, links = told(cosign)
        assert root == "tag 1.0"
        assert links == [*top, (f"what tag sha256-{index.encoded}.sig names", str(cosign))]
