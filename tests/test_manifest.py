from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regstore.digest import Digest
from regstore.errors import InvalidManifest
from regstore.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    DOCKER_SCHEMA1,
    DOCKER_SCHEMA1_SIGNED,
    MANIFEST_MEDIA_TYPES,
    OCI_ARTIFACT,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    ORAS_ARTIFACT,
    STRONG,
    EdgeKind,
    Manifest,
    Platform,
    parse_manifest,
)
from tests.servers import images

CONFIG, LAYER, FOREIGN, MANIFEST, ENTRY, BLOB, SUBJECT = EdgeKind


def parse(document: Any) -> Manifest:
    return parse_manifest(json.dumps(document).encode())


def edges(data: bytes) -> list[tuple[EdgeKind, str]]:
    return [(edge.kind, str(edge.target.digest)) for edge in parse_manifest(data).edges]


def descriptor(text: str, media_type: str = OCI_LAYER, size: int = 5, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(text.encode())), "size": size, **more}


# -- every media type


@pytest.mark.parametrize("docker", [False, True])
def test_an_image(docker: bool) -> None:
    document = images.image("m", 3, docker=docker)
    manifest = parse_manifest(document.data)
    assert manifest.media_type == (DOCKER_MANIFEST if docker else OCI_MANIFEST)
    config, *layers = document.blobs
    assert edges(document.data) == [(CONFIG, config.digest), *((LAYER, layer.digest) for layer in layers)]
    assert manifest.config is not None
    assert manifest.config.size == len(config.data)
    assert [layer.media_type for layer in manifest.layers] == [layer.media_type for layer in layers]
    assert not manifest.is_index
    assert manifest.subject is None


@pytest.mark.parametrize("docker", [False, True])
def test_an_index(docker: bool) -> None:
    document = images.multiarch("m", docker=docker)
    manifest = parse_manifest(document.data)
    assert manifest.media_type == (DOCKER_LIST if docker else OCI_INDEX)
    assert edges(document.data) == [(MANIFEST, child.digest) for child in document.children]
    assert [str(entry.platform) for entry in manifest.manifests] == ["linux/amd64", "linux/arm64"]
    assert manifest.is_index


def test_a_buildkit_cache_lists_layers() -> None:
    document = images.buildkit_cache("m", 2)
    assert edges(document.data) == [(ENTRY, blob.digest) for blob in document.blobs]
    assert all(edge.kind in STRONG for edge in parse_manifest(document.data).edges)


def test_an_entry_without_a_media_type_may_be_a_manifest() -> None:
    manifest = parse({"mediaType": OCI_INDEX, "manifests": [{"digest": descriptor("a")["digest"]}]})
    assert [edge.kind for edge in manifest.edges] == [MANIFEST]
    assert manifest.edges[0].target.size == -1


@pytest.mark.parametrize("media_type", sorted(MANIFEST_MEDIA_TYPES))
def test_an_entry_of_a_manifests_media_type_is_a_manifest(media_type: str) -> None:
    manifest = parse({"mediaType": OCI_INDEX, "manifests": [descriptor("a", media_type)]})
    assert [edge.kind for edge in manifest.edges] == [MANIFEST]


def test_schema1_signed_or_not() -> None:
    document = images.schema1("a/b", "1", "m", 3)
    layers = [(LAYER, layer.digest) for layer in reversed(document.blobs)]
    assert edges(document.data) == layers
    assert parse_manifest(document.data).media_type == DOCKER_SCHEMA1
    assert parse_manifest(document.data).is_schema1
    signed = parse(document.json | {"signatures": [{"header": {}, "signature": "x", "protected": "y"}]})
    assert signed.media_type == DOCKER_SCHEMA1_SIGNED
    assert [(edge.kind, str(edge.target.digest)) for edge in signed.edges] == layers


def test_schema1_may_name_a_layer_many_times() -> None:
    layer = images.layer("twice")
    assert edges(images.schema1("a", "1", "m", [layer, layer]).data) == [(LAYER, layer.digest)] * 2


@pytest.mark.parametrize("media_type", [OCI_ARTIFACT, ORAS_ARTIFACT])
def test_an_artifact_manifest(media_type: str) -> None:
    subject = images.image("m")
    document = images.artifact("m", subject)
    data = document.data.replace(OCI_ARTIFACT.encode(), media_type.encode())
    assert edges(data) == [(BLOB, document.blobs[0].digest), (SUBJECT, subject.digest)]
    assert parse_manifest(data).artifact_type == "application/vnd.example"


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST, OCI_ARTIFACT])
def test_an_index_or_an_artifact_may_be_empty(media_type: str) -> None:
    name = "blobs" if media_type == OCI_ARTIFACT else "manifests"
    assert parse({"schemaVersion": 2, "mediaType": media_type}).edges == ()
    assert parse({"schemaVersion": 2, "mediaType": media_type, name: []}).edges == ()


