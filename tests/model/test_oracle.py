"""The oracle against small registries worked out by hand, and against what it must never do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regstore import manifest as media
from regstore.digest import Digest
from regstore.layout import (
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
    parse_link,
)
from regstore.reference import is_name
from tests.examples import examples
from tests.model.builder import Builder
from tests.model.gc_oracle import Expected, expected
from tests.model.random_registry import DAY, GRACES, HOUR, NOW, UPLOADS_OLDER_THAN, example_registry, registries
from tests.model.store import ModelStore

OLD, FRESH = NOW - 30 * DAY, NOW - HOUR
SHA512 = Digest("sha512", hashlib.sha512(b"layer").hexdigest())
UPLOAD = "00000000-0000-4000-8000-000000000000"


def plan(
    store: ModelStore,
    *,
    delete_untagged: bool = False,
    grace: int = DAY,
    uploads_older_than: int = UPLOADS_OLDER_THAN,
) -> Expected:
    return expected(
        store, now=NOW, delete_untagged=delete_untagged, grace=grace, uploads_older_than=uploads_older_than
    )


def blob(digest: Digest) -> str:
    return encode(BlobKey(digest))


def layer(digest: Digest, name: str = "a") -> str:
    return encode(LayerLinkKey(name, digest))


def revision(digest: Digest, name: str = "a") -> str:
    return encode(RevisionLinkKey(name, digest))


def current(tag: str, name: str = "a") -> str:
    return encode(TagCurrentKey(name, tag))


def index(tag: str, digest: Digest, name: str = "a") -> str:
    return encode(TagIndexKey(name, tag, digest))


def whole_image(digest: Digest, *parts: Digest) -> set[str]:
    """What goes when an untagged image goes: revision link, layer links, blobs."""
    return {revision(digest), blob(digest), *map(layer, parts), *map(blob, parts)}


# Each case builds a registry of old keys and says what is dead without, and with, delete_untagged.
Case = Callable[[Builder], tuple[set[str], set[str]]]
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


@case
def empty_store(b: Builder) -> tuple[set[str], set[str]]:
    return set(), set()


@case
def blob_that_nothing_names(b: Builder) -> tuple[set[str], set[str]]:
    dead = {blob(b.blob(b"garbage"))}
    return dead, dead


@case
def young_blob(b: Builder) -> tuple[set[str], set[str]]:
    b.mtime = NOW - DAY
    b.blob(b"exactly the grace is young")
    b.mtime = NOW - DAY - 1
    dead = {blob(b.blob(b"one microsecond more is not"))}
    return dead, dead


@case
def untagged_image(b: Builder) -> tuple[set[str], set[str]]:
    config, one = b.blob(b"config"), b.blob(b"one")
    image = b.image(config, [one])
    b.push("a", image)
    return set(), whole_image(image, config, one)


@case
def tagged_image(b: Builder) -> tuple[set[str], set[str]]:
    b.push("a", b.image(b.blob(b"config"), [b.blob(b"one")]), "latest")
    return set(), set()


@case
def moved_tag(b: Builder) -> tuple[set[str], set[str]]:
    config, one = b.blob(b"config"), b.blob(b"one")
    before, after = b.image(config, [one]), b.image(config)
    b.push("a", before, "latest")
    b.push("a", after, "latest")
    return set(), {revision(before), blob(before), layer(one), blob(one), index("latest", before)}


@case
def tag_without_revision_link_keeps_its_closure(b: Builder) -> tuple[set[str], set[str]]:
    one = b.blob(b"one")
    image = b.image(b.blob(b"config"), [one])
    b.push("a", image, "latest")
    del b.store.objects[revision(image)]
    return set(), set()


@case
def tag_that_points_at_nothing(b: Builder) -> tuple[set[str], set[str]]:
    b.tag("a", "latest", Digest.of(b"absent"))
    return set(), set()


@case
def unreadable_tag(b: Builder) -> tuple[set[str], set[str]]:
    """Protects only where tags decide: without delete_untagged the revisions are the roots."""
    one = b.blob(b"one")
    image = b.image(b.blob(b"config"))
    b.push("a", image)
    b.tag("a", "latest", image, b"")
    b.link_layer("a", one)
    return {layer(one), blob(one)}, set()


@case
def multi_arch_index_keeps_its_children(b: Builder) -> tuple[set[str], set[str]]:
    amd, arm = b.image(b.blob(b"amd"), [b.blob(b"1")]), b.image(b.blob(b"arm"), [b.blob(b"2")])
    b.push("a", b.index([b.index([amd, arm])]), "latest")
    return set(), set()


@case
def sparse_index_reads_children_that_another_repository_has(b: Builder) -> tuple[set[str], set[str]]:
    """The child is no revision here, but its blob is there: what it names lives, also without links."""
    config, one = b.blob(b"config"), b.blob(b"one")
    child = b.image(config, [one])
    b.push("b", child)
    sparse = b.index([child, Digest.of(b"absent")])
    b.link_revision("a", sparse)
    b.tag("a", "latest", sparse)
    return set(), {revision(child, "b"), layer(config, "b"), layer(one, "b")}


@case
def index_of_layers(b: Builder) -> tuple[set[str], set[str]]:
    b.push("a", b.cache_index(b.blob(b"config"), [b.blob(b"one")]), "cache")
    return set(), set()


@case
def entry_of_another_type_is_not_read(b: Builder) -> tuple[set[str], set[str]]:
    """An index's entry with a layer's media type is no manifest unless this repository links it as a revision."""
    one = b.blob(b"one")
    not_linked = b.image(b.blob(b"config"), [one])
    b.push("a", b.index([not_linked], entry_type=media.OCI_LAYER), "cache")
    for key in (revision(not_linked), layer(one), layer(Digest.of(b"config"))):
        del b.store.objects[key]
    dead = {blob(one), blob(Digest.of(b"config"))}
    return dead, dead


@case
def entry_of_another_type_is_read_when_linked(b: Builder) -> tuple[set[str], set[str]]:
    linked = b.image(b.blob(b"config"), [b.blob(b"one")])
    b.push("a", b.index([linked], entry_type=media.OCI_LAYER), "cache")
    return set(), set()


@case
def manifest_here_is_a_layer_there(b: Builder) -> tuple[set[str], set[str]]:
    """A layer is kept, never expanded."""
    config, one = b.blob(b"config"), b.blob(b"one")
    image = b.image(config, [one])
    b.push("a", image)
    b.push("b", b.image(b.blob(b"other config"), [image]), "latest")
    return set(), {revision(image), layer(config), layer(one), blob(config), blob(one)}


@case
def shared_layer_outlives_one_repository(b: Builder) -> tuple[set[str], set[str]]:
    config, one = b.blob(b"config"), b.blob(b"one")
    image = b.image(config, [one])
    b.push("a", image)
    b.push("b", image, "latest")
    return set(), {revision(image), layer(config), layer(one)}


@case
def layer_of_another_repository_without_a_link(b: Builder) -> tuple[set[str], set[str]]:
    b.push("a", b.image(b.blob(b"config"), [b.blob(b"one")]), "latest", layers=False)
    return set(), set()


@case
def mounted_and_never_used(b: Builder) -> tuple[set[str], set[str]]:
    one = b.blob(b"one")
    dead = {b.link_layer("a", one), blob(one)}
    return dead, dead


@case
def mounted_just_now(b: Builder) -> tuple[set[str], set[str]]:
    one = b.blob(b"one")
    b.mtime = FRESH
    b.link_layer("a", one)
    return set(), set()


@case
def young_revision_keeps_its_whole_closure(b: Builder) -> tuple[set[str], set[str]]:
    child = b.image(b.blob(b"config"), [b.blob(b"one")])
    b.push("a", b.index([child]))
    b.mtime = FRESH
    b.link_revision("a", b.index([child]))
    return set(), set()


@case
def schema1(b: Builder) -> tuple[set[str], set[str]]:
    one, two = b.blob(b"one"), b.blob(b"two")
    b.push("a", b.schema1([one, one]), "latest")
    b.push("a", untagged := b.schema1([two]))
    return set(), whole_image(untagged, two)


@case
def referrers_of_referrers(b: Builder) -> tuple[set[str], set[str]]:
    image = b.image(b.blob(b"config"))
    signature = b.image(b.blob(b"signature"), subject=image)
    b.push("a", image, "latest")
    b.push("a", signature)
    b.push("a", b.artifact([b.blob(b"sbom")], subject=signature))
    return set(), set()


@case
def referrer_of_something_gone(b: Builder) -> tuple[set[str], set[str]]:
    config = b.blob(b"config")
    referrer = b.image(config, subject=Digest.of(b"absent"))
    b.push("a", referrer)
    return set(), whole_image(referrer, config)


@case
def subject_is_no_strong_reference(b: Builder) -> tuple[set[str], set[str]]:
    config = b.blob(b"config")
    image = b.image(config)
    b.push("a", image)
    b.push("a", b.image(b.blob(b"signature"), subject=image), "signature")
    return set(), whole_image(image, config)


@case
def referrer_in_another_repository_is_none(b: Builder) -> tuple[set[str], set[str]]:
    config = b.blob(b"signature")
    image = b.image(b.blob(b"config"))
    signature = b.image(config, subject=image)
    b.push("b", image, "latest")
    b.push("a", signature)
    return set(), whole_image(signature, config)


@case
def tag_follows_what_it_names(b: Builder) -> tuple[set[str], set[str]]:
    kept, gone = b.image(b.blob(b"kept")), b.image(b.blob(b"gone"))
    b.push("a", kept, "latest")
    b.push("a", gone)
    for_kept, for_gone = b.image(b.blob(b"for kept")), b.image(b.blob(b"for gone"))
    b.push("a", for_kept, f"sha256-{kept.encoded}")
    b.push("a", for_gone, f"sha256-{gone.encoded}.sig")
    tag = f"sha256-{gone.encoded}.sig"
    dead = whole_image(gone, Digest.of(b"gone")) | whole_image(for_gone, Digest.of(b"for gone"))
    return set(), dead | {current(tag), index(tag, for_gone)}


@case
def signature_of_a_signature_follows(b: Builder) -> tuple[set[str], set[str]]:
    image, first, second = (b.image(b.blob(text)) for text in (b"image", b"first", b"second"))
    b.push("a", image, "latest")
    b.push("a", second, f"sha256-{first.encoded}.sig")
    b.push("a", first, f"sha256-{image.encoded}.sig")
    return set(), set()


@case
def tags_that_follow_each_other_in_a_ring_are_no_root(b: Builder) -> tuple[set[str], set[str]]:
    one, two = b.image(b.blob(b"one")), b.image(b.blob(b"two"))
    b.push("a", one, f"sha256-{two.encoded}")
    b.push("a", two, f"sha256-{one.encoded}")
    dead = whole_image(one, Digest.of(b"one")) | whole_image(two, Digest.of(b"two"))
    dead |= {current(f"sha256-{two.encoded}"), index(f"sha256-{two.encoded}", one)}
    dead |= {current(f"sha256-{one.encoded}"), index(f"sha256-{one.encoded}", two)}
    return set(), dead


@case
def tag_that_names_what_it_points_at_or_reaches_is_an_ordinary_tag(b: Builder) -> tuple[set[str], set[str]]:
    image, child = b.image(b.blob(b"image")), b.image(b.blob(b"child"))
    b.push("a", image, f"sha256-{image.encoded}")
    b.push("a", b.index([b.index([child])]), f"sha256-{child.encoded}")
    return set(), set()


@case
def tag_that_names_no_revision_is_an_ordinary_tag(b: Builder) -> tuple[set[str], set[str]]:
    b.push("a", b.image(b.blob(b"image")), f"sha256-{Digest.of(b'absent').encoded}.sig")
    return set(), set()


@case
def young_tag_is_a_root_whatever_it_names(b: Builder) -> tuple[set[str], set[str]]:
    image, config = b.image(b.blob(b"image")), b.blob(b"signature")
    signature = b.image(config)
    b.push("a", image)
    b.push("a", signature)
    b.mtime = FRESH
    b.tag("a", f"sha256-{image.encoded}", signature)
    return set(), whole_image(image, Digest.of(b"image"))


@case
def sha512_layer_is_found_through_its_link(b: Builder) -> tuple[set[str], set[str]]:
    stored = b.blob(b"layer")
    b.link_layer("a", SHA512, link_body(stored))
    b.push("a", b.image(b.blob(b"config"), [SHA512]), "latest")
    return set(), set()


@case
def sha512_layer_that_nothing_names(b: Builder) -> tuple[set[str], set[str]]:
    stored = b.blob(b"layer")
    dead = {b.link_layer("a", SHA512, link_body(stored)), blob(stored)}
    return dead, dead


@case
def broken_sha512_link_in_use_blocks_the_sweep(b: Builder) -> tuple[set[str], set[str]]:
    b.blob(b"layer")  # dead to the eye: only the broken link knew
    b.blob(b"garbage elsewhere")
    b.link_layer("a", SHA512, b"")
    b.push("a", b.image(b.blob(b"config"), [SHA512]), "latest")
    dead = {b.link_layer("b", b.blob(b"unused"))}
    return dead, dead  # links may go, blobs may not


@case
def broken_sha512_link_that_nothing_names(b: Builder) -> tuple[set[str], set[str]]:
    dead = {b.link_layer("a", SHA512, b""), blob(b.blob(b"layer"))}
    return dead, dead


@case
def layer_link_to_another_digest_keeps_both(b: Builder) -> tuple[set[str], set[str]]:
    one = b.blob(b"one")
    b.push("a", b.image(b.blob(b"config"), [one]), "latest")
    b.link_layer("a", one, link_body(b.blob(b"two")))
    return set(), set()


@case
def unsound_revision_link_protects(b: Builder) -> tuple[set[str], set[str]]:
    image = b.image(b.blob(b"config"), [b.blob(b"one")])
    b.push("a", image)
    b.link_revision("a", image, link_body(image) + b"\n")
    b.link_layer("a", b.blob(b"unused"))
    b.link_layer("b", b.blob(b"unused"))
    dead = {layer(Digest.of(b"unused"), "b")}
    return dead, dead


@case
def missing_manifest_protects(b: Builder) -> tuple[set[str], set[str]]:
    image = b.image(b.blob(b"config"), [b.blob(b"one")])
    b.push("a", image, "latest")
    b.push("a", b.image(b.blob(b"untagged")))
    b.tag_index("a", "stale", image)
    del b.store.objects[blob(image)]
    return set(), set()


@case
def flipped_manifest_protects_everywhere_it_is_linked(b: Builder) -> tuple[set[str], set[str]]:
    image = b.image(b.blob(b"config"))
    for name in ("a", "b"):
        b.push(name, image, "latest")
        b.link_layer(name, b.blob(b"unused"))
    b.link_layer("a-b", b.blob(b"unused"))
    b.put(BlobKey(image), b"{}")
    dead = {layer(Digest.of(b"unused"), "a-b")}
    return dead, dead


@case
def damaged_child_that_is_no_revision_protects(b: Builder) -> tuple[set[str], set[str]]:
    child = b.image(b.blob(b"config"))
    b.push("a", b.index([child]), "latest")
    b.put(BlobKey(child), b"")
    del b.store.objects[revision(child)]
    b.link_layer("a", b.blob(b"unused"))
    return set(), set()


@case
def invalid_name_protects(b: Builder) -> tuple[set[str], set[str]]:
    b.push("Not-A-Name", b.image(b.blob(b"config")))
    b.link_layer("Not-A-Name", b.blob(b"one"))
    return set(), set()


@case
def uploads_go_from_protected_repositories_too(b: Builder) -> tuple[set[str], set[str]]:
    b.upload("Not-A-Name", UPLOAD)
    prefix = f"{REPOSITORIES}Not-A-Name/_uploads/{UPLOAD}/"
    dead = {f"{prefix}data", f"{prefix}startedat"}
    return dead, dead


@case
def upload_counts_by_its_newest_part(b: Builder) -> tuple[set[str], set[str]]:
    b.upload("a", UPLOAD, ["startedat", "hashstates/sha256/0"])
    b.mtime = NOW - UPLOADS_OLDER_THAN
    b.upload("a", UPLOAD, ["data"])
    return set(), set()


@case
def signatures_go_with_their_revision(b: Builder) -> tuple[set[str], set[str]]:
    one = b.blob(b"one")
    untagged, tagged = b.schema1([one]), b.schema1([b.blob(b"two")])
    b.push("a", untagged)
    b.push("a", tagged, "latest")
    gone = b.sign("a", untagged, b.blob(b"signature"))
    b.sign("a", tagged, b.blob(b"other signature"))
    return set(), whole_image(untagged, one) | {gone, blob(Digest.of(b"signature"))}


@case
def stale_tag_index(b: Builder) -> tuple[set[str], set[str]]:
    kept, image = b.image(b.blob(b"kept")), b.image(b.blob(b"config"))
    b.push("a", image, "latest")
    b.push("a", kept, "other")
    b.tag_index("a", "latest", kept)
    dead = {b.tag_index("a", "latest", Digest.of(b"absent")), b.tag_index("a", "gone", kept)}
    return dead, dead


@case
def tag_in_the_middle_of_a_push(b: Builder) -> tuple[set[str], set[str]]:
    b.push("a", b.image(b.blob(b"config")), "latest")
    b.tag_index("a", "new", Digest.of(b"before"))
    b.mtime = FRESH
    b.tag_index("a", "new", Digest.of(b"now"))
    return set(), set()


@case
def unknown_keys_name_digests(b: Builder) -> tuple[set[str], set[str]]:
    kept, gone = b.blob(b"kept"), b.blob(b"gone")
    b.put(f"{REPOSITORIES}a/_layers/sha256/{kept.encoded}/link.tmp", b"")
    b.put(f"docker/registry/v2/elsewhere/sha256/{gone.encoded}", b"")
    dead = {blob(gone)}
    return dead, dead


@case
def manifest_linked_as_v2_1_0_did(b: Builder) -> tuple[set[str], set[str]]:
    """A layer link, and signatures below revisions, without a revision link: registries still serve it by tag."""
    one = b.blob(b"one")
    image = b.schema1([one])
    b.link_layer("a", one)
    b.link_layer("a", image)
    b.sign("a", image, b.blob(b"signature"))
    b.tag("a", "latest", image)
    return set(), set()


@case
def untagged_manifest_linked_as_v2_1_0_did(b: Builder) -> tuple[set[str], set[str]]:
    """And by digest: a DELETE would have taken the layer link, so it is always a root."""
    one = b.blob(b"one")
    image = b.schema1([one])
    b.link_layer("a", one)
    b.link_layer("a", image)
    b.sign("a", image, b.blob(b"signature"))
    dead = {b.link_layer("a", b.blob(b"unused")), blob(Digest.of(b"unused"))}
    return dead, dead


@case
def signature_without_any_link_to_its_manifest(b: Builder) -> tuple[set[str], set[str]]:
    image = b.schema1([])
    dead = {b.sign("a", image, b.blob(b"signature")), blob(Digest.of(b"signature")), blob(image)}
    return dead, dead


@case
def unreadable_manifest_linked_as_v2_1_0_did_protects(b: Builder) -> tuple[set[str], set[str]]:
    image = b.blob(b"{not json")
    b.link_layer("a", image)
    b.sign("a", image, b.blob(b"signature"))
    b.link_layer("a", b.blob(b"unused"))
    return set(), set()


@case
def last_layer_link_stays(b: Builder) -> tuple[set[str], set[str]]:
    """v2.x finds repositories by `_layers`: without any, its garbage-collect would take what the tag keeps."""
    b.push("a", b.index([Digest.of(b"absent")]), "sparse")
    stale = sorted((b.blob(b"one"), b.blob(b"two"), b.blob(b"three")), key=lambda digest: digest.raw)
    for digest in stale:
        b.link_layer("a", digest)
    dead = {layer(digest) for digest in stale[1:]} | {blob(digest) for digest in stale[1:]}
    return dead, dead


@case
def last_layer_link_goes_with_the_last_revision(b: Builder) -> tuple[set[str], set[str]]:
    index_ = b.index([Digest.of(b"absent")])
    b.push("a", index_)
    stale = b.blob(b"stale")
    b.link_layer("a", stale)
    return set(), {layer(stale), blob(stale), revision(index_), blob(index_)}


@case
def null_config_is_ambiguous(b: Builder) -> tuple[set[str], set[str]]:
    """Go's decoder keeps the first of two; another reader sees none."""
    config = b.blob(b"config")
    text = f'{{"schemaVersion":2,"config":{{"digest":"{config}","size":6}},"config":null,"layers":[]}}'
    b.push("a", b.manifest(text.encode(), layers=[config]), "latest")
    b.link_layer("a", b.blob(b"unused"))
    return set(), set()


