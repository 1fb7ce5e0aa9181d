from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regstore.digest import Digest
from regstore.errors import InvalidDigest, InvalidReference
from regstore.reference import Reference, is_name, is_tag, parse_name, parse_tag, subject_of_tag

DIGEST = Digest.of(b"manifest")

names = st.from_regex(
    r"[a-z0-9]+(?:(?:\.|_|__|-{1,3})[a-z0-9]+){0,2}(?:/[a-z0-9]{1,5}){0,3}", fullmatch=True
).filter(lambda name: len(name) <= 255 and name.isascii())
tags = st.text("abcXYZ019_.-", min_size=1, max_size=128).filter(lambda tag: tag[0] not in ".-")


@pytest.mark.parametrize(
    "name",
    ["a", "0", "library/ubuntu", "a/b/c/d", "a.b", "a_b", "a__b", "a-b", "a---b", "a" * 255, "x/" * 127 + "x"],
)
def test_names(name: str) -> None:
    assert is_name(name)
    assert parse_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        "A",
        "a/B",
        "_a",
        "a_",
        "a___b",
        "a..b",
        "a._b",
        "-a",
        "a-",
        "a b",
        "a\n",
        "ä",
        "a:b",
        "a@b",
        "a" * 256,
        "x/" * 127 + "xx",
        ".",
        "..",
        "a/../b",
    ],
)
def test_no_names(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(InvalidReference, match="is not a repository name"):
        parse_name(name)


@pytest.mark.parametrize("tag", ["1", "_", "latest", "v1.2.3", "1-alpine", "A", "x" * 128, DIGEST.encoded])
def test_tags(tag: str) -> None:
    assert is_tag(tag)
    assert parse_tag(tag) == tag


@pytest.mark.parametrize("tag", ["", ".", ".a", "-a", "x" * 129, "a/b", "a b", "a\n", "ä", "a:b", "a@b", "a+b"])
def test_no_tags(tag: str) -> None:
    assert not is_tag(tag)
    with pytest.raises(InvalidReference, match="is not a tag"):
        parse_tag(tag)


@given(names, st.none() | tags, st.none() | st.builds(Digest.of, st.binary(max_size=4)))
def test_a_reference_and_its_text(name: str, tag: str | None, digest: Digest | None) -> None:
    reference = Reference(name, tag, digest)
    assert Reference.parse(str(reference)) == reference


@given(st.text())
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        assert str(Reference.parse(text)) == text
    except (InvalidReference, InvalidDigest) as error:
        assert str(error)


@pytest.mark.parametrize("text", ["a:", "a@", ":1", "a:b:c", "host:5000/a:1", "a@sha256:12", f"@{DIGEST}", "a b"])
def test_no_references(text: str) -> None:
    with pytest.raises((InvalidReference, InvalidDigest)):
        Reference.parse(text)


def test_tags_that_name_a_subject() -> None:
    long = Digest.of(b"manifest", "sha512")
    assert subject_of_tag(f"sha256-{DIGEST.encoded}") == DIGEST
    for suffix in ("sig", "att", "sbom", "a.b"):
        assert subject_of_tag(f"sha256-{DIGEST.encoded}.{suffix}") == DIGEST
    assert subject_of_tag(f"sha512-{long.encoded}") == long
    assert subject_of_tag(f"sha512-{long.encoded[:64]}") is None  # cut: names no digest


@pytest.mark.parametrize(
    "tag",
    [
        "latest",
        "sha256-",
        f"sha256-{DIGEST.encoded[:-1]}",
        f"sha256-{DIGEST.encoded}0",
        f"sha256-{DIGEST.encoded}.",
        f"sha256-{DIGEST.encoded}-sig",
        f"sha256-{DIGEST.encoded.upper()}",
        f"sha256:{DIGEST.encoded}",
        f"xsha256-{DIGEST.encoded}",
    ],
)
def test_ordinary_tags_name_none(tag: str) -> None:
    assert subject_of_tag(tag) is None
