from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from regstore.digest import Digest
from regstore.layout import (
    COMPONENT_RE,
    LINK_SIZE,
    SEEDS,
    BlobKey,
    Key,
    LayerLinkKey,
    LitterKey,
    MarkerKey,
    RevisionLinkKey,
    SeedKey,
    SignatureLinkKey,
    TagCurrentKey,
    TagIndexKey,
    UnknownKey,
    UploadKey,
    decode,
    encode,
    layers_prefix,
    link_body,
    parse_link,
    repository_prefix,
    revisions_prefix,
    tags_prefix,
    uploads_prefix,
)
from tests.servers import images

D = Digest.of(b"one")
E = Digest.of(b"two", "sha512")
HEX = D.encoded
BASE = "docker/registry/v2"
REPOSITORIES = f"{BASE}/repositories"
UUID = "0b8d2f5c-1d2e-4f3a-8b4c-5d6e7f8091a2"

digests = st.builds(Digest.of, st.binary(max_size=3), st.sampled_from(["sha256", "sha384", "sha512"]))
_odd = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="/"), min_size=1, max_size=6
)
_parts = _odd.filter(lambda text: text not in (".", ".."))
_words = st.sampled_from(
    ["a", "b", "library", "link", "data", "current", "index", "tags", "blobs", "revisions", "x-1"]
)
names = st.lists((_words | _parts).filter(lambda text: text[0] != "_"), min_size=1, max_size=4).map("/".join)
tags = _words | _parts | st.sampled_from(["_x", "_layers", "latest"])
uuids = st.uuids().map(str)
uploads = st.sampled_from(["data", "startedat", "hashstates/sha256/0"]) | st.lists(
    _parts, min_size=1, max_size=3
).map("/".join)
keys: st.SearchStrategy[Key] = st.one_of(
    st.builds(BlobKey, digests),
    st.sampled_from(SEEDS),
    st.builds(LayerLinkKey, names, digests),
    st.builds(RevisionLinkKey, names, digests),
    st.builds(SignatureLinkKey, names, digests, digests),
    st.builds(TagCurrentKey, names, tags),
    st.builds(TagIndexKey, names, tags, digests),
    st.builds(UploadKey, names, uuids, uploads),
)
#: Text that is nearly a key: fragments of the layout in any order.
fragments = st.lists(
    st.sampled_from(
        [
            *(
                "docker",
                "registry",
                "v2",
                "blobs",
                "repositories",
                "sha256",
                "sha512",
                HEX[:2],
                HEX,
                E.encoded,
                "data",
            ),
            *("_layers", "_manifests", "_uploads", "revisions", "tags", "current", "index", "link", "signatures"),
            *("a", "b", "_a", "", ".", "..", " ", "\n", "ä", UUID, "_regstore", "seed", "startedat"),
        ]
    ),
    max_size=12,
).map("/".join)
nearly = fragments.flatmap(lambda text: st.sampled_from([text, f"{BASE}/{text}", f"{REPOSITORIES}/{text}"]))


_litter_names = [
    *(
        "._link",
        "._",
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        "~$x",
        ".~lock.x#",
        ".nfs0000000a00000001",
        "a_$folder$",
    ),
    *(
        "@eaDir/link@SynoEAStream",
        "#recycle/x",
        ".snapshot/h.0/link",
        "@Recycle/y",
        ".AppleDouble/z",
        "@eaDir/",
        "x/",
    ),
    *(
        "@eaDir",
        "Thumbs.db/current/link",
        ".nfs1",
        "lost+found/#1/link",
        "$RECYCLE.BIN/x\n",
        "._a\nb",
        "__MACOSX/link",
    ),
]
#: Such names in every place of a registry's tree.
litter = st.tuples(keys.map(encode), st.integers(1, 9), st.sampled_from(_litter_names)).map(
    lambda drawn: "/".join([*drawn[0].split("/")[: 3 + drawn[1]], drawn[2]])
)


@given(keys)
def test_what_is_encoded_decodes_to_itself(key: Key) -> None:
    assert decode(encode(key)) == key


