"""Options that several commands share, each declared once: the same option has the same words everywhere.

Those that every command on a store has are the fields of `settings.StoreSettings`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from regstore.cli.values import parse_duration

# -- before anything changes

DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Show what would be done; write nothing.")]
PlanOnly = Annotated[bool, typer.Option("--dry-run", "-n", help="Show the plan; write nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
BreakLock = Annotated[
    bool, typer.Option("--break-lock", help="Take the lock from another run; only when that is certainly dead.")
]

# -- what is kept beside the store

CacheDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir", metavar="DIR", show_default="~/.cache/regstore", help="Remembers manifests between runs."
    ),
]
InventoryFile = Annotated[
    Path | None,
    typer.Option(
        "--inventory", metavar="FILE", show_default=False, help="Keep the run's inventory as a DuckDB file."
    ),
]

# -- reading blobs

MaxAge = Annotated[
    Any,
    typer.Option(
        "--max-age",
        parser=parse_duration,
        metavar="DURATION",
        show_default=False,
        help="Do not read again what was read and right within this time.",
    ),
]
TimeLimit = Annotated[
    Any,
    typer.Option(
        "--time-limit",
        parser=parse_duration,
        metavar="DURATION",
        show_default=False,
        help="Stop reading blobs after this time.",
    ),
]

# -- what of a registry, how it is stored in the second place, and where that is

Repo = Annotated[
    list[str] | None,
    typer.Option(
        "--repo", metavar="PATTERN", show_default=False, help="Only these repositories (glob; repeatable)."
    ),
]
Tag = Annotated[
    list[str] | None,
    typer.Option(
        "--tag",
        metavar="PATTERN",
        show_default=False,
        help="Only these tags (glob; repeatable), with all they reach, their referrers and sha256-… tags.",
    ),
]
StorageClass = Annotated[
    str | None,
    typer.Option("--storage-class", metavar="NAME", show_default=False, help="S3 storage class of new objects."),
]
Sse = Annotated[
    str | None, typer.Option("--sse", metavar="NAME", show_default=False, help="Encryption: AES256 or aws:kms.")
]
SseKmsKeyId = Annotated[
    str | None, typer.Option("--sse-kms-key-id", metavar="ID", show_default=False, help="KMS key of new objects.")
]
Acl = Annotated[
    str | None,
    typer.Option(
        "--acl", metavar="NAME", show_default=False, help="Canned ACL, such as bucket-owner-full-control."
    ),
]
DstEndpointUrl = Annotated[
    str | None,
    typer.Option("--dst-endpoint-url", metavar="URL", show_default=False, help="S3 server of the second place."),
]
DstRegion = Annotated[
    str | None, typer.Option("--dst-region", metavar="NAME", show_default=False, help="Its region.")
]
DstProfile = Annotated[
    str | None, typer.Option("--dst-profile", metavar="NAME", show_default=False, help="Profile for it.")
]
DstCaBundle = Annotated[
    Path | None,
    typer.Option("--dst-ca-bundle", metavar="FILE", show_default=False, help="Certificates to trust for it."),
]

# -- the registry's descriptor cache

CacheOption = Annotated[
    str | None,
    typer.Option(
        "--registry-cache",
        metavar="none|inmemory|redis",
        show_default="as --registry-config says, or as was said last, else as inmemory",
        help="The registry's blob descriptor cache. Remembered in the store.",
    ),
]
RedisUrl = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        metavar="URL",
        show_default=False,
        help="The registry's Redis, such as redis://:password@cache:6379/0.",
    ),
]
DebugUrls = Annotated[
    list[str] | None,
    typer.Option(
        "--registry-debug-url",
        metavar="URL",
        show_default=False,
        help="The debug address of each registry process, with its metrics, such as http://registry:5001: when it was "
        "started says what its cache in memory has forgotten.",
    ),
]