@case
def sha512_layer_is_found_through_another_repository(b: Builder) -> tuple[set[str], set[str]]:
    stored = b.blob(b"layer")
    b.link_layer("b", SHA512, link_body(stored))
    b.push("a", b.image(b.blob(b"config"), [SHA512]), "latest")
    dead = {b.link_layer("b", b.blob(b"unused")), blob(Digest.of(b"unused"))}
    return dead, dead


@case
def broken_sha512_link_elsewhere_blocks_the_sweep(b: Builder) -> tuple[set[str], set[str]]:
    b.blob(b"layer")
    b.link_layer("b", SHA512, b"")
    b.push("a", b.image(b.blob(b"config"), [SHA512]), "latest")
    return set(), set()


@case
def unknown_key_names_a_manifest(b: Builder) -> tuple[set[str], set[str]]:
    """A repository whose name can't be decoded keeps what its manifests name."""
    one, two = b.blob(b"one"), b.blob(b"two")
    child = b.image(b.blob(b"config"), [one])
    multi = b.index([child])
    b.put(f"{REPOSITORIES}\u00e9/_manifests/revisions/sha256/{multi.encoded}/link", link_body(multi))
    plain = b.image(b.blob(b"other config"), [two])
    b.put(f"{REPOSITORIES}\u00e9/_layers/sha256/{plain.encoded}/link", link_body(plain))
    dead = {blob(two), blob(Digest.of(b"other config"))}
    return dead, dead


