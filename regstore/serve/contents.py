"""What an image's small blobs say, read from the store: its config (`image` parses it), and what is attached to it
(`attachment`). However many bytes a manifest gives a blob, no more than are good for anything are read.
"""

from __future__ import annotations

from regstore.concurrency import in_thread
from regstore.digest import Digest
from regstore.errors import RegistryError, StorageError
from regstore.registry import Repository, StoredManifest
from regstore.serve.attachment import CONTENT_MAX, Attachment, decode, readable
from regstore.serve.image import CONFIG_MAX, ImageConfig, parse_config


async def read_config(repository: Repository, stored: StoredManifest) -> ImageConfig | None:
    """What the config says; None where the manifest has none, or one that is too large to be an image's.

    BlobUnknown where it is gone; the store's errors.
    """
    config = stored.manifest.config
    if config is None or not 0 <= config.size <= CONFIG_MAX:
        return None
    data = await _read(repository, config.digest, CONFIG_MAX)
    return None if data is None else await in_thread(parse_config, data, stored.manifest)


async def read_attachments(repository: Repository, stored: StoredManifest) -> list[Attachment]:
    """What a signature, an attestation or an SBOM says; nothing of an image, nor of what can't be read."""
    found = []
    for blob in readable(stored.manifest):
        try:
            data = await _read(repository, blob.digest, CONTENT_MAX)
        except (RegistryError, StorageError):
            continue
        decoded = None if data is None else decode(data)
        if decoded is not None:
            found.append(decoded)
    return found


async def _read(repository: Repository, digest: Digest, most: int) -> bytes | None:
    """A blob, verified; None where it is larger, whatever a manifest says of it."""
    async with repository.blobs.open_read(digest) as reader:
        return await reader.read() if reader.size <= most else None