@given(st.text() | nearly | litter)
@example("")
@example("/")
@example("\x00")
@example("\ud800")
def test_any_text_decodes_and_encodes_to_itself(text: str) -> None:
    assert encode(decode(text)) == text


@given(keys, st.data())
def test_a_changed_character_never_goes_unnoticed(key: Key, data: st.DataObject) -> None:
    text = encode(key)
    position = data.draw(st.integers(0, len(text) - 1))
    changed = text[:position] + data.draw(st.characters()) + text[position + 1 :]
    if changed != text:
        assert decode(changed) != key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (f"{BASE}/blobs/sha256/{HEX[:2]}/{HEX}/data", BlobKey(D)),
        (f"{BASE}/blobs/sha512/{E.encoded[:2]}/{E.encoded}/data", BlobKey(E)),
        (f"{BASE}/blobs/_regstore/seed", SeedKey("blobs")),
        (f"{REPOSITORIES}/_regstore/seed", SeedKey("repositories")),
        (f"{REPOSITORIES}/a/_layers/sha256/{HEX}/link", LayerLinkKey("a", D)),
        (f"{REPOSITORIES}/a/b/c/_layers/sha256/{HEX}/link", LayerLinkKey("a/b/c", D)),
        (f"{REPOSITORIES}/a/_layers/sha512/{E.encoded}/link", LayerLinkKey("a", E)),
        (f"{REPOSITORIES}/Bad Name/_layers/sha256/{HEX}/link", LayerLinkKey("Bad Name", D)),
        (f"{REPOSITORIES}/a/_manifests/revisions/sha256/{HEX}/link", RevisionLinkKey("a", D)),
        (
            f"{REPOSITORIES}/a/_manifests/revisions/sha256/{HEX}/signatures/sha512/{E.encoded}/link",
            SignatureLinkKey("a", D, E),
        ),
        (f"{REPOSITORIES}/a/_manifests/tags/1/current/link", TagCurrentKey("a", "1")),
        (f"{REPOSITORIES}/a/_manifests/tags/_layers/current/link", TagCurrentKey("a", "_layers")),
        (f"{REPOSITORIES}/a/_manifests/tags/1/index/sha256/{HEX}/link", TagIndexKey("a", "1", D)),
        (f"{REPOSITORIES}/a/_uploads/{UUID}/startedat", UploadKey("a", UUID, "startedat")),
        (f"{REPOSITORIES}/a/_uploads/{UUID}/hashstates/sha256/12", UploadKey("a", UUID, "hashstates/sha256/12")),
    ],
)
def test_every_kind(text: str, key: Key) -> None:
    assert decode(text) == key
    assert encode(key) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "scheduler-state.json",
        "regstore/locks/1",
        BASE,
        f"/{BASE}/blobs/sha256/{HEX[:2]}/{HEX}/data",
        f"docker/{BASE}/blobs/sha256/{HEX[:2]}/{HEX}/data",
        f"{BASE}/blobs/sha256/{HEX[:2]}/{HEX}/Data",
        f"{BASE}/blobs/sha256/{HEX[:2]}/{HEX}/startedat",
        f"{BASE}/blobs/sha256/ff/{HEX}/data",
        f"{BASE}/blobs/sha256/{HEX[:2]}/{HEX[:-1]}/data",
        f"{BASE}/blobs/sha256/{HEX[:2]}/{HEX.upper()}/data",
        f"{BASE}/blobs/sha512/{HEX[:2]}/{HEX}/data",
        f"{BASE}/blobs/md5/{HEX[:2]}/{HEX[:32]}/data",
        f"{BASE}/blobs//sha256/{HEX[:2]}/{HEX}/data",
        f"{REPOSITORIES}/a",
        f"{REPOSITORIES}/_layers/sha256/{HEX}/link",
        f"{REPOSITORIES}/_a/_layers/sha256/{HEX}/link",
        f"{REPOSITORIES}/a/_b/_layers/sha256/{HEX}/link",
        f"{REPOSITORIES}//_layers/sha256/{HEX}/link",
        f"{REPOSITORIES}/a//_layers/sha256/{HEX}/link",
        f"{REPOSITORIES}/a/_layers//sha256/{HEX}/link",
        f"{REPOSITORIES}/./_layers/sha256/{HEX}/link",
        f"{REPOSITORIES}/a/../_layers/sha256/{HEX}/link",
        f"{REPOSITORIES}/ä/_layers/sha256/{HEX}/link",
        f"{REPOSITORIES}/a\n/_layers/sha256/{HEX}/link",
        f"{REPOSITORIES}/a/_layers/sha256/{HEX}",
        f"{REPOSITORIES}/a/_layers/sha256/{HEX}/link\n",
        f"{REPOSITORIES}/a/_layers/sha256/{HEX[:2]}/{HEX}/link",
        f"{REPOSITORIES}/a/_manifests/sha256/{HEX}/link",
        f"{REPOSITORIES}/a/_manifests/revisions/sha256/{HEX}/link.1234.tmp",
        f"{REPOSITORIES}/a/_manifests/revisions/sha256/{HEX}/signatures/sha256/{HEX}",
        f"{REPOSITORIES}/a/_manifests/tags/stray",
        f"{REPOSITORIES}/a/_manifests/tags/1/link",
        f"{REPOSITORIES}/a/_manifests/tags//current/link",
        f"{REPOSITORIES}/a/_manifests/tags/1/2/current/link",
        f"{REPOSITORIES}/a/_manifests/tags/../current/link",
        f"{REPOSITORIES}/a/_uploads/{UUID}",
        f"{REPOSITORIES}/a/_uploads/{UUID}/..",
        f"{REPOSITORIES}/a/_uploads/{UUID}/x/.",
        f"{REPOSITORIES}/a/_uploads/not-a-uuid/data",
        f"{REPOSITORIES}/a/_uploads/{UUID.upper()}/data",
        f"{REPOSITORIES}/a/_other/x",
        f"{REPOSITORIES}/_regstore/other",
    ],
)
def test_whatever_is_not_of_the_layout_is_unknown(text: str) -> None:
    assert decode(text) == UnknownKey(text)