@case
def unknown_key_names_no_readable_manifest(b: Builder) -> tuple[set[str], set[str]]:
    one = b.blob(b"one")
    b.put(f"{REPOSITORIES}a/_manifests/revisions/sha256/{one.encoded}/link.tmp", b"")
    dead = {b.link_layer("a", b.blob(b"unused")), blob(Digest.of(b"unused"))}
    return dead, dead


@case
def unknown_key_names_a_sha512(b: Builder) -> tuple[set[str], set[str]]:
    b.blob(b"layer")
    b.put(f"{REPOSITORIES}\u00e9/_layers/sha512/{SHA512.encoded}/link", b"")
    dead = {b.link_layer("a", b.blob(b"unused"))}
    return dead, dead


@case
def follower_reaches_no_further_than_registries_read(b: Builder) -> tuple[set[str], set[str]]:
    """Another repository has read that layer as a manifest; here it is a layer, so the tag does follow."""
    named = b.image(b.blob(b"named"))
    b.push("a", named)
    as_layer = b.index([named])
    b.push("b", as_layer, "keep", layers=False)
    del b.store.objects[revision(named, "b")]
    del b.store.objects[layer(Digest.of(b"named"), "a")]
    other = b.image(b.blob(b"other"), [as_layer])
    b.push("a", other, tag := f"sha256-{named.encoded}")
    dead = {revision(named), revision(other), blob(other), blob(Digest.of(b"other"))}
    return set(), dead | {layer(Digest.of(b"other")), layer(as_layer), current(tag), index(tag, other)}


