"""Options that several commands share, each declared once: the same option has the same words everywhere.

Those that belong together are a group (`command.command`), which also makes of them what the library takes; what
stands alone is a type to annotate a command's parameter with. Every command on a store has `settings.StoreSettings`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regstore.cli.config.complete import store_names
from regstore.cli.registry_cache import CacheOptions
from regstore.cli.settings import WAYS, StoreSettings, placed_store
from regstore.cli.values import parse_duration, parse_read_data
from regstore.cli.workers import Workers

if TYPE_CHECKING:
    from regstore.inventory.scan import ScanOptions
    from regstore.storage.base import PutOptions

# -- what is printed, and what happens before anything changes

DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Show what would be done; write nothing.")]
PlanOnly = Annotated[bool, typer.Option("--dry-run", "-n", help="Show the plan; write nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
YesToOverwrite = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before --overwrite-tags.")]
CreateStore = Annotated[
    bool, typer.Option("--create", help="Create and seed STORE first where it is missing, as seed-bucket does.")
]
BreakLock = Annotated[
    bool, typer.Option("--break-lock", help="Take the lock from another run; only when that is certainly dead.")
]


# -- what is kept beside the store

InventoryFile = Annotated[
    Path | None,
    typer.Option(
        "--inventory", metavar="FILE", show_default=False, help="Keep the run's inventory as a DuckDB file."
    ),
]


@dataclass(frozen=True, kw_only=True)
class Scanning(Workers):
    """What a scan of the store remembers, and who does it."""

    cache_dir: Annotated[
        Path | None,
        typer.Option(
            "--cache-dir", metavar="DIR", show_default="~/.cache/regstore", help="Remembers manifests between runs."
        ),
    ] = None

    def of(self, settings: StoreSettings, *, inventory: Path | None = None) -> ScanOptions:
        from regstore.inventory.scan import ScanOptions

        return ScanOptions(
            concurrency=settings.concurrency,
            cache_dir=cache_dir_or_default(self.cache_dir),
            inventory=inventory,
            runner=self.runner(settings.concurrency),
        )


ProofsDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir", metavar="DIR", show_default="~/.cache/regstore", help="Remembers what was read and right."
    ),
]


def cache_dir_or_default(said: Path | None) -> Path | None:
    from regstore.inventory.cache import default_cache_dir

    return said or default_cache_dir()


# -- reading blobs


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Which blobs are read and hashed."""

    read_data: Annotated[
        Any,
        typer.Option(
            "--read-data",
            parser=parse_read_data,
            metavar="all|N%|N/T|SIZE",
            show_default=False,
            help="Read blobs too and hash them: all, a share, part N of T, or so many bytes; other ones each time.",
        ),
    ] = None
    max_age: Annotated[
        Any,
        typer.Option(
            "--max-age",
            parser=parse_duration,
            metavar="DURATION",
            show_default=False,
            help="Do not read again what was read and right within this time.",
        ),
    ] = None
    time_limit: Annotated[
        Any,
        typer.Option(
            "--time-limit",
            parser=parse_duration,
            metavar="DURATION",
            show_default=False,
            help="Stop reading blobs after this time.",
        ),
    ] = None

    @property
    def seconds(self) -> float | None:
        return None if self.time_limit is None else self.time_limit / 1_000_000


