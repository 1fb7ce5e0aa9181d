"""Registries of a given number of keys, the same for the same seed, with the truth about what is garbage in them.

    python -m benchmarks.generate [--keys 13000] [--seed 1] [--to FOLDER]

What they hold, in the proportions of registries that continuous integration fills: repositories with nested names,
few of them large; images over shared base layers; indexes of several platforms; signatures by `subject`, half of
them also under the fallback tag `sha256-<hex>`; tags that moved, and the untagged revisions they left; images
deleted through the API, whose blobs and layer links stayed; layers of pushes that were never finished; blobs that
nothing links; abandoned uploads; images promoted to a second repository. About 74 manifests per 1,000 keys. All
times lie in 2024.

Manifests are real. A layer or config is a few bytes whose digest is its name, with a larger size stated, so that a
million keys fit in memory: a listing shows the size, and no garbage collection reads them.

The truth is that of `regstore gc`'s rules: with every linked revision as a root, and with tags alone (referrers and
children kept). Nothing is younger than any sensible grace.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

_BLOBS = "docker/registry/v2/blobs/sha256/"
_REPOSITORIES = "docker/registry/v2/repositories/"
_2024 = 1_704_067_200
_YEAR = 366 * 86_400
_OCI = "application/vnd.oci.image.manifest.v1+json"
_OCI_INDEX = "application/vnd.oci.image.index.v1+json"
_DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
_PLATFORMS = ("amd64", "arm64", "arm", "s390x")
#: More keys than any single step below writes: the last few keys are orphaned blobs, so that the number is exact.
_STEP = 300


class Entry(NamedTuple):
    key: str
    body: bytes
    size: int  # bytes; larger than the body for layers
    mtime: int  # seconds since the epoch, UTC


@dataclass(frozen=True, kw_only=True)
class Shape:
    keys: int = 13_000
    seed: int = 1
    #: Real contents of at most 8 kB a layer, and nothing dead: what a copy must bring over whole. A few keys short.
    copyable: bool = False

    def __post_init__(self) -> None:
        if self.keys < 3_000:
            raise ValueError("a generated registry has at least 3,000 keys")


class Layer(NamedTuple):
    hex: str
    size: int
    body: bytes = b""


class Revision(NamedTuple):
    hex: str
    strong: tuple[str, ...]  # what it references
    subject: str | None
    size: int


@dataclass
class Repository:
    name: str
    base: tuple[Layer, ...]
    promoted_to: Repository | None = None
    revisions: dict[str, Revision] = field(default_factory=dict)
    layer_links: set[str] = field(default_factory=set)
    tags: dict[str, str] = field(default_factory=dict)
    uploads: int = 0
    recent: list[Layer] = field(default_factory=list)  # layers of the last build, which the next may share

    def unwritten(self) -> int:
        """Keys of `current/link` still to be written, here and where it is promoted to."""
        return len(self.tags) + (self.promoted_to.unwritten() if self.promoted_to else 0)

    def live(self, delete_untagged: bool) -> tuple[set[str], int]:
        """What is reached here, and the number of tags that stay."""
        following = {tag: tag[7:] for tag in self.tags if tag.startswith("sha256-") and tag[7:] in self.revisions}
        if delete_untagged:
            waiting = [target for tag, target in self.tags.items() if tag not in following]
        else:
            waiting = [*self.revisions, *self.tags.values()]
        referrers: dict[str, list[str]] = {}
        for revision in self.revisions.values():
            if revision.subject:
                referrers.setdefault(revision.subject, []).append(revision.hex)
        for tag, subject in following.items():
            referrers.setdefault(subject, []).append(self.tags[tag])
        reached: set[str] = set()
        while waiting:
            digest = waiting.pop()
            if digest in reached:
                continue
            reached.add(digest)
            waiting += referrers.get(digest, ())
            if digest in self.revisions:
                waiting += self.revisions[digest].strong
        kept = sum(subject in reached for subject in following.values()) if delete_untagged else len(following)
        return reached, len(self.tags) - len(following) + kept


class Generated:
    """A registry being generated. `entries()` is to be taken once; `truth()` is known when it is exhausted."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._random = random.Random(shape.seed)
        self._serial = 0
        self._written = 0
        self._sizes: dict[str, int] = {}  # of every blob
        self._manifests = 0
        self._totals = {"revisions": 0, "layer_links": 0, "uploads": 0, "repositories": 0, "tags": 0}
        self._live: tuple[set[str], set[str]] = (set(), set())
        self._counted = [
            {"revisions": 0, "layer_links": 0, "emptied": 0, "tags": 0},
            {"revisions": 0, "layer_links": 0, "emptied": 0, "tags": 0},
        ]  # dead ones, without and with delete-untagged

    def entries(self) -> Iterator[Entry]:
        for entry in self._entries():
            self._written += 1
            yield entry

    def _entries(self) -> Iterator[Entry]:
        keys, choose = self.shape.keys, self._random
        yield from self._blob(self._empty_config())
        bases = [
            tuple(self._layer(30e6) for _ in range(choose.randint(1, 5)))
            for _ in range(max(6, int(keys**0.5 / 20)))
        ]
        for base in bases:
            for layer in base:
                yield from self._blob(layer)
        previous = "platform"
        number = 0
        while self._written < keys - _STEP:
            number += 1
            previous = name = self._name(number, previous)
            repository = Repository(name, choose.choice(bases))
            if choose.random() < 0.1:
                repository.promoted_to = Repository(f"release/{name}", repository.base)
            builds = min(int(2 * choose.paretovariate(0.75)), 60 + keys // 1_000)
            for build in range(builds):
                if self._written + repository.unwritten() >= keys - _STEP:
                    break
                yield from self._build(repository, build)
            if choose.random() < 0.3 and not self.shape.copyable:
                yield from self._uploads(repository)
            yield from self._finish(repository)
            if repository.promoted_to:
                yield from self._finish(repository.promoted_to)
        while self._written < keys and not self.shape.copyable:
            yield from self._blob(self._layer(5e6))

    # Names, digests, times

    def _name(self, number: int, previous: str) -> str:
        words = (
            "api",
            "auth",
            "billing",
            "cache",
            "edge",
            "ingest",
            "mail",
            "media",
            "report",
            "search",
            "web",
            "worker",
        )
        word = self._random.choice(words)
        kind = self._random.random()
        if kind < 0.1 and previous.count("/") < 4:
            return f"{previous}/{word}-{number}"
        if kind < 0.25:
            return f"{word}-{number}"
        return f"team-{number % 37:02}/{word}-{number}"

    def _layer(self, scale: float) -> Layer:
        size = int(self._random.lognormvariate(0, 1.5) * scale / 3) + 100
        self._serial += 1
        body = b"%d %d" % (self.shape.seed, self._serial)
        if self.shape.copyable:
            size = 100 + size % 8_000
            body = self._random.randbytes(size)
        return Layer(hashlib.sha256(body).hexdigest(), size, body)

    def _empty_config(self) -> Layer:
        return Layer(hashlib.sha256(b"{}").hexdigest(), 2, b"{}")

    def _time(self) -> int:
        return _2024 + self._written * _YEAR // self.shape.keys

    # Keys

    def _blob(self, layer: Layer) -> Iterator[Entry]:
        if layer.hex not in self._sizes:
            self._sizes[layer.hex] = layer.size
            yield Entry(f"{_BLOBS}{layer.hex[:2]}/{layer.hex}/data", layer.body, layer.size, self._time())

    def _fresh(self, repository: Repository, scale: float) -> Iterator[Entry]:
        """A new layer, with its link; it is then the last of `repository.recent`."""
        layer = self._layer(scale)
        repository.recent.append(layer)
        yield from self._blob(layer)
        yield from self._layer_link(repository, layer.hex)

    def _link(self, key: str, target: str) -> Entry:
        return Entry(f"{_REPOSITORIES}{key}/link", b"sha256:" + target.encode(), 71, self._time())

    def _layer_link(self, repository: Repository, digest: str) -> Iterator[Entry]:
        if digest not in repository.layer_links:
            repository.layer_links.add(digest)
            yield self._link(f"{repository.name}/_layers/sha256/{digest}", digest)

    def _manifest(self, document: dict[str, Any]) -> tuple[Revision, bytes]:
        body = json.dumps(document, separators=(",", ":")).encode()
        named = [*document.get("manifests", ()), *document.get("layers", ())]
        if "config" in document:
            named.append(document["config"])
        strong = tuple(descriptor["digest"][7:] for descriptor in named)
        subject = document["subject"]["digest"][7:] if "subject" in document else None
        return Revision(hashlib.sha256(body).hexdigest(), strong, subject, len(body)), body

    def _put(self, repository: Repository, revision: Revision, body: bytes, linked: bool = True) -> Iterator[Entry]:
        """The blob of a manifest and its revision link, unless it was deleted again (`linked` false)."""
        if revision.hex not in self._sizes:
            self._sizes[revision.hex] = revision.size
            self._manifests += 1
            yield Entry(f"{_BLOBS}{revision.hex[:2]}/{revision.hex}/data", body, revision.size, self._time())
        if linked:
            repository.revisions[revision.hex] = revision
            yield self._link(f"{repository.name}/_manifests/revisions/sha256/{revision.hex}", revision.hex)

    def _tag(self, repository: Repository, tag: str, target: str) -> Iterator[Entry]:
        """`current/link` follows in `_finish`: a tag moves."""
        repository.tags[tag] = target
        yield self._link(f"{repository.name}/_manifests/tags/{tag}/index/sha256/{target}", target)

    # Pushes

    def _build(self, repository: Repository, build: int) -> Iterator[Entry]:
        choose = self._random
        fate = 0.5 if self.shape.copyable else choose.random()
        deleted = fate < 0.07
        mutable_only = 0.07 <= fate < 0.25  # pushed to `main` alone: untagged by the next build
        if fate > 0.98:  # a push that was cut short: layers, and no manifest
            for _ in range(choose.randint(1, 6)):
                yield from self._fresh(repository, 20e6)
            del repository.recent[:]
        if choose.random() < 0.05 and not self.shape.copyable:
            yield from self._blob(self._layer(20e6))  # nothing links it
        images: list[tuple[Revision, bytes]] = []
        platforms = choose.choice((2, 2, 3, 4)) if choose.random() < 0.2 else 1
        docker = platforms == 1 and choose.random() < 0.3
        for platform in range(platforms):
            config = self._layer(9e3)
            yield from self._blob(config)
            yield from self._layer_link(repository, config.hex)
            for layer in repository.base:
                yield from self._layer_link(repository, layer.hex)
            shared = tuple(repository.recent[-choose.randint(1, 3) :]) if choose.random() < 0.5 else ()
            del repository.recent[:]
            for _ in range(choose.randint(2, 9)):
                yield from self._fresh(repository, 8e6)
            layers = (*repository.base, *shared, *repository.recent)
            images.append(self._manifest(_image(config, layers, docker, f"{repository.name} {build} {platform}")))
        # A cleaning script deletes an index and its children, a person the index alone.
        children_too = choose.random() < 0.5
        for image, body in images:
            yield from self._put(repository, image, body, not deleted or (platforms > 1 and not children_too))
        top, body = images[0]
        if platforms > 1:
            top, body = self._manifest(_index([image for image, _ in images]))
            yield from self._put(repository, top, body, not deleted)
        signed = choose.random() < 0.2
        if not deleted:
            yield from self._tag(repository, "main" if choose.random() < 0.8 else "latest", top.hex)
            if not mutable_only:
                yield from self._tag(repository, f"1.{build // 10}.{build % 10}", top.hex)
        if signed:
            yield from self._signature(repository, top, choose.random() < 0.5)
        release = repository.promoted_to
        if release and not deleted and not mutable_only and choose.random() < 0.3:
            for image, content in images:
                for digest in image.strong:
                    yield from self._layer_link(release, digest)
                yield from self._put(release, image, content)
            if platforms > 1:
                yield from self._put(release, top, body)
            yield from self._tag(release, f"v{build}", top.hex)

    def _signature(self, repository: Repository, subject: Revision, fallback_tag: bool) -> Iterator[Entry]:
        empty = self._empty_config()
        yield from self._layer_link(repository, empty.hex)
        payload = self._layer(2e3)
        yield from self._blob(payload)
        yield from self._layer_link(repository, payload.hex)
        signature, body = self._manifest(_signature(payload, empty, subject))
        yield from self._put(repository, signature, body)
        if fallback_tag:
            index, body = self._manifest(_index([signature]))
            yield from self._put(repository, index, body)
            yield from self._tag(repository, f"sha256-{subject.hex}", index.hex)

    def _uploads(self, repository: Repository) -> Iterator[Entry]:
        for _ in range(self._random.randint(1, 3)):
            repository.uploads += 1
            part = self._random.getrandbits(128)
            text = f"{part:032x}"
            uuid = f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"
            key = f"{_REPOSITORIES}{repository.name}/_uploads/{uuid}"
            yield Entry(f"{key}/startedat", b"2024-01-01T00:00:00Z", 20, self._time())
            yield Entry(f"{key}/data", b"part of a layer", 15, self._time())

    def _finish(self, repository: Repository) -> Iterator[Entry]:
        if not (repository.layer_links or repository.revisions or repository.tags or repository.uploads):
            return
        for tag, target in repository.tags.items():
            yield self._link(f"{repository.name}/_manifests/tags/{tag}/current", target)
        totals = self._totals
        totals["repositories"] += 1
        totals["revisions"] += len(repository.revisions)
        totals["layer_links"] += len(repository.layer_links)
        totals["tags"] += len(repository.tags)
        totals["uploads"] += repository.uploads
        for delete_untagged in (False, True):
            reached, tags = repository.live(delete_untagged)
            dead = self._counted[delete_untagged]
            revisions = len(repository.revisions.keys() & reached) if delete_untagged else len(repository.revisions)
            links = len(repository.layer_links & reached)
            dead["revisions"] += len(repository.revisions) - revisions
            dead["layer_links"] += len(repository.layer_links) - links
            dead["tags"] += len(repository.tags) - tags
            dead["emptied"] += not (revisions or links or tags)
            self._live[delete_untagged].update(reached)

    def truth(self) -> dict[str, Any]:
        """Counts in the form of `regstore gc --dry-run --json`, for both kinds of run."""
        totals = self._totals

        def counted(delete_untagged: bool) -> dict[str, Any]:
            dead = self._counted[delete_untagged]
            gone = self._sizes.keys() - self._live[delete_untagged]
            return {
                "blobs": {
                    "total": len(self._sizes),
                    "live": len(self._sizes) - len(gone),
                    "dead": len(gone),
                    "dead_bytes": sum(self._sizes[digest] for digest in gone),
                },
                "revisions": {"total": totals["revisions"], "dead": dead["revisions"]},
                "layer_links": {"total": totals["layer_links"], "dead": dead["layer_links"]},
                "tags": {"total": totals["tags"], "dead": dead["tags"]},
                "uploads": {"total": totals["uploads"], "dead": totals["uploads"]},
                "repositories": {"total": totals["repositories"], "protected": 0, "emptied": dead["emptied"]},
            }

        return {
            "keys": self._written,
            "manifests": self._manifests,
            "default": counted(False),
            "delete_untagged": counted(True),
        }


def _descriptor(layer: Layer, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{layer.hex}", "size": layer.size}


def _image(config: Layer, layers: tuple[Layer, ...], docker: bool, title: str) -> dict[str, Any]:
    if docker:
        media_type, config_type = _DOCKER, "application/vnd.docker.container.image.v1+json"
        layer_type = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    else:
        media_type, config_type = _OCI, "application/vnd.oci.image.config.v1+json"
        layer_type = "application/vnd.oci.image.layer.v1.tar+gzip"
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": _descriptor(config, config_type),
        "layers": [_descriptor(layer, layer_type) for layer in layers],
    }
    if not docker:
        document["annotations"] = {"org.opencontainers.image.title": title}
    return document


def _index(children: list[Revision]) -> dict[str, Any]:
    manifests = []
    for child, platform in zip(children, _PLATFORMS, strict=False):
        descriptor = _descriptor(Layer(child.hex, child.size), _OCI)
        if len(children) > 1:
            descriptor["platform"] = {"architecture": platform, "os": "linux"}
        manifests.append(descriptor)
    return {"schemaVersion": 2, "mediaType": _OCI_INDEX, "manifests": manifests}


def _signature(payload: Layer, empty: Layer, subject: Revision) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": _OCI,
        "artifactType": "application/vnd.dev.cosign.artifact.sig.v1+json",
        "config": _descriptor(empty, "application/vnd.oci.empty.v1+json"),
        "layers": [_descriptor(payload, "application/vnd.dev.cosign.simplesigning.v1+json")],
        "subject": _descriptor(Layer(subject.hex, subject.size), _OCI),
    }