@case
def link_too_long_to_read_stays(b: Builder) -> tuple[set[str], set[str]]:
    one = b.blob(b"one")
    b.link_layer("a", one, b"x" * 1025)
    b.link_layer("a", b.blob(b"unused"), b"x" * 1024)
    dead = {layer(Digest.of(b"unused")), blob(Digest.of(b"unused"))}
    return dead, dead


@case
def nested_repositories_are_separate(b: Builder) -> tuple[set[str], set[str]]:
    one = b.blob(b"one")
    b.push("a/b", b.image(b.blob(b"config"), [one]), "latest")
    dead = {b.link_layer("a", one), b.link_layer("a-b", one)}
    return dead, dead


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("delete_untagged", [False, True])
def test_by_hand(name: str, delete_untagged: bool) -> None:
    b = Builder(OLD)
    dead = CASES[name](b)[delete_untagged]
    found = plan(b.store, delete_untagged=delete_untagged)
    assert found.dead == dead


def test_uploads_with_multipart_uploads() -> None:
    b = Builder(OLD)
    b.upload("a", UPLOAD, ["startedat"])
    (part,) = b.store
    data = part.replace("startedat", "data")

    def uploads(multipart: list[tuple[str, int]] | None) -> frozenset[str]:
        return expected(
            b.store, now=NOW, delete_untagged=False, grace=DAY, uploads_older_than=DAY, multipart=multipart
        ).uploads

    assert uploads([(data, NOW - 2 * DAY)]) == {part}
    assert uploads([(data, NOW - 2 * DAY), (data, NOW - DAY)]) == frozenset()
    assert uploads([(data.replace("/a/", "/b/"), NOW)]) == {part}
    assert uploads(None) == frozenset()


