"""regstore: the storage under a container registry, in S3 or on disk."""

__version__ = "0.1.0"
