from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regstore.digest import HEX_LENGTH, Digest, Verifier
from regstore.errors import IntegrityError, InvalidDigest

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
algorithms = st.sampled_from(sorted(HEX_LENGTH))
digests = st.builds(Digest.of, st.binary(max_size=8), algorithms)


def test_known_values() -> None:
    assert str(Digest.of(b"")) == EMPTY
    assert Digest.parse(EMPTY).short == "sha256:e3b0c44298fc"
    assert str(Digest.of(b"", "sha512")).startswith("sha512:cf83e1357eefb8bd")


@given(digests)
def test_text_and_raw_bytes_give_the_digest_back(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest
    assert Digest.from_raw(digest.raw) == digest
    assert hash(Digest.parse(str(digest))) == hash(digest)


@given(st.binary(), algorithms)
def test_of_is_what_hashlib_says(data: bytes, algorithm: str) -> None:
    digest = Digest.of(data, algorithm)
    assert digest.encoded == hashlib.new(algorithm, data).hexdigest()
    assert digest.matches(data)
    assert digest.matches(memoryview(data))
    assert not digest.matches(data + b"x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        ":" + "0" * 64,
        EMPTY[:-1],
        EMPTY + "0",
        EMPTY + "\n",
        " " + EMPTY,
        EMPTY.upper(),
        EMPTY.replace("e", "E"),
        EMPTY.replace("e", "g"),
        EMPTY.replace("sha256", "SHA256"),
        EMPTY.replace("sha256", "sha512"),
        EMPTY.replace("sha256", "md5"),
        EMPTY.replace(":", "/"),
        "sha256:" + "٣" * 64,  # digits, but not ASCII
        "sha256:../../../../../../../../../../../../../../../../../../../../etc/",
    ],
)
def test_whatever_is_not_exactly_a_digest_is_refused(text: str) -> None:
    with pytest.raises(InvalidDigest):
        Digest.parse(text)


@given(st.text())
def test_parsing_text_gives_the_same_text_or_invalid_digest(text: str) -> None:
    try:
        assert str(Digest.parse(text)) == text
    except InvalidDigest as error:
        assert len(str(error)) < 400


@given(st.binary(max_size=100))
def test_raw_bytes_of_no_digest_are_refused(raw: bytes) -> None:
    if len(raw) in (32, 48, 64):
        assert Digest.from_raw(raw).raw == raw
    else:
        with pytest.raises(InvalidDigest):
            Digest.from_raw(raw)


def test_unknown_algorithms_are_refused() -> None:
    with pytest.raises(InvalidDigest, match="'md5' is not one of sha256"):
        Digest.of(b"", "md5")
    with pytest.raises(InvalidDigest):
        Digest("sha256", "zz")


@given(st.lists(st.binary(max_size=50)), algorithms)
def test_a_verifier_sees_the_whole_stream(chunks: list[bytes], algorithm: str) -> None:
    whole = b"".join(chunks)
    verifier = Verifier(Digest.of(whole, algorithm))
    for chunk in chunks:
        verifier.update(chunk)
    assert verifier.matched
    assert verifier.size == len(whole)
    assert verifier.digest == Digest.of(whole, algorithm)
    verifier.verify()


def test_a_verifier_tells_what_it_saw_instead() -> None:
    verifier = Verifier(Digest.of(b"expected"))
    verifier.update(b"other")
    assert not verifier.matched
    with pytest.raises(IntegrityError, match=rf"^layer: expected {Digest.of(b'expected')}, but its 5 bytes have"):
        verifier.verify("layer")


def test_a_verifier_without_expectation_only_hashes() -> None:
    verifier = Verifier()
    verifier.update(b"some")
    verifier.verify()
    assert verifier.digest == Digest.of(b"some")
