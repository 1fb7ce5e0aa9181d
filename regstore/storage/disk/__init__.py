"""The disk backend: a folder tree (`storage`), read and written through descriptors (`folders`, `newfile`), listed in
the order of keys (`walk`)."""

from regstore.storage.disk.storage import DiskStorage

__all__ = ["DiskStorage"]
