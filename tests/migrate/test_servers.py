"""A registry that real clients filled goes from place to place, and the real registry serves it there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from regstore.digest import Digest
from regstore.reference import is_name
from tests.migrate.stores import contents, dangling, move, open_place
from tests.servers import images, skopeo
from tests.servers.api import Api, ApiError, pull_complete
from tests.servers.distribution import Registry
from tests.servers.s3 import S3Root, S3Server

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("with_skopeo")]

StartRegistry = Callable[..., Registry]


def fill(registry: Registry, tmp_path: Path) -> str:
    """Multi-arch, a referrer with its tag, schema1, BuildKit cache, an untagged image, a sha512 layer; its digest."""
    multi = images.multiarch("m")
    tagged = {"multi": multi, "single": images.image("s", 3), "next": images.image("n")}
    layout = images.write_oci_layout(tmp_path / "layout", tagged)
    for tag in tagged:
        skopeo.push(layout, tag, registry.host, "team/app")
    skopeo.push(layout, "single", registry.host, "team/app", "schema2", format="v2s2")
    skopeo.push(layout, "single", registry.host, "old/one", "schema1", format="v2s1")
    skopeo.push(layout, "next", registry.host, "team/app", "single")  # the first one is untagged now
    skopeo.push(layout, "multi", registry.host, "team/app/nested", "1")
    sbom = images.referrer(multi)
    layer = images.layer("by sha512")
    alias = str(Digest.of(layer.data, "sha512"))
    with Api(registry.host) as api:
        for part in sbom.documents():
            for blob in part.blobs:
                api.put_blob("team/app", blob.data)
            api.put_manifest("team/app", part.digest, part.data, part.media_type)
        tag, index = images.referrers_index(multi, [sbom])
        api.put_manifest("team/app", tag, index.data, index.media_type)
        api.put_blob("team/app", layer.data, digest=alias)
        image = images.image("alias", [layer])
        for blob in image.blobs:
            api.put_blob("team/app", blob.data)
        document = image.data.replace(layer.digest.encode(), alias.encode())
        api.put_manifest("team/app", "sha512", document, image.media_type)
        api.patch_upload(api.start_upload("team/app"), b"begun")
    return alias


def damage(root: Path) -> None:
    """What stands in stores after years. Each in a repository of its own, which has a sound tag too, or none."""
    base = root / "docker/registry/v2"
    for name in ("link", "tag", "manifest", "layers"):
        images.write_keys(root, images.registry_keys(f"bad/{name}", images.image(f"good {name}"), "good"))
        images.write_keys(root, images.registry_keys(f"bad/{name}", images.image(f"bad {name}"), "bad"))
    bad = {name: images.image(f"bad {name}").digest.replace(":", "/") for name in ("link", "manifest")}
    repositories = base / "repositories/bad"
    (repositories / f"link/_manifests/revisions/{bad['link']}/link").write_bytes(b"")
    link = repositories / "tag/_manifests/tags/bad/current/link"
    link.write_bytes(link.read_bytes() + b"\n")
    (root / images.blob_key(images.image("bad manifest").digest)).unlink()
    shutil.rmtree(repositories / "layers/_layers")
    (repositories / "layers/_manifests/tags/stray").write_bytes(b"")
    (repositories / "layers/_manifests/tags/empty/index").mkdir(parents=True)
    images.write_keys(root, linked_as_v2_1_0())
    images.write_keys(root, {"docker/registry/v2/repositories/Not A Name/_layers/sha256/x/link": b""})
    images.write_keys(root, {f"docker/registry/v2/blobs/sha256/{'00/' + '0' * 64}/other": b"?"})


def linked_as_v2_1_0() -> dict[str, bytes]:
    """A tag whose manifest is linked as a layer, with its signature below a revision that has no link."""
    manifest, signature = images.schema1("old/legacy", "1", "v2.1.0"), images.blob("signature")
    keys = images.registry_keys("old/legacy", manifest, "1") | {images.blob_key(signature.digest): signature.data}
    base, path = "docker/registry/v2/repositories/old/legacy", manifest.digest.replace(":", "/")
    keys[f"{base}/_layers/{path}/link"] = keys.pop(f"{base}/_manifests/revisions/{path}/link")
    signed = f"{base}/_manifests/revisions/{path}/signatures/{signature.digest.replace(':', '/')}/link"
    return keys | {signed: signature.digest.encode()}


def served(registry: Registry) -> dict[str, str]:
    """`name:tag` to digest, where the registry has one; it answers 500 to some damage."""

    def digest(api: Api, name: str, tag: str) -> str | None:
        try:
            return api.head_manifest(name, tag)
        except ApiError:
            return None

    with Api(registry.host) as api:
        found = {
            f"{name}:{tag}": digest(api, name, tag)
            for name in filter(is_name, registry.catalog())
            for tag in registry.tags(name)
        }
    return {reference: there for reference, there in found.items() if there is not None}


async def test_disk_to_ceph_and_back(
    tmp_path: Path, ceph: S3Server, ceph_bucket: str, start_registry: StartRegistry
) -> None:
    here, back, place = tmp_path / "registry", tmp_path / "back", S3Root(ceph, ceph_bucket, "/reg")
    old = start_registry(here)
    alias = fill(old, tmp_path)
    before = served(old)
    assert len(before) == 8
    old.stop()

    async with open_place(here) as source, open_place(place) as target:
        result = await move(source, target)
        assert not result.partial
        there = await contents(target)
        again = await move(source, target)
        assert again.objects == 0
    new = start_registry(place)
    assert served(new) == before
    for reference in before:
        name, _, tag = reference.rpartition(":")
        if tag != "sha512":
            assert pull_complete(new.host, name, tag)
            skopeo.pull(new.host, name, tag)
    with Api(new.host) as api:
        assert api.get_blob("team/app", alias) == images.layer("by sha512").data
    new.stop()

    async with open_place(place) as source, open_place(back) as target, open_place(here) as first:
        assert not (await move(source, target)).partial
        returned = await contents(target)
        original = await contents(first)
    assert returned == there
    assert not dangling({key: body for key, body in returned.items() if "/_layers/sha512/" not in key})
    # Everything but the upload is live: the trees are the same.
    assert {key: body for key, body in original.items() if "/_uploads/" not in key} == returned
    assert served(start_registry(back)) == before


async def test_damage_is_left_behind(
    tmp_path: Path, ceph: S3Server, ceph_bucket: str, start_registry: StartRegistry
) -> None:
    """All that the old registry could serve is served by the new one, and the rest is named."""
    here, place = tmp_path / "registry", S3Root(ceph, ceph_bucket)
    images.write_keys(here, images.registry_keys("sound", images.multiarch("m"), "1"))
    damage(here)
    old = start_registry(here)
    before = served(old)
    assert {"sound:1", "old/legacy:1", "bad/link:good", "bad/tag:good", "bad/manifest:good"} <= before.keys()
    old.stop()
    async with open_place(here) as source, open_place(place) as target:
        result = await move(source, target)
        found = await contents(target)
    assert not dangling(found)
    assert not result.failed
    named = " ".join(map(str, result.damaged))
    assert all(f"bad/{name}: " in named for name in ("link", "tag", "manifest"))
    assert {problem.repository for problem in result.protected} == {"bad/link", "bad/manifest"}
    new = start_registry(place)
    after = served(new)
    assert {reference: after.get(reference) for reference in before} == before
    for reference in ("sound:1", "bad/link:good", "bad/tag:good", "bad/manifest:good"):
        name, _, tag = reference.rpartition(":")
        skopeo.pull(new.host, name, tag)


async def test_from_one_server_to_another(
    tmp_path: Path, moto: S3Server, moto_bucket: str, ceph: S3Server, ceph_bucket: str
) -> None:
    """Streamed through, and hashed on the way: a flipped byte is named."""
    sound, bad = images.image("sound", size=300_000), images.image("bad", size=300_000)
    keys = images.registry_keys("a", sound, "sound") | images.registry_keys("a", bad, "bad")
    flipped = bad.blobs[1]
    keys[images.blob_key(flipped.digest)] = flipped.data[:-1] + b"?"
    for key, body in keys.items():
        moto.write(moto_bucket, f"reg/{key}", body)
    async with (
        open_place(S3Root(moto, moto_bucket, "/reg")) as source,
        open_place(S3Root(ceph, ceph_bucket)) as target,
    ):
        result = await move(source, target)
        found = await contents(target)
        assert "CopyObject" not in target.counters.requests
    assert [problem.subject for problem in result.failed] == [f"blob {flipped.digest}"]
    assert not dangling(found)
    assert set(images.registry_keys("a", sound, "sound")) <= found.keys()
    assert "docker/registry/v2/repositories/a/_manifests/tags/bad/current/link" not in found
