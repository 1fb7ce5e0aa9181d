"""A registry with a bit of everything and nothing wrong, as a registry would have stored it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from regstore.digest import Digest
from regstore.proving.read_data import ReadData
from regstore.state.lock import hold_lock
from regstore.storage.base import Storage
from regstore.verify.copies import Links
from regstore.verify.fault import Fault
from regstore.verify.options import VerifyOptions
from regstore.verify.repairing import repair
from regstore.verify.run import VerifyReport, verify
from regstore.verify.work import RepairOptions, Repairs
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore
from tests.servers import images
from tests.servers.images import Document

APP = "docker/registry/v2/repositories/team/app"
MULTI = images.multiarch("m")
SINGLE = images.image("s", 3)
DOCKER = images.image("d", docker=True)
SBOM = images.referrer(MULTI)
SIGNATURE_TAG, SIGNATURE = images.cosign(SINGLE)
SHA512_LAYER = images.layer("by sha512")
ALIAS = Digest.of(SHA512_LAYER.data, "sha512")
ARM = MULTI.children[1]


def pristine() -> ModelStore:
    """As it was pushed yesterday."""
    keys: dict[str, bytes] = {}
    fallback_tag, fallback = images.referrers_index(MULTI, [SBOM])
    for tag, document in {
        "multi": MULTI,
        "single": SINGLE,
        "docker": DOCKER,
        "": SBOM,
        fallback_tag: fallback,
        SIGNATURE_TAG: SIGNATURE,
        "cache": images.buildkit_cache("c"),
        "foreign": images.with_foreign_layer("f"),
    }.items():
        keys |= images.registry_keys("team/app", document, tag)
    keys |= images.registry_keys("team/app", SINGLE, "next")
    keys |= images.registry_keys("old/one", images.schema1("old/one", "legacy", "x"), "legacy")
    keys |= images.registry_keys("other", SINGLE, "1")
    keys |= sha512_image()
    # A sparse index: only one of its children was ever here.
    sparse = images.index([images.image("here"), images.image("elsewhere")])
    keys |= images.registry_keys("sparse", images.image("here"))
    keys |= {
        key: body for key, body in images.registry_keys("sparse", sparse, "1").items() if "elsewhere" not in key
    }
    for key in images.registry_keys("sparse", images.image("elsewhere")).keys() - (
        images.registry_keys("sparse", images.image("here")).keys()
    ):
        del keys[key]
    return ModelStore({key: (body, NOW - DAY - number) for number, (key, body) in enumerate(keys.items())})


def sha512_image() -> dict[str, bytes]:
    image = images.image("alias", [SHA512_LAYER])
    document = image.data.replace(SHA512_LAYER.digest.encode(), str(ALIAS).encode())
    keys = images.registry_keys("b", Document(document, image.media_type, image.blobs), "sha512")
    keys[link("b", "_layers", str(ALIAS))] = SHA512_LAYER.digest.encode()
    return keys


def link(name: str, area: str, digest: str) -> str:
    return f"docker/registry/v2/repositories/{name}/{area}/{digest.replace(':', '/')}/link"


def storage_of(store: ModelStore) -> ModelStorage:
    return ModelStorage(store, now=NOW)


def registry_of(store: ModelStore) -> dict[str, bytes]:
    """All but what is ours."""
    return {key: body for key, body in store.bodies().items() if not key.startswith("regstore/")}


async def look(storage: Storage, read: str = "", **options: object) -> VerifyReport:
    return await verify(storage, VerifyOptions(read=ReadData.parse(read) if read else None, **options))  # type: ignore


async def mend(
    storage: Storage, source: Storage | None = None, *, links: Links | None = None, read: str = "all", **what: Any
) -> tuple[VerifyReport, Repairs, VerifyReport]:
    options = VerifyOptions(read=ReadData.parse(read) if read else None)
    async with hold_lock(storage, command="verify --repair") as lock:
        return await repair(storage, lock, options, RepairOptions(**what), source=source, links=links)


@dataclass(frozen=True)
class Named:
    """A fault in words, and the tags it touches; `~` before those where only what refers to them is concerned."""

    what: str
    tags: frozenset[str]


def named(fault: Fault) -> Named:
    return Named(
        f"{fault.kind}: {fault.area if fault.repository else 'blob'} {fault.tag or fault.digest}",
        frozenset(("" if tag.pull else "~") + str(tag) for tag in fault.touched),
    )