def test_the_codec_agrees_with_the_specification() -> None:
    document = images.multiarch("codec")
    stored = images.registry_keys("team/app", document, "v1")
    kinds = {type(decode(key)) for key in stored}
    assert kinds == {BlobKey, LayerLinkKey, RevisionLinkKey, TagIndexKey, TagCurrentKey}
    for key, body in stored.items():
        match decode(key):
            case BlobKey(digest):
                assert digest.matches(body)
            case LayerLinkKey("team/app", digest) | RevisionLinkKey("team/app", digest):
                assert parse_link(body) == digest
            case TagCurrentKey("team/app", "v1") | TagIndexKey("team/app", "v1", _):
                assert parse_link(body) == Digest.parse(document.digest)
            case other:
                raise AssertionError(other)


LINK = f"{REPOSITORIES}/a/_layers/sha256/{HEX}"
TAG = f"{REPOSITORIES}/a/_manifests/tags"


@pytest.mark.parametrize(
    "folder",
    [
        BASE,
        f"{BASE}/blobs",
        f"{BASE}/blobs/sha256/{HEX[:2]}/{HEX}/data",
        f"{REPOSITORIES}/a",
        f"{LINK}/link",
        f"{TAG}/1",
    ],
)
def test_a_directory_marker(folder: str) -> None:
    assert decode(f"{folder}/") == MarkerKey(folder)


@pytest.mark.parametrize(
    "text",
    [
        f"{LINK}/@eaDir/link@SynoEAStream",
        f"{LINK}/@eaDir/",
        f"{LINK}/._link",
        f"{LINK}/.nfs00000000000a1b2c00000001",
        f"{TAG}/@eaDir/current/link",
        f"{TAG}/Thumbs.db",
        f"{TAG}/1/current/.DS_Store",
        f"{REPOSITORIES}/#recycle/a/_layers/sha256/{HEX}/link",
        f"{REPOSITORIES}/.snapshot/hourly.0/a/_layers/sha256/{HEX}/link",
        f"{REPOSITORIES}/team/desktop.ini",
        f"{REPOSITORIES}/team_$folder$",
        f"{BASE}/blobs/sha256/{HEX[:2]}/{HEX}/~$data",
        f"{BASE}/@eaDir/blobs@SynoEAStream",
    ],
)
def test_litter(text: str) -> None:
    assert decode(text) == LitterKey(text)


