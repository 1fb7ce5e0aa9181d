"""A registry's storage as objects: repositories, tags, manifests, blobs and uploads, read and written.

    Registry           repositories(), page(), repository(name), blobs (of the whole store)
    └── Repository     exists(), referrers(digest), describe(reference)
        ├── tags       iterate, page, get, set, delete
        ├── manifests  iterate, get, put, delete
        ├── blobs      iterate, stat, read, open_read, put, mount
        └── uploads    iterate

Writes go in the order of a registry's own push (blob, layer link, manifest, revision link, tag index, tag), and
deletes in reverse: whatever is cut short leaves garbage, never a link to nothing.

    from regstore.registry import open_registry

    async with open_registry("/srv/registry") as registry:  # what `regstore.open` opens, as a plain object
        app = registry.repository("team/app")
        stored = await app.manifests.get("latest")
        async for info in registry.blobs:
            if info.digest == stored.digest:
                print(stored.digest, info.size, "bytes")

What they give: Tag, StoredManifest, BlobInfo, BlobReader (Content is what a blob is put from), Upload, Referrer and
Referrers, Description. The parts of the tree above are Tags, Manifests, Blobs, StoreBlobs and Uploads.
"""

from typing import TYPE_CHECKING

from regstore.lazy import lazily

if TYPE_CHECKING:
    from regstore.registry.blobs import BlobInfo, BlobReader, Blobs, Content, StoreBlobs
    from regstore.registry.describe import Description
    from regstore.registry.manifests import Manifests, StoredManifest
    from regstore.registry.opening import open_registry
    from regstore.registry.referrers import Referrer, Referrers
    from regstore.registry.registry import Registry
    from regstore.registry.repository import Repository
    from regstore.registry.tags import Tag, Tags
    from regstore.registry.uploads import Upload, Uploads
else:
    __getattr__, __dir__ = lazily(__name__)

__all__ = [
    "BlobInfo",
    "BlobReader",
    "Blobs",
    "Content",
    "Description",
    "Manifests",
    "Referrer",
    "Referrers",
    "Registry",
    "Repository",
    "StoreBlobs",
    "StoredManifest",
    "Tag",
    "Tags",
    "Upload",
    "Uploads",
    "open_registry",
]
