"""What tells a store from every other one, however it was written."""

from __future__ import annotations

import os

from regstore.storage.base import Storage
from regstore.storage.disk import DiskStorage


def identity_of(storage: Storage) -> str:
    """A folder's path without symbolic links; a bucket and root with their endpoint, as buckets of two servers may have
    one name (AWS has each name once, whatever the endpoint). Nothing tells the folders of two computers apart."""
    if isinstance(storage, DiskStorage):
        return os.path.realpath(storage.root)
    from regstore.storage.s3 import S3Storage
    from regstore.storage.s3.settings import make_endpoint, open_session

    if isinstance(storage, S3Storage):
        endpoint = make_endpoint(storage.settings, open_session(storage.settings))
        return f"{storage.url} at {'AWS' if endpoint.is_aws else endpoint.url.rstrip('/').lower()}"
    return storage.url
