"""What a pack may say. Its digest proves that it is what was written, not that `create` wrote it. Pure."""

from __future__ import annotations

from regstore import layout
from regstore.backup.format import Pack
from regstore.digest import Digest


def contradiction(pack: Pack) -> str:
    """What no pack of a backup says, or "": a name or tag that is none in a registry's storage (a restore would write
    elsewhere), a size that is none, a link to something that is not among the blobs."""
    probe = next(iter(pack.manifests), Digest.of(b""))
    if not _stands(layout.RevisionLinkKey(pack.name, probe)):
        return f"{pack.name!r} is no repository's name"
    for tag in (*pack.tags, *(tag for tag, _ in pack.history)):
        if not _stands(layout.TagCurrentKey(pack.name, tag)):
            return f"{tag!r} is no tag"
    for tag, packed in pack.tags.items():
        if packed.digest not in pack.manifests or type(packed.time) is not int:
            return f"tag {tag} names no manifest of it, or has no time"
    for digest, size in pack.blobs.items():
        if type(size) is not int or size < 0:
            return f"blob {digest} has the size {size!r}"
    for digest, known in pack.manifests.items():
        for part in (digest, *known.needs):
            if pack.blob_of(part) not in pack.blobs:
                return f"manifest {digest} needs {part}, which is not among its blobs"
    others = {*pack.layers.values(), *(digest for _, digest in pack.signatures)} - pack.blobs.keys()
    others |= ({manifest for manifest, _ in pack.signatures} | {digest for _, digest in pack.history}) - (
        pack.manifests.keys()
    )
    return f"it links {min(others)}, which it does not have" if others else ""


def _stands(key: layout.Key) -> bool:
    return layout.decode(layout.encode(key)) == key