# -- what of a registry, how it is stored in the second place, and where that is


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What of a registry."""

    repo: Annotated[
        list[str] | None,
        typer.Option(
            "--repo", metavar="PATTERN", show_default=False, help="Only these repositories (glob; repeatable)."
        ),
    ] = None
    tag: Annotated[
        list[str] | None,
        typer.Option(
            "--tag",
            metavar="PATTERN",
            show_default=False,
            help="Only these tags (glob; repeatable), with all they reach, their referrers and sha256-… tags.",
        ),
    ] = None

    @property
    def repositories(self) -> tuple[str, ...]:
        return tuple(self.repo or ())

    @property
    def tags(self) -> tuple[str, ...]:
        return tuple(self.tag or ())


@dataclass(frozen=True, kw_only=True)
class NewObjects:
    """How S3 keeps what is written."""

    storage_class: Annotated[
        str | None,
        typer.Option(
            "--storage-class", metavar="NAME", show_default=False, help="S3 storage class of new objects."
        ),
    ] = None
    sse: Annotated[
        str | None,
        typer.Option("--sse", metavar="NAME", show_default=False, help="Encryption: AES256 or aws:kms."),
    ] = None
    sse_kms_key_id: Annotated[
        str | None,
        typer.Option("--sse-kms-key-id", metavar="ID", show_default=False, help="KMS key of new objects."),
    ] = None
    acl: Annotated[
        str | None,
        typer.Option(
            "--acl", metavar="NAME", show_default=False, help="Canned ACL, such as bucket-owner-full-control."
        ),
    ] = None

    def put_options(self) -> PutOptions:
        from regstore.storage.base import PutOptions

        return PutOptions(
            storage_class=self.storage_class, sse=self.sse, sse_kms_key_id=self.sse_kms_key_id, acl=self.acl
        )


def _place(metavar: str, like: str) -> Any:
    return typer.Argument(
        metavar=metavar,
        autocompletion=store_names,
        show_default=False,
        help=f"Where to: {like}, a folder, or a name in regstore.toml.",
    )


ToBackup = Annotated[str | None, _place("BACKUP", "s3://bucket[/prefix]")]
ToStore = Annotated[str | None, _place("STORE", "s3://bucket[/rootdirectory]")]
ToDst = Annotated[str | None, _place("DST", "s3://bucket[/rootdirectory]")]


@dataclass(frozen=True, kw_only=True)
class SecondStore:
    """How the second place is reached, in a command that has one. What is not said of it is as of the first."""

    dst_endpoint_url: Annotated[
        str | None,
        typer.Option(
            "--dst-endpoint-url", metavar="URL", show_default=False, help="S3 server of the second place."
        ),
    ] = None
    dst_region: Annotated[
        str | None, typer.Option("--dst-region", metavar="NAME", show_default=False, help="Its region.")
    ] = None
    dst_profile: Annotated[
        str | None, typer.Option("--dst-profile", metavar="NAME", show_default=False, help="Profile for it.")
    ] = None
    dst_ca_bundle: Annotated[
        Path | None,
        typer.Option("--dst-ca-bundle", metavar="FILE", show_default=False, help="Certificates to trust for it."),
    ] = None
    dst_path_style: Annotated[
        bool | None,
        typer.Option(
            "--dst-path-style/--dst-virtual-hosted",
            show_default=False,
            help="Bucket in the path of its URLs, or in the host name.",
        ),
    ] = None

    def settings(self, first: StoreSettings, store: str) -> StoreSettings:
        from regstore.cli.config.current import keys_of, named_store, reached

        named = named_store(store)
        if named is not None:  # it says all itself
            ways = {each: getattr(self, f"dst_{each}") for each in WAYS}
            return placed_store(
                keys_of(named, prefix="dst_"),
                store=named.url,
                registry_config=named.registry_config,
                concurrency=first.concurrency,
                **reached(named, ways, prefix="dst_"),
            )
        first = first.placed()
        return placed_store(
            {} if self.dst_profile else first.keys_to_sign(),
            store=store,
            endpoint_url=self.dst_endpoint_url or first.endpoint_url,
            region=self.dst_region or first.region,
            profile=self.dst_profile or first.profile,
            path_style=first.path_style if self.dst_path_style is None else self.dst_path_style,
            ca_bundle=self.dst_ca_bundle or first.ca_bundle,
            concurrency=first.concurrency,
        )


# -- the registry's descriptor cache


@dataclass(frozen=True, kw_only=True)
class CacheWords:
    """What the registry's descriptor cache is said to be."""

    registry_cache: Annotated[
        str | None,
        typer.Option(
            "--registry-cache",
            metavar="none|inmemory|redis",
            show_default="as --registry-config says, or as was said last, else as inmemory",
            help="The registry's blob descriptor cache. Remembered in the store.",
        ),
    ] = None
    redis_url: Annotated[
        str | None,
        typer.Option(
            "--redis-url",
            metavar="URL",
            show_default=False,
            help="The registry's Redis, such as redis://:password@cache:6379/0.",
        ),
    ] = None

    def of(self, settings: StoreSettings) -> CacheOptions:
        """With what the configuration says of the registry of this store."""
        from regstore.cli.config.current import named_store, of_store

        store = named_store(settings.store) if settings.registry_config is None else None
        return CacheOptions(
            registry_cache=of_store(store, "registry_cache", "registry_cache", self.registry_cache),
            redis_url=of_store(store, "redis_url", "redis_url", self.redis_url),
            config_path=settings.placed().registry_config,
        )


@dataclass(frozen=True, kw_only=True)
class CacheAndProcesses(CacheWords):
    """With the registry's processes, whose memory may hold it."""

    registry_debug_url: Annotated[
        list[str] | None,
        typer.Option(
            "--registry-debug-url",
            metavar="URL",
            show_default=False,
            help="The debug address of each registry process, with its metrics, such as http://registry:5001: when it "
            "was started says what its cache in memory has forgotten.",
        ),
    ] = None

    def of(self, settings: StoreSettings) -> CacheOptions:
        from regstore.cli.config.current import named_store, of_store

        store = named_store(settings.store) if settings.registry_config is None else None
        urls = of_store(store, "registry_debug_url", "registry_debug_url", self.registry_debug_url)
        return replace(super().of(settings), debug_urls=urls or [])
