"""A registry's storage as one dict, and its ways in and out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from regstore.storage.base import Storage

_LONG_HEX = re.compile(r"([0-9a-f]{8})[0-9a-f]{24,}")


@dataclass(repr=False)
class ModelStore:
    """objects: key (relative to the registry's root) -> (body, mtime in µs since 1970 UTC)."""

    objects: dict[str, tuple[bytes, int]] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, bodies: Mapping[str, bytes], mtime: int = 0) -> ModelStore:
        return cls({key: (body, mtime) for key, body in bodies.items()})

    @classmethod
    def from_folder(cls, root: Path) -> ModelStore:
        """Every regular file below the folder. Empty folders are no keys."""
        objects = {}
        for folder, _, files in os.walk(root):
            for name in files:
                path = Path(folder, name)
                if path.is_symlink():
                    continue
                key = path.relative_to(root).as_posix()
                objects[key] = (path.read_bytes(), path.stat().st_mtime_ns // 1000)
        return cls(objects)

    @classmethod
    async def from_storage(cls, storage: Storage, prefix: str = "") -> ModelStore:
        objects = {}
        async for page in storage.list(prefix):
            for info in page.objects():
                objects[info.key] = (await storage.get(info.key), info.mtime)
        return cls(objects)

    def write_folder(self, root: Path) -> None:
        """Files with these mtimes. Only for keys that a disk can hold: see `on_disk`."""
        for key, (body, mtime) in self.objects.items():
            path = root / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
            os.utime(path, ns=(mtime * 1000, mtime * 1000))

    async def write_storage(self, storage: Storage) -> None:
        """Puts every key. The storage gives its own mtimes. Tags come last, as a registry writes them: the other way
        round looks like a push under way."""
        for key in sorted(self.objects, key=lambda key: (key.endswith("/current/link"), key)):
            await storage.put(key, self.objects[key][0])

    def on_disk(self) -> ModelStore:
        """The part that a folder can hold: no `//`, no trailing `/`, no `.` component, no file that is also
        a folder."""
        folders: set[str] = set()
        kept: dict[str, tuple[bytes, int]] = {}
        for key in sorted(self.objects):
            components = key.split("/")
            if any(component in ("", ".", "..") or "\0" in component for component in components):
                continue
            parents = {"/".join(components[:end]) for end in range(1, len(components))}
            if key in folders or parents & kept.keys():
                continue
            folders |= parents
            kept[key] = self.objects[key]
        return ModelStore(kept)

    def without(self, keys: Iterable[str]) -> ModelStore:
        gone = set(keys)
        return ModelStore({key: value for key, value in self.objects.items() if key not in gone})

    def bodies(self) -> dict[str, bytes]:
        return {key: body for key, (body, _) in self.objects.items()}

    def body(self, key: str) -> bytes | None:
        return self.objects[key][0] if key in self.objects else None

    def __repr__(self) -> str:
        """For a person who looks at a failing example: hex cut short, one key a line, without the common prefix."""
        lines = []
        for key in self:
            body, mtime = self.objects[key]
            text = _LONG_HEX.sub(r"\1", body[:2000].decode("ascii", "backslashreplace"))
            name = _LONG_HEX.sub(r"\1", key.removeprefix("docker/registry/v2/"))
            lines.append(f"  {name}  @{mtime}  {text!r}")
        return "\n".join(["ModelStore:", *lines])

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.objects))

    def __len__(self) -> int:
        return len(self.objects)

    def __contains__(self, key: str) -> bool:
        return key in self.objects