def test_protection_says_why() -> None:
    b = Builder(OLD)
    image = b.image(b.blob(b"config"))
    b.push("unsound", image)
    b.link_revision("unsound", image, b"")
    b.push("Name", image)
    b.tag("tag", "latest", image, b"nothing")
    b.push("missing", other := b.image(b.blob(b"other")))
    b.push("child", b.index([other]), "latest", layers=False)
    del b.store.objects[revision(other, "child")]
    b.put(BlobKey(other), b"rotten")
    assert plan(b.store, delete_untagged=True).protected == {
        "unsound": {"revision link"},
        "Name": {"name"},
        "tag": {"tag link"},
        "missing": {"revision unreadable"},
        "child": {"manifest unreadable"},
    }
    assert "tag" not in plan(b.store).protected


def test_emptied() -> None:
    b = Builder(OLD)
    one = b.blob(b"one")
    b.link_layer("gone", one)
    b.link_layer("gone/nested", one)
    b.tag("gone/nested", "stays", Digest.of(b"absent"))
    b.link_layer("stray", one)
    b.put(f"{REPOSITORIES}stray/_manifests/tags/file", b"")
    b.upload("uploads", UPLOAD)
    assert plan(b.store).emptied == {"gone", "uploads"}


def test_sweep_blocked_leaves_every_blob() -> None:
    b = Builder(OLD)
    broken_sha512_link_in_use_blocks_the_sweep(b)
    found = plan(b.store)
    assert found.sweep_blocked
    assert found.live_blobs == {key for key in b.store if isinstance(decode(key), BlobKey)}