def test_what_a_registry_could_write_is_never_litter() -> None:
    """By distribution's grammar: a tag may be `Thumbs.db`, a repository `desktop.ini`; fsck's folder is no junk."""
    for tag in ("Thumbs.db", "desktop.ini", "__MACOSX", "_x", "a_b", "v1._link", "x.DS_Store"):
        assert decode(f"{TAG}/{tag}/current/link") == TagCurrentKey("a", tag)
    for name in ("desktop.ini", "thumbs.db", "a/ehthumbs.db", "snapshot", "recycle"):
        assert decode(f"{REPOSITORIES}/{name}/_layers/sha256/{HEX}/link") == LayerLinkKey(name, D)
    assert decode(f"{REPOSITORIES}/a/_uploads/{UUID}/._data") == UploadKey("a", UUID, "._data")
    assert isinstance(decode(f"{REPOSITORIES}/lost+found/#12/_layers/sha256/{HEX}/link"), LayerLinkKey)
    assert decode("scheduler/._x") == UnknownKey("scheduler/._x")


@given(
    st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}", fullmatch=True), st.lists(_words, min_size=1, max_size=3)
)
def test_no_tag_of_the_grammar_is_litter(tag: str, name: list[str]) -> None:
    key = TagCurrentKey("/".join(name), tag)
    assert decode(encode(key)) == key


def test_what_is_not_ours_to_delete() -> None:
    for name in ("#recycle/x", ".snapshot/h/link", "$RECYCLE.BIN/x", ".nfs0000000a00000001"):
        key = decode(f"{LINK}/{name}")
        assert isinstance(key, LitterKey) and key.kept
    for name in ("@eaDir/x", "._link", ".nfs1"):
        key = decode(f"{LINK}/{name}")
        assert not isinstance(key, LitterKey) or not key.kept


@given(names, tags, digests, uuids)
def test_prefixes_cover_their_keys(name: str, tag: str, digest: Digest, uuid: str) -> None:
    assert encode(TagCurrentKey(name, tag)).startswith(tags_prefix(name))
    assert encode(TagIndexKey(name, tag, digest)).startswith(tags_prefix(name))
    assert encode(RevisionLinkKey(name, digest)).startswith(revisions_prefix(name))
    assert encode(LayerLinkKey(name, digest)).startswith(layers_prefix(name))
    assert encode(UploadKey(name, uuid, "data")).startswith(uploads_prefix(name))
    for prefix in (tags_prefix(name), revisions_prefix(name), layers_prefix(name), uploads_prefix(name)):
        assert prefix.startswith(repository_prefix(name))


@given(digests)
def test_a_link_and_its_body(digest: Digest) -> None:
    body = link_body(digest)
    assert parse_link(body) == digest
    assert len(body) == LINK_SIZE[digest.algorithm]
    assert parse_link(body + b"\n") is None
    assert parse_link(body[:-1]) is None


@given(st.binary(max_size=100))
def test_any_body_is_a_digest_or_none(body: bytes) -> None:
    digest = parse_link(body)
    assert digest is None or link_body(digest) == body


def test_link_sizes() -> None:
    assert LINK_SIZE == {"sha256": 71, "sha384": 103, "sha512": 135}


def test_the_component_pattern_is_the_one_of_the_sql_decoder() -> None:
    import re

    component = re.compile(COMPONENT_RE)
    for code in range(0x20, 0x7F):
        assert bool(component.fullmatch(chr(code))) == (chr(code) not in "/_")
        assert bool(component.fullmatch("a" + chr(code))) == (chr(code) != "/")
