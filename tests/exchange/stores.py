"""Stores on disk with images of every kind, and exports and imports between them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regstore.exchange.exporting import ExportResult, export
from regstore.exchange.gathering import ExportOptions, plan_export
from regstore.exchange.importing import ImportOptions, ImportResult, import_layout, plan_import
from regstore.exchange.places import open_source, open_target
from regstore.reference import Reference
from regstore.state.lock import hold_lock
from regstore.storage import open_storage
from regstore.storage.base import Storage
from tests.servers import images
from tests.servers.images import Document

APP = images.multiarch("app")
OLD = images.image("old", docker=True)
SBOM = images.referrer(APP)
#: A signature of the SBOM, and an SBOM of one platform's image.
SIGNED = images.referrer(SBOM, "signature", artifact_type="application/vnd.example.signature")
OF_CHILD = images.referrer(APP.children[0], "child")
COSIGN_TAG, COSIGN = images.cosign(APP)
WORKER = images.image("worker", [APP.children[0].blobs[1], images.layer("of worker")])
OTHER = images.image("other")
SPARSE = images.index([OTHER, images.image("never pushed")], sparse=True)


def fill(folder: Path, *pushed: tuple[str, Document, str]) -> Path:
    """repository, image, tag ("": none)."""
    for repository, document, tag in pushed:
        images.write_keys(folder, images.registry_keys(repository, document, tag))
    return folder


def all_kinds(folder: Path) -> Path:
    return fill(
        folder,
        *(("team/app", APP, "1.0"), ("team/app", APP, "latest"), ("team/app", OLD, "old")),
        *(("team/app", SBOM, ""), ("team/app", SIGNED, ""), ("team/app", OF_CHILD, "")),
        *(("team/app", COSIGN, COSIGN_TAG), ("team/app", OTHER, "")),
        *(("team/worker", WORKER, "1.0"), ("solo", images.with_foreign_layer("f"), "1")),
        *(
            ("solo", images.buildkit_cache("c"), "cache"),
            ("solo", SPARSE, "sparse"),
        ),
    )


def keys(folder: Path, repository: str = "") -> dict[str, bytes]:
    """Of the registry's own, without seeds."""
    below = folder / "docker/registry/v2"
    found = {str(path.relative_to(below)): path.read_bytes() for path in below.rglob("*") if path.is_file()}
    return {
        key: body
        for key, body in found.items()
        if "_regstore" not in key and (not repository or key.startswith(f"repositories/{repository}/"))
    }


def tags(folder: Path) -> dict[str, str]:
    return {
        key.removeprefix("repositories/")
        .replace("/_manifests/tags/", ":")
        .removesuffix("/current/link"): body.decode()
        for key, body in keys(folder).items()
        if key.endswith("/current/link")
    }


async def export_from(storage: Storage, what: tuple[str, ...], target: Path, **more: Any) -> ExportResult:
    options = ExportOptions(what=tuple(map(Reference.parse, what)), **more)
    plan = await plan_export(storage, options)
    async with open_target(target) as there:
        return await export(storage, plan, there)


def exported(store: Path, target: Path, *what: str, **more: Any) -> ExportResult:
    async def work() -> ExportResult:
        async with open_storage(store) as storage:
            return await export_from(storage, what, target, **more)

    return asyncio.run(work())


async def import_into(storage: Storage, layout: Path, *what: str, **more: Any) -> ImportResult:
    options = ImportOptions(what=tuple(map(Reference.parse, what)), **more)
    async with open_source(layout) as source:
        plan = await plan_import(source, storage, options)
        async with hold_lock(storage, command="import") as lock:
            return await import_layout(source, storage, plan, options, lock=lock)


def imported(layout: Path, store: Path, *what: str, **more: Any) -> ImportResult:
    store.mkdir(exist_ok=True)

    async def work() -> ImportResult:
        async with open_storage(store) as storage:
            return await import_into(storage, layout, *what, **more)

    return asyncio.run(work())


def names(index: Mapping[str, Any]) -> dict[str, list[str]]:
    """ref.name, "" for none, to digests."""
    found: dict[str, list[str]] = {}
    for entry in index["manifests"]:
        found.setdefault(entry["annotations"].get("org.opencontainers.image.ref.name", ""), []).append(
            entry["digest"]
        )
    return found
