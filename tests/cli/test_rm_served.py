"""rm, untag and tag beside the real registry: what they do it shows at once, and what an undo gives back it serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

import regstore
from regstore.layout import PREFIX
from tests.cli.conftest import Run, Said
from tests.gc.test_end_to_end import url_of
from tests.model.store import ModelStore
from tests.servers import images, skopeo
from tests.servers.api import Api, pull_complete, push_api
from tests.servers.distribution import Registry
from tests.servers.s3 import S3Root

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("with_skopeo")]

APP, NESTED, OTHER = "team/app", "team/app/nested", "team/other"


class Served:
    """A registry that runs on a store, with an image under three tags, an index with its signature, the image nested
    in that repository and in another; and the program."""

    def __init__(self, registry: Registry, url: str, run: Run, folder: Path) -> None:
        self.registry = registry
        self.host = registry.host
        self.url = url
        self._run = run
        self.image, self.index = images.image("one"), images.multiarch("multi")
        self.layout = images.write_oci_layout(folder, {"one": self.image, "multi": self.index})
        for tag in ("1.0", "1", "latest"):
            skopeo.push(self.layout, "one", self.host, APP, tag)
        skopeo.push(self.layout, "multi", self.host, APP, "multi")
        self.signature, signature = images.cosign(self.index)
        push_api(self.host, APP, signature, self.signature)
        for repository in (NESTED, OTHER):
            skopeo.push(self.layout, "one", self.host, repository, "1.0")
        self.before = self.bodies()

    def do(self, command: str, *words: object, code: int = 0) -> Said:
        said = self._run(command, self.url, *words)
        assert said.code == code, said
        return said

    def remove(self, *words: object) -> Said:
        return self.do("rm", *words, "--yes", "--settle", "0s")

    def undo(self, said: Said) -> None:
        """As it says."""
        run = said.out.rpartition("`regstore trash restore --run ")[2].split("`")[0]
        restored = self._run("trash", "restore", self.url, "--run", run, "--yes")
        assert restored.code == 0, restored

    def is_as_before(self) -> None:
        assert self.bodies() == self.before
        assert self.registry.catalog() == [APP, NESTED, OTHER]
        self.shows("1", "1.0", "latest", "multi", self.signature)
        for tag in ("1", "1.0", "latest", "multi", self.signature):
            pull_complete(self.host, APP, tag)

    def shows(self, *tags: str) -> None:
        assert self.registry.tags(APP) == sorted(tags)

    def names(self, reference: object) -> str | None:
        with Api(self.host) as api:
            return api.head_manifest(APP, str(reference))

    def bodies(self) -> dict[str, bytes]:
        async def read() -> dict[str, bytes]:
            async with regstore.open(self.url) as store:
                return (await ModelStore.from_storage(store.storage, PREFIX)).bodies()

        return asyncio.run(read())


@pytest.fixture(params=["disk", "ceph"])
def served(
    request: pytest.FixtureRequest,
    run: Run,
    start_registry: Callable[..., Registry],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Served:
    """With a cache of descriptors, which must not answer for what is gone."""
    place: Path | S3Root = tmp_path / "registry"
    if request.param == "ceph":
        place = S3Root(request.getfixturevalue("ceph"), request.getfixturevalue("ceph_bucket"), "/reg")
    registry = start_registry(place, cache="inmemory")
    return Served(registry, url_of(place, monkeypatch), run, tmp_path / "oci")


def test_the_registry_shows_it_at_once_and_serves_what_came_back(served: Served) -> None:
    # One tag, and not its siblings.
    said = served.remove(f"{APP}:1.0")
    served.shows("1", "latest", "multi", served.signature)
    with pytest.raises(skopeo.SkopeoError, match="manifest unknown"):
        skopeo.pull(served.host, APP, "1.0")
    skopeo.pull(served.host, APP, "1")
    served.undo(said)
    skopeo.pull(served.host, APP, "1.0")
    served.is_as_before()

    # An image with its tags.
    said = served.remove(f"{APP}@{served.image.digest}")
    served.shows("multi", served.signature)
    assert served.names(served.image.digest) is None
    skopeo.pull(served.host, OTHER, "1.0")
    served.undo(said)
    skopeo.pull(served.host, APP, served.image.digest)
    served.is_as_before()

    # An index, with what it lists.
    child = served.index.children[0]
    served.do("rm", f"{APP}@{child.digest}", "--yes", code=4)
    said = served.remove(*(f"{APP}@{part.digest}" for part in served.index.documents()))
    served.shows("1", "1.0", "latest", served.signature)
    assert served.names(child.digest) is None
    served.undo(said)
    skopeo.pull(served.host, APP, "multi")
    served.is_as_before()

    # A repository, and not those nested in it.
    said = served.remove("--recursive", APP)
    served.shows()
    skopeo.pull(served.host, NESTED, "1.0")
    served.undo(said)
    served.is_as_before()


def test_a_tag_is_set_moved_and_taken_away(served: Served) -> None:
    image, index = served.image.digest, served.index.digest
    served.do("tag", f"{APP}:multi", "stable")
    skopeo.pull(served.host, APP, "stable")
    assert served.names("stable") == index
    moved = served.do("tag", f"{APP}@{image}", "stable", "--force", "--yes")
    assert served.names("stable") == image
    served.undo(moved)
    assert served.names("stable") == index

    # What a client pushes, be it what the run had set, is not undone.
    moved = served.do("tag", f"{APP}@{image}", "stable", "--force", "--yes")
    with Api(served.host) as api:
        api.put_manifest(APP, "stable", served.image.data, served.image.media_type)
    run = moved.out.rpartition("--run ")[2].split("`")[0]
    said = served._run("trash", "restore", served.url, "--run", run, "--yes")
    assert "it was pushed since" in said.out + said.err, said
    assert served.names("stable") == image

    said = served.do("untag", f"{APP}:stable", "--yes")
    served.shows("1", "1.0", "latest", "multi", served.signature)
    served.undo(said)
    assert served.names("stable") == image
    served.do("untag", f"{APP}:stable", "--yes")
    served.is_as_before()
