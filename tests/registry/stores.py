"""Filling a registry through the library, and looking at its folder without it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from regstore.registry import Repository
from tests.servers import images
from tests.servers.images import Document


async def push(repository: Repository, document: Document, tag: str | None = None) -> None:
    """Blobs, children, then the manifest."""
    for part in document.documents():
        for blob in part.blobs:
            await repository.blobs.put(blob.data, blob.digest)
        await repository.manifests.put(part.data, part.media_type, tag=tag if part is document else None)


def objects(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def dangling(root: Path) -> list[str]:
    """Links of this folder that lead to nothing, or to bytes of another digest: found with nothing of regstore."""
    found = objects(root)
    bad = []
    for key, body in found.items():
        if not key.endswith("/link"):
            continue
        digest = body.decode()
        if "/_manifests/tags/" in key:
            name = key.partition("/_manifests/")[0]
            if f"{name}/_manifests/revisions/{digest.replace(':', '/')}/link" not in found:
                bad.append(key)
        blob = found.get(images.blob_key(digest))
        if blob is None or "sha256:" + hashlib.sha256(blob).hexdigest() != digest:
            bad.append(key)
    return bad
