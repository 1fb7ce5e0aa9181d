"""Hypothesis strategies: small registries, realistic and nasty, as ModelStore.

Everything is built from small drawn integers, each drawn list shrinks to nothing, and the first choice of each
`sampled_from` is the harmless one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from hypothesis import strategies as st

from regstore import manifest as media
from regstore.digest import Digest
from regstore.layout import (
    BLOBS,
    DATABASE_IN_USE,
    FILESYSTEM_IN_USE,
    LOCKFILES,
    REPOSITORIES,
    BlobKey,
    LayerLinkKey,
    RevisionLinkKey,
    SignatureLinkKey,
    TagCurrentKey,
    TagIndexKey,
    decode,
    encode,
    link_body,
)
from tests.model.builder import CONFIG, FOREIGN, LAYER, Builder, descriptor, dump
from tests.model.store import ModelStore

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
#: The time of every plan: fixed, long past, so that no file is younger than the clock.
NOW = 1_700_000_000 * SECOND
GRACES = (0, HOUR, DAY)
UPLOADS_OLDER_THAN = 7 * DAY

#: Ages that lie well to one side of a grace or of the uploads' limit, or exactly on its edge, or 1 µs past it.
AGES = (30 * DAY, DAY + 1, DAY, HOUR + 1, HOUR, 1, 0, 7 * DAY, 7 * DAY + 1)
REPOSITORY_NAMES = ("a", "a/b", "a-b", "b", "a/b/c", "a", "b", "a/b", "a-b", "Invalid")
ABSENT = Digest.of(b"never stored")
_LAYERS = 5
_CONFIGS = 3

_small = st.integers(0, 9)
_ages = st.sampled_from(AGES)

_MANIFEST_KINDS = (
    "image",
    "index",
    "docker image",
    "docker list",
    "no media type",
    "index of untyped entries",
    "cache index",
    "schema1",
    "signed schema1",
    "artifact",
    "foreign layers",
    "sha512 layer",
    "layer is a manifest",
    "sparse index",
    "entry of odd type is a manifest",
)
#: These protect whatever links them.
_UNREADABLE_KINDS = ("ambiguous", "case variant", "not JSON", "JSON list", "no shape", "untyped entry is a layer")
_manifest_specs = st.tuples(
    st.sampled_from((*_MANIFEST_KINDS, *_MANIFEST_KINDS, *_UNREADABLE_KINDS)),
    st.lists(_small, max_size=3),
    st.sampled_from(("", "manifest", "absent")),
    _small,
)
_PUSH_MODES = ("whole", "whole", "no layer links", "revision only", "layer link only", "nothing but the tag")
_TAGS = (
    None,
    "latest",
    "1",
    "1-alpine",
    "sha256-{}",
    "sha256-{}.sig",
    "sha256-{}.att",
    "sha256-self",
    "sha256-absent",
    "_x",
)
_push_specs = st.tuples(_small, _small, st.sampled_from(_TAGS), _small, _ages, st.sampled_from(_PUSH_MODES))
_EXTRAS = (
    "mount",
    "sha512 link",
    "sha512 link, zero bytes",
    "sha512 link, newline",
    "sha512 link, to itself",
    "sha512 link, to a manifest",
    "signature",
    "signature of an absent revision",
    "old tag index",
    "tag index without current",
    "upload",
    "upload part",
    "unknown in tags",
    "unknown names digest",
    "unknown in blobs",
    "unknown in layers",
    "unknown beside repositories",
    "directory marker",
    "marker of a tag",
    "marker of a repository",
    "marker with content",
    "markers of nothing",
    "@eaDir beside a link",
    "@eaDir beside a tag",
    "AppleDouble beside a blob",
    "AppleDouble beside a tag's history",
    "Thumbs.db above repositories",
    "litter among uploads",
    "snapshot",
    "double slash",
    "non-ASCII repository",
    "non-ASCII repository's revision",
    "unknown names sha512",
    "signed as v2.1.0",
    "link to an absent blob",
    "retag",
)
_extra_specs = st.tuples(st.sampled_from(_EXTRAS), _small, _small, _small, _ages)
_DAMAGES = (
    "remove",
    "zero bytes",
    "newline",
    "wrong digest",
    "sha512 body",
    "not a digest",
    "flip",
    "new time",
    "not JSON",
)
_LINKS = (RevisionLinkKey, LayerLinkKey, TagCurrentKey, TagIndexKey, SignatureLinkKey, BlobKey)
_damage_specs = st.tuples(st.sampled_from(_DAMAGES), st.integers(0, len(_LINKS)), st.integers(0, 40), _ages)


def sha512_of(number: int) -> Digest:
    return Digest("sha512", hashlib.sha512(layer_content(number)).hexdigest())


def layer_content(number: int) -> bytes:
    return b"layer %d" % (number % _LAYERS)


def config_content(number: int) -> bytes:
    return b'{"config":%d}' % (number % _CONFIGS)


def _make_manifest(b: Builder, made: list[Digest], spec: tuple[str, list[int], str, int]) -> Digest:
    kind, numbers, subject_kind, number = spec
    document: object
    config = b.blob(config_content(number))
    layers = [b.blob(layer_content(n)) for n in numbers]
    children = [made[n % len(made)] for n in numbers] if made else []
    subject = {"": None, "absent": ABSENT, "manifest": made[number % len(made)] if made else ABSENT}[subject_kind]
    first_layer = b.blob(layer_content(number))
    match kind:
        case "image":
            return b.image(config, layers, subject=subject)
        case "index":
            return b.index(children, subject=subject)
        case "docker image":
            return b.image(config, layers, media_type=media.DOCKER_MANIFEST)
        case "docker list":
            return b.index(children, media_type=media.DOCKER_LIST, entry_type=media.DOCKER_MANIFEST)
        case "no media type":
            return b.image(config, layers, media_type="", subject=subject)
        case "index of untyped entries":
            return b.index(children, media_type="", entry_type="", subject=subject)
        case "cache index":
            return b.cache_index(config, layers)
        case "schema1":
            return b.schema1(layers, salt=number)
        case "signed schema1":
            return b.schema1(layers, signatures=[{"signature": "x"}], salt=number)
        case "artifact":
            return b.artifact([config, *layers], subject=subject)
        case "foreign layers":
            return b.image(config, [*layers, ABSENT], layer_type=FOREIGN)
        case "sha512 layer":
            return b.image(config, [*layers, sha512_of(number)], subject=subject)
        case "layer is a manifest":
            return b.image(config, [*layers, *children])
        case "untyped entry is a layer":
            return b.index([*children, first_layer], entry_type="")
        case "sparse index":
            return b.index([*children, ABSENT])
        case "entry of odd type is a manifest":
            return b.index(children, entry_type="application/vnd.example.odd", salt=number)
        case "ambiguous":
            document = {"config": descriptor(config, CONFIG), "layers": [], "manifests": []}
            return b.manifest(document, layers=[config])
        case "case variant":
            document = {"config": descriptor(config, CONFIG), "Layers": [descriptor(first_layer, LAYER)]}
            return b.manifest(document, layers=[config, first_layer])
        case "not JSON":
            return b.manifest(b"{not json %d" % number)
        case "JSON list":
            return b.manifest(b"[%d]" % number)
        case _:
            return b.manifest({"schemaVersion": 2, "salt": number})


def _tag_name(template: str, digest: Digest, other: Digest) -> str:
    match template:
        case "sha256-self":
            return f"sha256-{digest.encoded}"
        case "sha256-absent":
            return f"sha256-{ABSENT.encoded}"
        case _:
            return template.format(other.encoded)


def _push(b: Builder, made: list[Digest], spec: tuple[int, int, str | None, int, int, str]) -> None:
    name_number, manifest_number, tag_template, other_number, age, mode = spec
    name = REPOSITORY_NAMES[name_number % len(REPOSITORY_NAMES)]
    digest = made[manifest_number % len(made)]
    b.mtime = NOW - age
    match mode:
        case "whole":
            b.push(name, digest)
        case "no layer links":
            b.push(name, digest, layers=False)
        case "revision only":
            b.link_revision(name, digest)
        case "layer link only":  # as v2.1.0 did
            b.link_layer(name, digest)
    if tag_template is not None:
        b.tag(name, _tag_name(tag_template, digest, made[other_number % len(made)]), digest)


def _extra(b: Builder, made: list[Digest], spec: tuple[str, int, int, int, int]) -> None:
    kind, name_number, number, other, age = spec
    name = REPOSITORY_NAMES[name_number % len(REPOSITORY_NAMES)]
    prefix = f"{REPOSITORIES}{name}/"
    layer, digest = b.blob(layer_content(number)), made[number % len(made)] if made else ABSENT
    b.mtime = NOW - age
    alias, uuid = sha512_of(number), f"{number:08x}-0000-4000-8000-000000000000"
    match kind:
        case "mount":
            b.link_layer(name, layer)
        case "sha512 link":
            b.link_layer(name, alias, link_body(layer))
        case "sha512 link, zero bytes":
            b.link_layer(name, alias, b"")
        case "sha512 link, newline":
            b.link_layer(name, alias, link_body(layer) + b"\n")
        case "sha512 link, to itself":
            b.link_layer(name, alias)
        case "sha512 link, to a manifest":
            b.link_layer(name, alias, link_body(digest))
        case "signature":
            b.sign(name, digest, b.blob(b"signature %d" % other))
        case "signature of an absent revision":
            b.sign(name, ABSENT, b.blob(b"signature %d" % other))
        case "old tag index":
            b.tag_index(name, "latest", digest)
        case "tag index without current":
            b.tag_index(name, "gone", digest)
        case "upload":
            b.upload(name, uuid, ["startedat", "data", "hashstates/sha256/0"])
        case "upload part":
            b.upload(name, uuid, ["data"])
        case "unknown in tags":
            b.put(f"{prefix}_manifests/tags/stray", b"x")
        case "unknown names digest":
            b.put(f"{prefix}_manifests/revisions/sha256/{layer.encoded}/link.tmp", b"")
        case "unknown in blobs":
            b.put(f"{BLOBS}sha256/{layer.encoded[:2]}/{layer.encoded}/data.tmp", b"x")
        case "unknown in layers":
            b.put(f"{prefix}_layers/{alias.algorithm}/{alias.encoded}/other", b"")
        case "unknown beside repositories":
            b.put(f"docker/registry/v2/other/sha256/{layer.encoded}", b"x")
        case "directory marker":
            b.put(f"{prefix}_layers/sha256/{layer.encoded}/", b"")
        case "marker of a tag":
            b.put(f"{prefix}_manifests/tags/latest/", b"")
            b.put(f"{prefix}_manifests/tags/latest/index/sha256/{digest.encoded}/", b"")
        case "marker of a repository":
            for folder in ("", "_layers/", "_layers/sha256/", "_manifests/", "_uploads/"):
                b.put(prefix + folder, b"")
        case "marker with content":
            b.put(f"{prefix}_layers/sha256/{layer.encoded}/link/", b"x")
        case "markers of nothing":
            b.put(f"{REPOSITORIES}old/{name}/_manifests/revisions/sha256/{digest.encoded}/link/", b"")
            b.put(f"{REPOSITORIES}old/", b"")
        case "@eaDir beside a link":
            b.put(f"{prefix}_layers/sha256/{layer.encoded}/@eaDir/link@SynoEAStream", b"x")
            b.put(f"{prefix}_manifests/revisions/sha256/{digest.encoded}/@eaDir/link@SynoEAStream", b"x")
        case "@eaDir beside a tag":
            b.put(f"{prefix}_manifests/tags/@eaDir/latest@SynoEAStream", b"x")
            b.put(f"{prefix}_manifests/tags/latest/@eaDir/current@SynoEAStream", b"x")
        case "AppleDouble beside a blob":
            b.put(f"{BLOBS}sha256/{layer.encoded[:2]}/{layer.encoded}/._data", b"x")
            b.put(f"{BLOBS}sha256/{ABSENT.encoded[:2]}/{ABSENT.encoded}/.AppleDouble/data", b"x")
            b.put(f"{BLOBS}sha256/.DS_Store", b"x")
        case "AppleDouble beside a tag's history":
            b.put(f"{prefix}_manifests/tags/latest/index/sha256/{digest.encoded}/._link", b"x")
        case "Thumbs.db above repositories":
            b.put(f"{REPOSITORIES}{name.partition('/')[0]}/Thumbs.db", b"x")
            b.put(f"{REPOSITORIES}.DS_Store", b"x")
        case "litter among uploads":
            b.put(f"{prefix}_uploads/{uuid}/@eaDir/data@SynoEAStream", b"x")
            b.put(f"{prefix}_uploads/.DS_Store", b"x")
        case "snapshot":
            b.put(f"{prefix}_layers/.snapshot/hourly.0/sha256/{layer.encoded}/link", link_body(layer))
        case "double slash":
            b.put(f"{prefix}/_layers/sha256/{layer.encoded}/link", link_body(layer))
        case "non-ASCII repository":
            b.put(f"{REPOSITORIES}é/_layers/sha256/{layer.encoded}/link", link_body(layer))
        case "non-ASCII repository's revision":
            b.put(f"{REPOSITORIES}é/_manifests/revisions/sha256/{digest.encoded}/link", link_body(digest))
        case "unknown names sha512":
            b.put(f"{prefix}_layers/sha512/{alias.encoded}/stray", b"")
        case "signed as v2.1.0":
            b.sign(name, digest, b.blob(b"signature %d" % other))
            b.link_layer(name, digest)
            b.store.objects.pop(encode(RevisionLinkKey(name, digest)), None)
        case "link to an absent blob":
            b.link_layer(name, ABSENT)
        case "retag":
            b.tag(name, "latest", digest)


def _damage(b: Builder, spec: tuple[str, int, int, int]) -> None:
    kind, area, number, age = spec
    keys = [key for key in b.store if area == len(_LINKS) or isinstance(decode(key), _LINKS[area])]
    if not keys:
        return
    key = keys[number % len(keys)]
    body, mtime = b.store.objects[key]
    changes: dict[str, Callable[[], bytes]] = {
        "zero bytes": lambda: b"",
        "newline": lambda: body + b"\n",
        "wrong digest": lambda: link_body(Digest.of(layer_content(number))),
        "sha512 body": lambda: link_body(sha512_of(number)),
        "not a digest": lambda: b"sha256:" + b"g" * 64,
        "flip": lambda: body[:-1] + bytes([body[-1] ^ 1]) if body else b"\x01",
        "new time": lambda: body,
        "not JSON": lambda: b"{",
    }
    if kind == "remove":
        del b.store.objects[key]
    else:
        b.put(key, changes[kind](), NOW - age if kind == "new time" else mtime)


#: What GitLab's registry may leave beside the layout's keys, and names that only look like it.
metadata_marks = st.sets(
    st.sampled_from(
        (DATABASE_IN_USE, FILESYSTEM_IN_USE, f"{DATABASE_IN_USE}.old", f"{LOCKFILES}a", f"{LOCKFILES}z")
    )
)


@st.composite
def registries(draw: st.DrawFn, *, disk: bool = True) -> ModelStore:
    """A registry as of NOW. disk: only what a folder can hold (no directory markers, no `//`)."""
    b = Builder(NOW - AGES[0])
    made: list[Digest] = []
    if draw(st.integers(0, 5)) == 5:
        b.store.objects.update(example_registry().objects)
    blob_ages = draw(st.lists(st.tuples(st.integers(0, 12), _ages), max_size=2))
    for spec in draw(st.lists(_manifest_specs, max_size=10)):
        made.append(_make_manifest(b, made, spec))
    if made:
        for push in draw(st.lists(_push_specs, max_size=16)):
            _push(b, made, push)
    for extra in draw(st.lists(_extra_specs, max_size=10)):
        _extra(b, made, extra)
    for damage in draw(st.lists(_damage_specs, max_size=3)):
        _damage(b, damage)
    blobs = [key for key in b.store if isinstance(decode(key), BlobKey)]
    for number, age in blob_ages:
        if blobs:
            key = blobs[number % len(blobs)]
            b.put(key, b.store.objects[key][0], NOW - age)
    return b.store.on_disk() if disk else b.store


def example_registry() -> ModelStore:
    """Some 120 keys with a bit of everything, old garbage and fresh pushes; always the same. As of NOW."""
    b = Builder(NOW - 30 * DAY)
    layers = [b.blob(b"layer %d" % number * (number + 1)) for number in range(12)]
    configs = [b.blob(b'{"config":%d}' % number) for number in range(8)]
    amd, arm = b.image(configs[0], layers[0:3]), b.image(configs[1], [layers[0], *layers[3:5]])
    multi = b.index([amd, arm])
    b.push("team/app", multi, "1.0")
    old = b.image(configs[2], layers[1:4], media_type=media.DOCKER_MANIFEST)
    b.push("team/app", old, "latest")
    b.tag("team/app", "latest", multi)  # old is untagged now
    signature = b.image(configs[3], [layers[5]], subject=multi)
    b.push("team/app", signature)
    sbom = b.artifact([layers[6]], subject=signature)
    b.push("team/app", sbom)
    fallback = b.index([signature])
    b.push("team/app", fallback, f"sha256-{multi.encoded}")
    cosign = b.image(configs[4], [layers[7]])
    b.push("team/app", cosign, f"sha256-{old.encoded}.sig")
    b.push("team/app/cache", b.cache_index(configs[5], layers[2:6]), "cache")
    b.push("team", b.schema1(layers[7:9]), "legacy")
    alias = Digest("sha512", hashlib.sha512(b"layer 9" * 10).hexdigest())
    b.link_layer("b", alias, link_body(layers[9]))
    b.push("b", b.image(configs[6], [alias]), "sha512")
    b.push("b", b.index([amd, Digest.of(b"other platform")]), "sparse")
    lost = b.image(configs[7], [layers[10]])
    b.push("damaged", lost, "1")
    del b.store.objects[encode(BlobKey(lost))]
    b.link_layer("gone", layers[11])
    b.upload("team/app", "00000000-0000-4000-8000-000000000001")
    b.put(f"{REPOSITORIES}team/app/_manifests/tags/stray", b"")
    b.mtime = NOW - HOUR
    b.upload("team/app", "00000000-0000-4000-8000-000000000002")
    b.push("b", b.image(configs[0], [b.blob(b"fresh layer")]))
    b.blob(b"fresh blob")
    b.mtime = NOW - 30 * DAY
    b.blob(b"old garbage")
    b.put(BlobKey(Digest.of(b"x")), b"rotten")
    return b.store


__all__ = [
    "DAY",
    "GRACES",
    "HOUR",
    "NOW",
    "UPLOADS_OLDER_THAN",
    "dump",
    "example_registry",
    "registries",
]