def test_a_referrer_names_its_subject_apart_from_its_children() -> None:
    subject = images.image("m")
    document = images.referrer(subject)
    manifest = parse_manifest(document.data)
    assert manifest.subject is not None
    assert str(manifest.subject.digest) == subject.digest
    assert manifest.artifact_type == "application/spdx+json"
    strong = [str(edge.target.digest) for edge in manifest.edges if edge.kind in STRONG]
    assert strong == [blob.digest for blob in document.blobs]
    assert edges(images.index([subject], subject=subject).data) == [
        (MANIFEST, subject.digest),
        (SUBJECT, subject.digest),
    ]


def test_foreign_layers_are_told_apart() -> None:
    document = images.with_foreign_layer("m")
    assert [kind for kind, _ in edges(document.data)] == [CONFIG, FOREIGN, LAYER]
    nondistributable = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    for entry in (descriptor("a", nondistributable), descriptor("a", urls=["https://x"])):
        manifest = parse({"config": descriptor("c"), "layers": [entry, descriptor("b", urls=[])]})
        assert [edge.kind for edge in manifest.edges] == [CONFIG, FOREIGN, LAYER]


@pytest.mark.parametrize(
    ("document", "media_type"),
    [
        ({"manifests": []}, OCI_INDEX),
        ({"config": descriptor("c"), "layers": []}, OCI_MANIFEST),
        ({"layers": [descriptor("l")]}, OCI_MANIFEST),
        ({"fsLayers": [{"blobSum": descriptor("l")["digest"]}]}, DOCKER_SCHEMA1),
        ({"blobs": [descriptor("l")]}, OCI_ARTIFACT),
    ],
)
def test_without_a_media_type_the_shape_decides(document: dict[str, Any], media_type: str) -> None:
    assert parse({"schemaVersion": 2} | document).media_type == media_type


def test_an_unknown_media_type_is_kept_and_the_shape_decides() -> None:
    manifest = parse({"mediaType": "application/vnd.new", "config": descriptor("c"), "layers": [descriptor("l")]})
    assert manifest.media_type == "application/vnd.new"
    assert [edge.kind for edge in manifest.edges] == [CONFIG, LAYER]


def test_platforms_and_sha512() -> None:
    digest = Digest.of(b"x", "sha512")
    platform = {"os": "linux", "architecture": "arm", "variant": "v7", "os.features": ["x"]}
    entry = {"mediaType": OCI_MANIFEST, "digest": str(digest), "size": 2**40, "platform": platform}
    target = parse({"manifests": [entry]}).edges[0].target
    assert (target.digest, target.size, target.platform) == (digest, 2**40, Platform("linux", "arm", "v7"))
    assert str(Platform("", "")) == ""


# -- what is refused


@pytest.mark.parametrize(
    "document",
    [
        {"manifests": [], "layers": []},
        {"manifests": [], "config": descriptor("c")},
        {"manifests": [], "fsLayers": []},
        {"layers": [], "blobs": []},
        {"fsLayers": [], "config": descriptor("c")},
        {"mediaType": OCI_INDEX, "layers": []},
        {"mediaType": OCI_MANIFEST, "manifests": []},
        {"mediaType": DOCKER_MANIFEST, "manifests": []},
        {"mediaType": DOCKER_LIST, "config": descriptor("c")},
        {"mediaType": OCI_MANIFEST, "fsLayers": []},
        {"mediaType": DOCKER_SCHEMA1, "layers": []},
        {"mediaType": OCI_ARTIFACT, "layers": []},
        {"Layers": [], "config": descriptor("c")},
        {"layerſ": [], "config": descriptor("c")},  # Go folds the long s
        {"MANIFESTS": [], "config": descriptor("c")},
        {"manifests": [], "MediaType": OCI_MANIFEST},
        {"config": descriptor("c"), "Subject": descriptor("s")},
        {"config": descriptor("c") | {"Digest": "sha256:0"}},
        {"layers": [descriptor("l") | {"URLs": ["x"]}]},
        {"fsLayers": [{"blobSum": descriptor("l")["digest"], "blobsum": descriptor("m")["digest"]}]},
    ],
    ids=str,
)
def test_what_two_readers_could_read_differently_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidManifest, match="ambiguous"):
        parse(document)