# What holds for every registry.

generated = settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow])


def pulled_by_digest(store: ModelStore, name: str, digest: Digest, seen: set[Digest]) -> Iterator[str]:
    """The keys that a registry reads to serve a manifest and, to the client, all that it names. It is lenient: it
    looks for a manifest under `_layers` too, and reads every shape of a document at once.
    """
    if digest in seen:
        return
    seen.add(digest)
    link = next((key for key in (revision(digest, name), layer(digest, name)) if key in store), None)
    content = store.body(blob(digest))
    if link is None or store.body(link) != link_body(digest) or content is None or not digest.matches(content):
        return
    yield link
    yield blob(digest)
    try:
        document = json.loads(content)
    except ValueError:
        return
    if not isinstance(document, dict):
        return
    names = {key.lower(): value for key, value in document.items()}
    parts = [names.get("config"), *(names.get("layers") or ()), *(names.get("blobs") or ())]
    entries = names.get("manifests") or []
    plain = [part["digest"] for part in [*parts, *entries] if part]
    plain += [part["blobSum"] for part in names.get("fslayers") or ()]
    for text in plain:
        yield from pulled_blob(store, name, Digest.parse(text))
    for entry in entries:
        child = Digest.parse(entry["digest"])
        if revision(child, name) in store or "manifest" in entry.get("mediaType", "manifest"):
            yield from pulled_by_digest(store, name, child, seen)


