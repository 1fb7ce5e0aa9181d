"""The demo's images as bytes: layers that are real archives, and configs that tell how they came to be."""

from __future__ import annotations

import io
import random
import struct
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import PurePosixPath
from typing import Any, Final

import orjson

from regstore.digest import Digest
from regstore.manifest import Platform

#: Of every file in a layer.
_MTIME: Final = int(datetime(2024, 1, 2, 12, tzinfo=UTC).timestamp())
_PATH: Final = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
#: Most bytes that a stored block of a deflate stream holds.
_BLOCK: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class DemoLayer:
    """data: a gzipped tar archive. diff_id: the digest of the archive itself. line: of a Dockerfile, which made it."""

    data: bytes
    diff_id: Digest
    line: str

    @property
    def digest(self) -> Digest:
        return Digest.of(self.data)


@dataclass(frozen=True, kw_only=True)
class DemoImage:
    """created: a day. settings: what a container of it gets, in the names of the image specification. lines: a
    Dockerfile's other lines, which made no layer."""

    layers: tuple[DemoLayer, ...]
    platform: Platform
    created: str
    settings: Mapping[str, Any]
    lines: tuple[str, ...]

    def config(self) -> bytes:
        """The document that a manifest names as its config."""
        created = f"{self.created}T12:00:00Z"
        history: list[dict[str, Any]] = [{"created_by": layer.line} for layer in self.layers]
        history += [{"created_by": line, "empty_layer": True} for line in self.lines]
        return orjson.dumps(
            {
                "created": created,
                **platform_fields(self.platform),
                "config": self.settings,
                "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in self.layers]},
                "history": [{"created": created, **step} for step in history],
            }
        )


def platform_fields(platform: Platform) -> dict[str, str]:
    """As configs and descriptors have them: without a variant where there is none."""
    fields = {"os": platform.os, "architecture": platform.architecture, "variant": platform.variant}
    return {name: value for name, value in fields.items() if value}


@cache
def base() -> DemoLayer:
    files = {
        "etc/os-release": 'NAME="Demo"\nID=demo\nVERSION_ID=12\n',
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/srv:/bin/false\n",
        "etc/group": "root:x:0:\napp:x:1000:\n",
    }
    return _layer("base", "COPY rootfs/ / # buildkit", files, largest="usr/lib/base.bin")


def base_image(platform: Platform) -> DemoImage:
    return DemoImage(
        layers=(base(),),
        platform=platform,
        created="2024-01-02",
        settings={
            "Env": [_PATH],
            "Cmd": ["/bin/sh"],
            "Labels": _labels("base", "12"),
        },
        lines=('CMD ["/bin/sh"]',),
    )


def program_image(
    title: str, version: str, platform: Platform, *, created: str, runtime: bool = False
) -> DemoImage:
    """A program on the base layer, and on that of its runtime too, where it has one."""
    name = f"{title}-{version}-{platform.architecture}"
    files = {
        "srv/run": f"#!/bin/sh\n# {title} {version} for {platform}\nexec /usr/bin/runtime /srv/{title}.bin\n",
        "srv/VERSION": f"{version}\n",
        "etc/program.json": orjson.dumps({"name": title, "version": version, "port": 8080}).decode() + "\n",
    }
    own = _layer(name, f"COPY {title}/ / # buildkit", files, largest=f"srv/{title}.bin")
    labels = _labels(title, version)
    return DemoImage(
        layers=(base(), _runtime(), own) if runtime else (base(), own),
        platform=platform,
        created=created,
        settings={
            "User": "1000:1000",
            "Env": [_PATH, f"VERSION={version}"],
            "Entrypoint": ["/srv/run"],
            "WorkingDir": "/srv",
            "ExposedPorts": {"8080/tcp": {}},
            "Labels": labels,
        },
        lines=(
            f"ENV VERSION={version}",
            *(f"LABEL {label}={value}" for label, value in labels.items()),
            "WORKDIR /srv",
            "USER 1000:1000",
            "EXPOSE [8080/tcp]",
            'ENTRYPOINT ["/srv/run"]',
        ),
    )


def legacy_image(platform: Platform) -> DemoImage:
    """As Docker's builder of old wrote it down."""
    files = {"opt/import/README": "Moved here from the old server in 2019. Does anybody need it?\n"}
    line = "/bin/sh -c #(nop) ADD dir:import in /opt/import "
    return DemoImage(
        layers=(_layer("legacy", line, files, largest="opt/import/data.bin"),),
        platform=platform,
        created="2019-05-06",
        settings={},
        lines=("/bin/sh -c #(nop)  MAINTAINER somebody who has left",),
    )


def noise(name: str, size: int) -> bytes:
    """Bytes that do not compress, the same for each name."""
    return random.Random(name).randbytes(size)


@cache
def _runtime() -> DemoLayer:
    files = {"etc/runtime.conf": "threads = 4\n", "usr/share/runtime/VERSION": "3.2\n"}
    return _layer("runtime", "RUN /bin/sh -c install-runtime 3.2 # buildkit", files, largest="usr/lib/runtime.bin")


def _labels(title: str, version: str) -> dict[str, str]:
    return {
        "org.opencontainers.image.title": title,
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.source": f"https://git.example.org/team/{title}",
    }


def _layer(name: str, line: str, files: Mapping[str, str], *, largest: str) -> DemoLayer:
    """Of small files, and a large one that gives it its size."""
    size = 900_000 if name == "base" else 168_000 + 2_503 * (sum(name.encode()) % 29)
    archive = _tar({path: text.encode() for path, text in files.items()} | {largest: noise(name, size)})
    return DemoLayer(_gzip(archive), Digest.of(archive), line)


def _tar(files: Mapping[str, bytes]) -> bytes:
    """An archive of these files, by path, and the folders above them; scripts can be executed."""
    folders = {str(folder) for path in files for folder in PurePosixPath(path).parents} - {"."}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted([*folders, *files]):
            entry = tarfile.TarInfo(path)
            entry.mtime = _MTIME
            if path in folders:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            else:
                data = files[path]
                entry.size, entry.mode = len(data), 0o755 if data.startswith(b"#!") else 0o644
                archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def _gzip(data: bytes) -> bytes:
    """As a gzip file of stored blocks (RFC 1951, 3.2.4; RFC 1952). What a compressor makes of the same bytes differs
    from version to version, and the digests must not."""
    blocks = bytearray()
    for start in range(0, len(data), _BLOCK):
        block = data[start : start + _BLOCK]
        last = start + _BLOCK >= len(data)
        blocks += struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block
    header = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # deflate, no name, no time, no system
    return header + blocks + struct.pack("<II", zlib.crc32(data), len(data))