TWICE = [
    ('{"layers": [%s], "layers": []}', "layers"),
    ('{"layers": [], "layers": [%s]}', "layers"),
    ('{"mediaType": "a/b", "layers": [%s], "mediaType": "a/b"}', "mediaType"),
    ('{"manifests": [%s], "subject": null, "subject": {}}', "subject"),
    ('{"layers": [{"digest": "sha256:' + "0" * 64 + '", %s]}', "digest"),
    ('{"layers": [%s], "l\\u0061yers": []}', "layers"),
    ('{"annotations": {"a": "\\n"}, "layers": [%s], "layers": []}', "layers"),
]


@pytest.mark.parametrize(("text", "name"), TWICE, ids=[text for text, _ in TWICE])
def test_a_field_that_stands_twice_is_ambiguous(text: str, name: str) -> None:
    """Some readers keep the first, others the last: a layer could be alive for one and dead for another."""
    inner = json.dumps(descriptor("l"))
    data = text % (inner[1:] if name == "digest" else inner)
    with pytest.raises(InvalidManifest, match=f"ambiguous: the field '{name}' stands twice"):
        parse_manifest(data.encode())


@pytest.mark.parametrize(
    "more", ['"a": "b"', '"a": "\\n"', '"a": "b", "a": "c"', '"a": "\\"", "a": ""', '"ä": "\\u00e4"']
)
def test_what_names_nothing_may_stand_twice(more: str) -> None:
    data = '{"layers": [%s], "annotations": {%s}}' % (json.dumps(descriptor("l")), more)  # noqa: UP031
    assert [str(layer.digest) for layer in parse_manifest(data.encode()).layers] == [descriptor("l")["digest"]]


FIELD = st.tuples(
    st.sampled_from(["layers", "size", "a", "\\u0073ize"]), st.sampled_from(["1", '"b"', '"\\""', "[]"])
)


@given(st.lists(FIELD, max_size=5), st.lists(FIELD, max_size=3))
def test_fields_that_stand_twice_are_always_found(
    outer: list[tuple[str, str]], inner: list[tuple[str, str]]
) -> None:
    def text(fields: list[tuple[str, str]]) -> str:
        return ", ".join(f'"{name}": {value}' for name, value in fields)

    def twice(fields: list[tuple[str, str]]) -> bool:
        names = [json.loads(f'"{name}"') for name, _ in fields if name != "a"]
        return len(names) > len(set(names))

    data = f'{{"inner": {{{text(inner)}}}, {text([("mediaType", chr(34) * 2), *outer])}}}'
    try:
        parse_manifest(data.encode())
        said = ""
    except InvalidManifest as error:
        said = str(error)
    assert ("stands twice" in said) == (twice(outer) or twice(inner))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\x1f\x8b\x08", "not JSON"),
        (b'{"config": NaN}', "not JSON"),
        (b"[]", "a JSON list, not an object"),
        (b"null", "not an object"),
        (b'"text"', "not an object"),
        (b"{}", "no manifests, config, layers"),
        (b'{"layers": null}', "no manifests, config, layers"),
        (b'{"config": null, "layers": null}', "its config is null"),
        (b'{"mediaType": "%s"}' % OCI_MANIFEST.encode(), "no manifests, config, layers"),
        (b'{"mediaType": 5, "layers": []}', "mediaType is not text"),
        (b'{"layers": {}}', "layers is not a list"),
        (b'{"manifests": "x"}', "manifests is not a list"),
        (b'{"config": []}', "config is not an object"),
        (b'{"layers": [null]}', r"layers\[0\] is not an object"),
        (b'{"layers": [{}]}', r"layers\[0\].digest is missing"),
        (b'{"layers": [{"digest": 5}]}', r"layers\[0\].digest is missing or no text"),
        (b'{"layers": [{"digest": "sha256:x"}]}', r"layers\[0\].digest: sha256 digest must be"),
        (b'{"fsLayers": [5]}', r"fsLayers\[0\] is not an object"),
        (b'{"fsLayers": [{}]}', r"fsLayers\[0\].blobSum is missing"),
        (b'{"manifests": [], "subject": 5}', "subject is not an object"),
        (b'{"manifests": [], "subject": {}}', "subject.digest is missing"),
    ],
)
def test_what_is_no_manifest_is_refused_with_its_place(data: bytes, message: str) -> None:
    with pytest.raises(InvalidManifest, match=message):
        parse_manifest(data)