def pulled_blob(store: ModelStore, name: str, digest: Digest) -> Iterator[str]:
    link = store.body(layer(digest, name))
    target = parse_link(link) if link is not None else None
    content = store.body(blob(target)) if target else None
    if target and content is not None and digest.matches(content):
        yield layer(digest, name)
        yield blob(target)


def pulled_by_tag(store: ModelStore, name: str, tag: str) -> Iterator[str]:
    target = parse_link(store.body(current(tag, name)) or b"")
    if target is not None:
        yield current(tag, name)
        yield from pulled_by_digest(store, name, target, set())


@generated
@given(registries(disk=False), st.booleans(), st.sampled_from(GRACES))
def test_what_a_registry_serves_stays(store: ModelStore, delete_untagged: bool, grace: int) -> None:
    found = plan(store, delete_untagged=delete_untagged, grace=grace)
    for key in store:
        match decode(key):
            case TagCurrentKey(name, tag) if is_name(name) and key not in found.tag_currents:
                assert found.dead.isdisjoint(pulled_by_tag(store, name, tag))
            case RevisionLinkKey(name, digest) if is_name(name) and not delete_untagged:
                assert found.dead.isdisjoint(pulled_by_digest(store, name, digest, set()))


@generated
@given(registries(disk=False), st.booleans())
def test_a_longer_grace_never_kills_more(store: ModelStore, delete_untagged: bool) -> None:
    dead = [plan(store, delete_untagged=delete_untagged, grace=grace).dead for grace in GRACES]
    assert dead[0] >= dead[1] >= dead[2]


