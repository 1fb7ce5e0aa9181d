"""regstore: the storage under a container registry, in S3 or on disk.

    async with regstore.open("s3://bucket/root") as registry: ...
    with regstore.sync.open("/var/lib/registry") as registry: ...

Everything is loaded when it is first used: `import regstore` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from regstore import errors, sync
    from regstore.digest import Digest
    from regstore.errors import RegstoreError
    from regstore.manifest import Manifest, Platform
    from regstore.reference import Reference
    from regstore.registry import (
        BlobInfo,
        Description,
        Referrer,
        Registry,
        Repository,
        StoredManifest,
        Tag,
        Upload,
    )
    from regstore.registry.opening import open

__version__ = "0.1.0"

__all__ = [
    "BlobInfo",
    "Description",
    "Digest",
    "Manifest",
    "Platform",
    "Reference",
    "Referrer",
    "Registry",
    "RegstoreError",
    "Repository",
    "StoredManifest",
    "Tag",
    "Upload",
    "errors",
    "open",
    "sync",
]

_MODULE_OF: Final = {
    "Digest": "regstore.digest",
    "Manifest": "regstore.manifest",
    "Platform": "regstore.manifest",
    "Reference": "regstore.reference",
    "RegstoreError": "regstore.errors",
    "open": "regstore.registry.opening",
}
_MODULES: Final = frozenset({"errors", "sync"})


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"regstore.{name}")
    if name in __all__:
        return getattr(importlib.import_module(_MODULE_OF.get(name, "regstore.registry")), name)
    raise AttributeError(f"module 'regstore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
