"""Layouts from somebody who means ill, or from a broken disk: a sentence, and nothing of it in the store."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regstore.errors import InputError, StorageError
from regstore.exchange import image_layout, packing
from tests.exchange.stores import APP, OTHER, WORKER, exported, fill, imported, keys, tags
from tests.servers import images
from tests.servers.images import Document


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return images.write_oci_layout(tmp_path / "layout", {"1": WORKER, "2": OTHER})


def path_of(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def edit_index(layout: Path, change: Callable[[dict[str, Any]], object]) -> None:
    index = json.loads((layout / "index.json").read_text())
    change(index)
    (layout / "index.json").write_text(json.dumps(index))


def refused(layout: Path, store: Path, words: str) -> None:
    with pytest.raises((InputError, StorageError), match=words) as caught:
        imported(layout, store, "a")
    assert "\n" not in str(caught.value)
    assert keys(store) == {}


# -- archives


def member(name: str, data: bytes = b"", **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def archive(path: Path, layout: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for each in sorted(layout.rglob("*")):
            tar.add(each, f"./{each.relative_to(layout)}", recursive=False)
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


def test_an_archive_made_by_tar_is_read(layout: Path, tmp_path: Path) -> None:
    imported(archive(tmp_path / "f.tar", layout), tmp_path / "store", "a")
    assert tags(tmp_path / "store") == {"a:1": WORKER.digest, "a:2": OTHER.digest}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (member("../etc/passwd", b"x"), "'../etc/passwd', which leads out of it"),
        (member("blobs/../../x", b"x"), "leads out of it"),
        (member("/etc/passwd", b"x"), "leads out of it"),
        (member("blobs/sha256/x", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "a link"),
        (member("blobs/sha256/x", type=tarfile.LNKTYPE, linkname="index.json"), "a link"),
        (member("x", type=tarfile.CHRTYPE), "no plain file"),
        (member("x", type=tarfile.FIFOTYPE), "no plain file"),
        (member("./index.json", b"{}"), "'index.json' twice"),
        (member("\x1b[2Jx", type=tarfile.SYMTYPE), r"'\\\\x1b\[2Jx'"),
    ],
    ids=["up", "within", "absolute", "symlink", "hard link", "device", "fifo", "twice", "escape"],
)
def test_members_that_no_layout_has(
    layout: Path, tmp_path: Path, bad: tuple[tarfile.TarInfo, bytes], words: str
) -> None:
    refused(archive(tmp_path / "f.tar", layout, bad), tmp_path / "store", words)


def test_archives_that_are_none(layout: Path, tmp_path: Path) -> None:
    whole = archive(tmp_path / "whole.tar", layout).read_bytes()
    cut = tmp_path / "f.tar"
    for data, words in (
        (gzip.compress(whole), r"is a compressed file \(gzip\)"),
        (b"hello" * 1000, "is no tar archive"),
        (b"", "is no tar archive|has no oci-layout"),
        (whole[:1800], "cut short|damaged|has no"),
        (whole[: len(whole) // 2], "cut short|damaged|has no"),
    ):
        cut.write_bytes(data)
        refused(cut, tmp_path / "store", words)
    refused(tmp_path / "nowhere.tar", tmp_path / "store", "can't be read")


def test_a_header_that_says_it_is_huge_is_not_believed(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    path = tmp_path / "f.tar"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    refused(path, tmp_path / "store", "a header of 1,099,511,627,776 bytes")


# -- folders


def test_symbolic_links_lead_nowhere(layout: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(WORKER.blobs[1].data)
    blob = path_of(layout, WORKER.blobs[1].digest)
    blob.unlink()
    blob.symlink_to(secret)
    result = imported(layout, tmp_path / "store", "a")
    assert len(result.left_out) == 1 and WORKER.blobs[1].digest in result.left_out[0]
    assert tags(tmp_path / "store") == {"a:2": OTHER.digest}
    (layout / "index.json").rename(tmp_path / "index.json")
    (layout / "index.json").symlink_to(tmp_path / "index.json")
    refused(layout, tmp_path / "other", "index.json")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("oci-layout", None, "has no oci-layout"),
        ("oci-layout", b"{}", "a file oci-layout that is none"),
        ("oci-layout", b'{"imageLayoutVersion":"2.0.0"}', "version '2.0.0'"),
        ("oci-layout", b"x" * 5000, "5,000 bytes"),
        ("index.json", None, "has no index.json"),
        ("index.json", b"[]", "no image index"),
        ("index.json", b'{"manifests":[{"digest":"md5:1"}]}', "no image index: .*digest"),
        ("index.json", b'{"manifests":[],"manifests":[]}', "stands twice"),
        ("index.json", b'{"manifests":[],"Manifests":[]}', "differs from a known one only in case"),
        ("index.json", b'{"manifests":[],"config":{}}', "ambiguous"),
        ("index.json", b"[" * 100_000, "no image index"),
        ("index.json", APP.children[0].data, "not an image index"),
    ],
)
def test_files_of_a_layout_that_are_none(
    layout: Path, tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    (layout / name).unlink()
    if content is not None:
        (layout / name).write_bytes(content)
    refused(layout, tmp_path / "store", words)


def test_an_index_without_end(layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_layout, "MOST", 1)
    refused(layout, tmp_path / "store", "names 2 manifests, and 1 is the most")
    monkeypatch.undo()
    monkeypatch.setattr(packing, "MAX_SIZE", 10)
    refused(layout, tmp_path / "store", "index.json in .* bytes: more than it can have")
    monkeypatch.undo()
    monkeypatch.setattr(packing, "MOST", 1)
    refused(layout, tmp_path / "store", "more than 1 manifests")


# -- digests


def test_what_is_not_as_its_digest_says_is_left_out(layout: Path, tmp_path: Path) -> None:
    layer = path_of(layout, WORKER.blobs[2].digest)
    layer.write_bytes(bytes(len(layer.read_bytes())))
    result = imported(layout, tmp_path / "store", "a")
    assert len(result.left_out) == 2 and WORKER.blobs[2].digest in result.left_out[0]
    assert result.left_out[1] == "a: tag 1"
    assert tags(tmp_path / "store") == {"a:2": OTHER.digest}
    assert not any(WORKER.blobs[2].digest.partition(":")[2] in key for key in keys(tmp_path / "store"))


@pytest.mark.parametrize("size", [0, 1])
def test_a_manifest_that_names_itself_or_is_another(layout: Path, tmp_path: Path, size: int) -> None:
    """Its name is no digest of it, so nothing goes in circles."""
    itself = images.index([OTHER])
    looped = itself.data.replace(OTHER.digest.encode(), itself.digest.encode())
    path_of(layout, itself.digest).write_bytes(looped[size:])
    entry = {"mediaType": images.OCI_INDEX, "digest": itself.digest, "size": len(looped) - size}
    entry["annotations"] = {"org.opencontainers.image.ref.name": "loop"}
    edit_index(layout, lambda index: index["manifests"].append(entry))
    result = imported(layout, tmp_path / "store", "a")
    assert len(result.left_out) == 1 and f"{itself.digest} is damaged" in result.left_out[0]
    assert set(tags(tmp_path / "store")) == {"a:1", "a:2"}


def test_a_digest_alone_gives_no_right_to_read(tmp_path: Path) -> None:
    """The store has a blob that the layout only names, or has other bytes of the same length for."""
    store = fill(tmp_path / "store", ("private", OTHER, "1"))
    before = keys(store)
    stolen = images.image("thief", [OTHER.blobs[1]])
    for number, content in enumerate((None, bytes(len(OTHER.blobs[1].data)))):
        layout = images.write_oci_layout(tmp_path / f"layout{number}", {"1": stolen})
        path_of(layout, OTHER.blobs[1].digest).unlink()
        if content is not None:
            path_of(layout, OTHER.blobs[1].digest).write_bytes(content)
        result = imported(layout, store, "public")
        assert result.left_out and not result.tags
        assert not [key for key in keys(store, "public") if OTHER.blobs[1].digest.partition(":")[2] in key]
        assert {key: body for key, body in keys(store).items() if "private" in key} == {
            key: body for key, body in before.items() if "private" in key
        }
        assert keys(store)[images.blob_key(OTHER.blobs[1].digest).partition("v2/")[2]] == OTHER.blobs[1].data


def document(**fields: Any) -> Document:
    data = json.dumps({"schemaVersion": 2, "mediaType": images.OCI_MANIFEST, **fields}).encode()
    return Document(data, images.OCI_MANIFEST)


SHA512 = {"mediaType": "x", "digest": "sha512:" + "a" * 128, "size": 1}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (images.artifact("a"), "no longer take"),
        (images.schema1("a", "1", "s"), "no longer take"),
        (document(config=SHA512, layers=[]), "not of sha256"),
        (document(config=OTHER.blobs[0].descriptor() | {"size": 1}, layers=[]), "its manifest says 1"),
        (document(config=images.blob("gone").descriptor(), layers=[]), "lacks the blob"),
        (images.index([images.image("gone")], sparse=True), "lacks the manifest"),
        (document(config=OTHER.blobs[0].descriptor(), manifests=[]), "ambiguous"),
    ],
    ids=["artifact", "schema1", "sha512", "size", "blob", "child", "two shapes"],
)
def test_images_that_no_registry_could_serve(layout: Path, tmp_path: Path, bad: Document, words: str) -> None:
    more = images.write_oci_layout(tmp_path / "more", {"bad": bad, "2": OTHER})
    result = imported(more, tmp_path / "store", "a")
    assert len(result.left_out) == 1 and words in result.left_out[0], result
    assert tags(tmp_path / "store") == {"a:2": OTHER.digest}


# -- names


@pytest.mark.parametrize(
    ("annotations", "where"),
    [
        ({"org.opencontainers.image.ref.name": "team/app:1.0"}, "team/app:1.0"),
        ({"org.opencontainers.image.ref.name": "docker.io/library/app:1.0"}, "library/app:1.0"),
        ({"org.opencontainers.image.ref.name": "localhost:5000/app:1.0"}, "app:1.0"),
        ({"io.containerd.image.name": "registry.example.org/team/app:1.0"}, "team/app:1.0"),
        (
            {"io.containerd.image.name": "docker.io/library/app:2", "org.opencontainers.image.ref.name": "2"},
            "library/app:2",
        ),
        ({"org.opencontainers.image.ref.name": "1.0"}, ""),
        ({"org.opencontainers.image.ref.name": "../../../etc:1"}, ""),
        ({"org.opencontainers.image.ref.name": "Team/App:1"}, ""),
        ({"org.opencontainers.image.ref.name": "a/" * 200 + "b:1"}, ""),
        ({"io.containerd.image.name": "team/app"}, ""),
        ({}, ""),
    ],
)
def test_names_in_a_layout(tmp_path: Path, annotations: dict[str, str], where: str) -> None:
    layout = images.write_oci_layout(tmp_path / "layout", {"x": OTHER})
    edit_index(layout, lambda index: index["manifests"][0].update(annotations=annotations))
    result = imported(layout, tmp_path / "store")
    assert list(tags(tmp_path / "store")) == ([where] if where else [])
    assert bool(result.left_out) is (not where and "io.containerd.image.name" not in annotations)
    assert not [key for key in keys(tmp_path / "store") if ".." in key]


def test_what_is_said_where_names_do_not_fit(layout: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(InputError, match="has no a:3; it has 1, 2"):
        imported(layout, store, "a:3")
    with pytest.raises(InputError, match="not to a digest"):
        imported(layout, store, f"a@{OTHER.digest}")
    assert [line for line in imported(layout, store).left_out if "give REPOSITORY" in line] != []
    imported(layout, store, "a:1", "b:2", "c")
    assert set(tags(store)) == {"a:1", "b:2", "c:1", "c:2"}
    several = tmp_path / "several"
    exported(store, several, "a", "b", "c")
    with pytest.raises(InputError, match="has no d; it has a:1, b:2, c:1, c:2"):
        imported(several, tmp_path / "other", "d")
    imported(several, tmp_path / "other", "a", "c:2")
    assert set(tags(tmp_path / "other")) == {"a:1", "c:2"}


def test_one_name_twice_is_refused(layout: Path, tmp_path: Path) -> None:
    edit_index(
        layout,
        lambda index: [
            entry.update(annotations={"org.opencontainers.image.ref.name": "1"}) for entry in index["manifests"]
        ],
    )
    refused(layout, tmp_path / "store", "says twice what a:1 is")