@generated
@given(registries(disk=False), st.sampled_from(GRACES))
def test_delete_untagged_only_adds(store: ModelStore, grace: int) -> None:
    """Except where its own protection (an unreadable tag) keeps a whole repository."""
    kept, tags_only = (plan(store, delete_untagged=flag, grace=grace) for flag in (False, True))
    if kept.protected.keys() == tags_only.protected.keys():
        assert kept.dead_links <= tags_only.dead_links
        assert kept.uploads == tags_only.uploads


@generated
@given(registries(disk=False), st.booleans(), st.sampled_from(GRACES))
def test_a_protected_repository_loses_no_link(store: ModelStore, delete_untagged: bool, grace: int) -> None:
    found = plan(store, delete_untagged=delete_untagged, grace=grace)
    for key in found.dead_links:
        decoded = decode(key)
        assert isinstance(decoded, TagCurrentKey | TagIndexKey | RevisionLinkKey | SignatureLinkKey | LayerLinkKey)
        assert decoded.name not in found.protected


@generated
@given(registries(disk=False), st.booleans(), st.sampled_from(GRACES))
def test_a_second_run_finds_nothing(store: ModelStore, delete_untagged: bool, grace: int) -> None:
    found = plan(store, delete_untagged=delete_untagged, grace=grace)
    again = plan(store.without(found.dead), delete_untagged=delete_untagged, grace=grace)
    assert again.dead == frozenset()
    assert again.live_blobs == found.live_blobs


@generated
@given(registries(disk=False), st.booleans(), st.sampled_from(GRACES), st.data())
def test_a_run_cut_short_harms_nothing(
    store: ModelStore, delete_untagged: bool, grace: int, data: st.DataObject
) -> None:
    """In the order tag current, tag index, revision, signature, layer link, blob: wherever it stops, the next run
    ends no poorer than an uninterrupted one."""
    found = plan(store, delete_untagged=delete_untagged, grace=grace)
    parts = (found.tag_currents, found.tag_indexes, found.revision_links, found.signature_links, found.layer_links)
    order = [key for part in (*parts, found.blobs) for key in sorted(part)]
    rest = store.without(order[: data.draw(st.integers(0, len(order)))])
    assert plan(rest, delete_untagged=delete_untagged, grace=grace).dead <= found.dead


@generated
@given(registries(disk=False))
def test_dead_and_live_are_keys_of_the_store_and_never_unknown(store: ModelStore) -> None:
    found = plan(store, delete_untagged=True, grace=0)
    assert found.dead <= store.objects.keys()
    assert all(encode(decode(key)) == key for key in found.dead)
    assert not any(type(decode(key)).__name__ in ("UnknownKey", "SeedKey") for key in found.dead)
    assert found.live_blobs.isdisjoint(found.blobs)


@generated
@given(registries())
def test_a_registry_for_disk_survives_the_disk(tmp_path_factory: pytest.TempPathFactory, store: ModelStore) -> None:
    root = tmp_path_factory.mktemp("store")
    store.write_folder(root)
    assert ModelStore.from_folder(root) == store


def test_the_example(tmp_path: Path) -> None:
    store = example_registry()
    assert store == example_registry() == store.on_disk()
    store.write_folder(tmp_path)
    assert ModelStore.from_folder(tmp_path) == store
    kept = plan(store)
    assert {len(kept.layer_links), len(kept.uploads), len(kept.blobs)} == {1, 2, 3}
    assert kept.protected.keys() == {"damaged"}
    assert kept.emptied == {"gone"}
    tagged = plan(store, delete_untagged=True)
    # The Docker image whose tag moved goes, with its cosign tag; the referrers of what is tagged stay.
    assert len(tagged.tag_currents) == 1
    assert len(tagged.revision_links) == 2