def generate(shape: Shape) -> Generated:
    return Generated(shape)


def write_large(folder: Path, blobs: int = 40, size: int = 75_000_000, seed: int = 1) -> None:
    """One repository of `blobs` layers of `size` random bytes each, five to an image: a tree for copying."""
    choose = random.Random(seed)

    def write(key: str, body: bytes) -> None:
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)

    def blob(body: bytes) -> Layer:
        digest = hashlib.sha256(body).hexdigest()
        write(f"{_BLOBS}{digest[:2]}/{digest}/data", body)
        return Layer(digest, len(body))

    def link(key: str, layer: Layer) -> None:
        write(f"{_REPOSITORIES}models/large/{key}/link", f"sha256:{layer.hex}".encode())

    for number in range(-(-blobs // 5)):
        count = min(5, blobs - 5 * number)
        layers = tuple(blob(choose.randbytes(size)) for _ in range(count))
        config = blob(b'{"number":%d}' % number)
        for layer in (config, *layers):
            link(f"_layers/sha256/{layer.hex}", layer)
        manifest = blob(json.dumps(_image(config, layers, False, f"large {number}")).encode())
        link(f"_manifests/revisions/sha256/{manifest.hex}", manifest)
        link(f"_manifests/tags/{number}/index/sha256/{manifest.hex}", manifest)
        link(f"_manifests/tags/{number}/current", manifest)


def write_tree(generated: Generated, folder: Path) -> None:
    """Writes a registry as files; layers are sparse files of their stated size."""
    for entry in generated.entries():
        path = folder / entry.key
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(entry.body)
            file.truncate(entry.size)
        os.utime(path, (entry.mtime, entry.mtime))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Generates a registry and prints the truth about its garbage as JSON."
    )
    parser.add_argument("--keys", type=int, default=13_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="write it there as files")
    arguments = parser.parse_args()
    generated = generate(Shape(keys=arguments.keys, seed=arguments.seed))
    if arguments.to:
        write_tree(generated, arguments.to)
    else:
        for _ in generated.entries():
            pass
    print(json.dumps(generated.truth(), indent=2))


if __name__ == "__main__":
    main()