@pytest.mark.parametrize("size", ["5", 1.5, True, None, [], -1, 2**63, 2**64, 10**30, 1e300])
def test_sizes(size: Any) -> None:
    """A size is a whole number that fits, or is unknown, or the document is refused: never a wrong number."""
    try:
        target = parse({"layers": [descriptor("l", size=size)]}).layers[0]
    except InvalidManifest as error:
        assert "size is not a whole number" in str(error)
    else:
        assert target.size == -1
        assert isinstance(size, int)


@pytest.mark.parametrize("depth", [200, 1_000, 10_000, 1_000_000])
@pytest.mark.parametrize("pair", ["[]", '{"a":}'])
def test_deep_nesting_is_read_or_refused(depth: int, pair: str) -> None:
    deep = (pair[:-1] * depth) + "1" + (pair[-1] * depth)
    data = b'{"layers": [], "annotations": %s}' % deep.encode()
    try:
        assert parse_manifest(data).layers == ()
    except InvalidManifest:
        assert depth > 200


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_good = st.builds(lambda name: str(Digest.of(name)), st.binary(max_size=2))
_digest = _good | st.sampled_from(["sha256:", "md5:00", ""]) | _json
_types = st.sampled_from([*sorted(MANIFEST_MEDIA_TYPES), OCI_LAYER, "", "foreign"])
_descriptor = st.fixed_dictionaries(
    {"digest": _good},
    optional={
        "size": st.integers(-5, 2**64 - 1),
        "mediaType": _types,
        "urls": st.lists(st.text()),
        "platform": _json,
    },
)
_any_descriptor = _descriptor | _json | st.fixed_dictionaries({"digest": _digest}, optional={"Size": _json})
_documents = st.fixed_dictionaries(
    {},
    optional={
        "schemaVersion": _json | st.sampled_from([1, 2]),
        "mediaType": _types | _json,
        "config": _any_descriptor,
        "layers": st.lists(_any_descriptor, max_size=3) | _json,
        "manifests": st.lists(_any_descriptor, max_size=3) | _json,
        "blobs": st.lists(_any_descriptor, max_size=3) | _json,
        "fsLayers": st.lists(st.fixed_dictionaries({"blobSum": _digest}) | _json, max_size=3) | _json,
        "subject": _any_descriptor,
        "artifactType": _json,
        "Layers": _json,
    },
)


@given(_json | _documents)
def test_any_json_is_a_manifest_or_refused(document: Any) -> None:
    data = json.dumps(document).encode("utf-8", "surrogatepass")
    try:
        manifest = parse_manifest(data)
    except InvalidManifest as error:
        assert "\n" not in str(error)
        return
    named = _digests_in(document)
    assert {str(edge.target.digest) for edge in manifest.edges} <= named
    assert manifest.media_type
    assert all(-1 <= edge.target.size < 2**63 for edge in manifest.edges)


@given(st.binary() | st.binary().map(lambda data: b'{"layers":[' + data + b"]}"))
def test_any_bytes_are_a_manifest_or_refused(data: bytes) -> None:
    try:
        parse_manifest(data)
    except InvalidManifest:
        pass


@given(st.lists(_descriptor, max_size=4), st.none() | _descriptor, st.booleans())
def test_no_reference_of_a_good_image_is_lost(layers: list[Any], subject: Any, typed: bool) -> None:
    document: dict[str, Any] = {"config": descriptor("config"), "layers": layers, "subject": subject}
    if typed:
        document["mediaType"] = OCI_MANIFEST
    manifest = parse(document)
    strong = [str(edge.target.digest) for edge in manifest.edges if edge.kind in STRONG]
    assert strong == [document["config"]["digest"], *(layer["digest"] for layer in layers)]
    assert (manifest.subject is None) == (subject is None)


def _digests_in(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        return set().union(*map(_digests_in, value.values()))
    if isinstance(value, list):
        return set().union(*map(_digests_in, value))
    return set()


def test_edge_numbers_are_stored_and_never_change() -> None:
    assert {kind.name: kind.value for kind in EdgeKind} == {
        "CONFIG": 1,
        "LAYER": 2,
        "FOREIGN_LAYER": 3,
        "MANIFEST": 4,
        "ENTRY": 5,
        "BLOB": 6,
        "SUBJECT": 7,
    }
