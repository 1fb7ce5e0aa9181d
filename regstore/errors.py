"""Every error that regstore raises, and the exit code that the command line gives it.

    RegstoreError                      1
    ├── InputError                     2   the caller's words are wrong
    │   ├── InvalidDigest
    │   ├── InvalidReference
    │   └── InvalidManifest
    ├── StorageError                   1   the store said no
    │   ├── NotFound                       no such key
    │   ├── NoSuchBucket                   no such bucket, or no such folder
    │   ├── AccessDenied                   credentials are known, but may not do this
    │   ├── AuthenticationFailed           credentials are missing, wrong or expired
    │   ├── Unreachable                    no answer, or only 5xx, after all retries
    │   │   └── NoConnection               nothing answers at this address: no request fares better
    │   ├── Archived                       the object is there; nobody can read it before it is restored
    │   ├── Outage                         not one object but most can't be read (`storage.outage`)
    │   ├── StorageFull                    quota or disk used up
    │   ├── AlreadyExists                  a conditional create found a key
    │   ├── IntegrityError                 bytes do not match what was promised
    │   └── Unsupported                    the server does not have this operation
    ├── RegistryError                  1
    │   ├── NotARegistry                   nothing of docker/registry/v2 here
    │   ├── NameUnknown                    no such repository
    │   ├── TagUnknown
    │   ├── ManifestUnknown
    │   └── BlobUnknown
    ├── Refused                        4   a safety stop; the message names the option that overrides it
    ├── LockHeld                       5   another run works on this store
    └── LockLost                       5   this run's lease ended, it stopped before its next change

Exit codes that are no exception: 0 done; 3 done, with something left out and reported (a protected
repository, a corrupt source blob, a conflict); 6 verification found damage; 130 interrupted.

Foreign exceptions (botocore, aiohttp, OSError) are translated once, where they enter, and chained.

    import regstore
    from regstore.errors import RegistryError, RegstoreError

    async with regstore.open("/srv/registry") as registry:
        try:
            await registry.repository("team/app").tags.get("no-such-tag")
        except RegistryError as error:
            print("not there:", error)
        except RegstoreError as error:
            print("the store, or what was asked of it:", error, error.exit_code)
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AccessDenied",
    "AlreadyExists",
    "Archived",
    "AuthenticationFailed",
    "BlobUnknown",
    "InputError",
    "IntegrityError",
    "InvalidDigest",
    "InvalidManifest",
    "InvalidReference",
    "LockHeld",
    "LockLost",
    "ManifestUnknown",
    "NameUnknown",
    "NoConnection",
    "NoSuchBucket",
    "NotARegistry",
    "NotFound",
    "Outage",
    "Refused",
    "RegistryError",
    "RegstoreError",
    "StorageError",
    "StorageFull",
    "TagUnknown",
    "Unreachable",
    "Unsupported",
]

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_PARTIAL = 3
EXIT_REFUSED = 4
EXIT_LOCKED = 5
EXIT_DAMAGE = 6
EXIT_INTERRUPTED = 130


class RegstoreError(Exception):
    """Root of the tree. `str(error)` is one sentence that says what, where and what to do."""

    exit_code: ClassVar[int] = EXIT_FAILURE


class InputError(RegstoreError, ValueError):
    exit_code = EXIT_USAGE


class InvalidDigest(InputError):
    pass


class InvalidReference(InputError):
    pass


class InvalidManifest(InputError):
    """The bytes are not a manifest that can be understood without guessing."""


class StorageError(RegstoreError):
    pass


class NotFound(StorageError):
    def __init__(self, key: str, where: str = "") -> None:
        super().__init__(f"no such key: {key}" + (f" in {where}" if where else ""))
        self.key = key


class NoSuchBucket(StorageError):
    pass


class AccessDenied(StorageError):
    pass


class AuthenticationFailed(StorageError):
    pass


class Unreachable(StorageError):
    pass


class NoConnection(Unreachable):
    pass


class Archived(StorageError):
    pass


class Outage(StorageError):
    pass


class StorageFull(StorageError):
    pass


class AlreadyExists(StorageError):
    pass


class IntegrityError(StorageError):
    pass


class Unsupported(StorageError):
    pass


class RegistryError(RegstoreError):
    pass


class NotARegistry(RegistryError):
    pass


class NameUnknown(RegistryError):
    pass


class TagUnknown(RegistryError):
    pass


class ManifestUnknown(RegistryError):
    pass


class BlobUnknown(RegistryError):
    pass


class Refused(RegstoreError):
    exit_code = EXIT_REFUSED


class LockHeld(RegstoreError):
    exit_code = EXIT_LOCKED


class LockLost(RegstoreError):
    exit_code = EXIT_LOCKED
