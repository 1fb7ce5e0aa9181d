"""The macros of an inventory (`vocabulary.sql`) say what `digest`, `layout` and `reference` say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from regstore import layout
from regstore.digest import Digest
from regstore.inventory.inventory import Inventory
from regstore.layout import (
    BlobKey,
    LayerLinkKey,
    RevisionLinkKey,
    SignatureLinkKey,
    TagCurrentKey,
    TagIndexKey,
    UploadKey,
    encode,
)
from regstore.reference import DIGEST_TAG_RE, is_name, names_digest, subject_of_tag
from tests.test_layout import digests, names, tags, uploads, uuids

SHA512 = Digest.of(b"one", "sha512")
_kept = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(scope="module")
def inventory() -> Iterator[Inventory]:
    with Inventory() as made:
        yield made


def said(inventory: Inventory, expressions: str, *values: object) -> tuple[Any, ...]:
    """What SQL says of values that a table holds: so they are columns, as they are in use."""
    raw = [value.raw if isinstance(value, Digest) else value for value in values]
    columns = ", ".join(f"${number} as v{number}" for number in range(1, len(raw) + 1))
    inventory.execute(f"create or replace temp table given as select {columns}", raw)
    (row,) = inventory.all(f"select {expressions} from given")
    return row


@_kept
@given(digests)
def test_digests(inventory: Inventory, digest: Digest) -> None:
    assert said(
        inventory,
        "algorithm(v1), digest_text(v1), digest_path(v1), path_digest(digest_path(v1)), is_sha256(v1), link_size(v1)",
        digest,
    ) == (
        digest.algorithm,
        str(digest),
        f"{digest.algorithm}/{digest.encoded}",
        digest.raw,
        digest.algorithm == "sha256",
        layout.LINK_SIZE[digest.algorithm],
    )


def test_a_layer_link_names_its_digest_or_that_of_another_algorithm(inventory: Inventory) -> None:
    one, two = Digest.of(b"one"), Digest.of(b"two")
    cases = {(one, one): True, (SHA512, one): True, (one, SHA512): True, (one, two): False, (one, None): False}
    for (digest, target), sound in cases.items():
        assert said(inventory, "is_sound_layer_link(v1, v2::blob)", digest, target) == (sound,)


@_kept
@given(names, tags, digests, digests, uuids, uploads)
def test_keys(
    inventory: Inventory, name: str, tag: str, digest: Digest, other: Digest, uuid: str, part: str
) -> None:
    tails = (
        "layer_link_tail(v2)",
        "revision_link_tail(v2)",
        "signature_link_tail(v2, v3)",
        "tag_tail(v4)",
        "tag_index_tail(v4, v2)",
        "upload_tail(v5, v6)",
    )
    keys = ", ".join(f"repository_key(v1, {tail})" for tail in tails)
    assert said(inventory, f"blob_key(v2), {keys}", name, digest, other, tag, uuid, part) == tuple(
        encode(key)
        for key in (
            BlobKey(digest),
            LayerLinkKey(name, digest),
            RevisionLinkKey(name, digest),
            SignatureLinkKey(name, digest, other),
            TagCurrentKey(name, tag),
            TagIndexKey(name, tag, digest),
            UploadKey(name, uuid, part),
        )
    )


@st.composite
def digest_tags(draw: st.DrawFn) -> tuple[str, Digest]:
    """A tag that names a digest, or nearly does, and a digest that it may name."""
    digest = draw(digests)
    named = draw(st.just(digest) | digests)
    cut = draw(st.sampled_from([None, 128, 96, 65, 64, 63, 0]))
    algorithm = draw(st.just(named.algorithm) | st.sampled_from(["sha256", "sha512", "SHA256", "xsha256"]))
    between = draw(st.sampled_from(["-", "-", "-", ":", ""]))
    suffix = draw(st.sampled_from(["", "", ".sig", ".att.b", ".", "..", "-sig", "0", ".é"]))
    return f"{algorithm}{between}{named.encoded[:cut]}{suffix}", digest


@_kept
@given(digest_tags() | st.tuples(tags, digests))
@example((f"sha512-{SHA512.encoded[:64]}", SHA512))
@example((f"sha512-{SHA512.encoded[:64]}.sig", SHA512))
@example((f"sha512-{SHA512.encoded}", SHA512))
@example((f"sha256-{SHA512.encoded[:64]}", SHA512))
def test_tags_that_name_a_digest(inventory: Inventory, case: tuple[str, Digest]) -> None:
    tag, digest = case
    subject = subject_of_tag(tag)
    assert said(inventory, "is_digest_tag(v1), tag_subject(v1), names_digest(v1, v2)", tag, digest) == (
        re.fullmatch(DIGEST_TAG_RE, tag) is not None,
        subject.raw if subject is not None else None,
        names_digest(tag, digest),
    )


@_kept
@given(names | st.text("aZ0._-/é\n", max_size=12))
@example("a" * 255)
@example("a" * 256)
@example("a__b/c---d")
@example("a___b")
@example("a\n")
def test_names_of_repositories(inventory: Inventory, name: str) -> None:
    assert said(inventory, "is_name(v1)", name) == (is_name(name),)


def test_a_cut_tag_names_every_digest_that_begins_so() -> None:
    cut = f"sha512-{SHA512.encoded[:64]}"
    assert names_digest(cut, SHA512) and names_digest(f"{cut}.sig", SHA512)
    assert not names_digest(cut, Digest.of(b"two", "sha512"))
    assert not names_digest(f"sha256-{SHA512.encoded[:64]}", SHA512)
    assert not names_digest("latest", SHA512)


def test_a_child_and_the_kept_file_have_them(tmp_path: Any) -> None:
    import duckdb

    path = tmp_path / "kept.duckdb"
    with Inventory(path) as made:
        child = made.child()
        assert child.one("select digest_text($1::blob)", [SHA512.raw]) == str(SHA512)
        child.close()
    with duckdb.connect(str(path), read_only=True) as kept:
        assert kept.execute("select digest_text($1::blob)", [SHA512.raw]).fetchall() == [(str(SHA512),)]
