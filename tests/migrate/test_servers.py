"""A registry that real clients filled goes from place to place, and the real registry serves it there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from regstore.digest import Digest
from tests.migrate.stores import contents, dangling, move, open_place
from tests.servers import images, skopeo
from tests.servers.api import Api, pull_complete
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


def served(registry: Registry) -> dict[str, str | None]:
    """`name:tag` to digest, as the registry says."""
    with Api(registry.host) as api:
        return {
            f"{name}:{tag}": api.head_manifest(name, tag)
            for name in registry.catalog()
            for tag in registry.tags(name)
        }


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
