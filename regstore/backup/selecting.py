"""The part of a pack that some tags need. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from regstore.backup.format import Pack
from regstore.digest import Digest
from regstore.reference import names_digest


def select(pack: Pack, patterns: Sequence[str]) -> Pack:
    """The part of the pack that tags of these glob patterns need: what they reach, its referrers to any depth, and
    the `sha256-…` tags that follow what is kept. No patterns: all of it."""
    if not patterns:
        return pack
    tags = {tag for tag in pack.tags if any(fnmatchcase(tag, pattern) for pattern in patterns)}
    kept: set[Digest] = set()
    while True:
        stack = [pack.tags[tag].digest for tag in tags]
        stack += [digest for digest, known in pack.manifests.items() if known.linked and known.subject in kept]
        before = len(kept)
        while stack:
            digest = stack.pop()
            if digest in pack.manifests and digest not in kept:
                kept.add(digest)
                stack += pack.manifests[digest].needs
        followers = _followers(pack.tags, kept)
        if followers <= tags and len(kept) == before:
            break
        tags |= followers
    manifests = {digest: known for digest, known in pack.manifests.items() if digest in kept}
    named = kept | {need for known in manifests.values() for need in known.needs}
    everything = any(not known.needs for known in manifests.values())  # of one that is not understood, keep all
    layers = {digest: target for digest, target in pack.layers.items() if everything or digest in named}
    layers |= {target: target for target in layers.values() if pack.layers.get(target) == target}
    signatures = frozenset(pair for pair in pack.signatures if pair[0] in kept)
    blobs = {pack.blob_of(digest) for digest in named} | set(layers.values())
    blobs |= {digest for _, digest in signatures}
    return Pack(
        name=pack.name,
        blobs={digest: size for digest, size in pack.blobs.items() if digest in blobs},
        layers=layers,
        manifests=manifests,
        signatures=signatures,
        history=frozenset((tag, digest) for tag, digest in pack.history if tag in tags and digest in kept),
        tags={tag: packed for tag, packed in pack.tags.items() if tag in tags},
    )


def _followers(tags: Iterable[str], kept: Iterable[Digest]) -> set[str]:
    """The tags that name one of these, in full or cut."""
    by_tag = {f"{digest.algorithm}-{digest.encoded[:64]}": digest for digest in kept}
    named = ((tag, by_tag.get(tag[:71])) for tag in tags)
    return {tag for tag, digest in named if digest is not None and names_digest(tag, digest)}
