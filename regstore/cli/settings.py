"""The store that a command works on: STORE and the options beside it, the same for every command."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from regstore.cli.config.complete import store_names
from regstore.cli.voice import voice
from regstore.errors import InputError

if TYPE_CHECKING:
    from regstore.storage.base import Storage
    from regstore.storage.location import S3Location
    from regstore.storage.opening import OpenOptions
    from regstore.storage.registry_config import RegistryConfig


#: How a store is reached.
WAYS: Final = ("endpoint_url", "region", "profile", "path_style", "ca_bundle")


@dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """What the command line said about the store. The first group of every command on a store."""

    store: Annotated[
        str | None,
        typer.Argument(
            metavar="STORE",
            show_default=False,
            autocompletion=store_names,
            help="s3://bucket[/rootdirectory], a folder, file:///folder, or a name in regstore.toml; not with "
            "--registry-config.",
        ),
    ] = None
    registry_config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="The registry's own config.yml says the store (REGISTRY_STORAGE_* override it).",
        ),
    ] = None
    endpoint_url: Annotated[
        str | None,
        typer.Option(metavar="URL", show_default=False, help="S3 server, where it is not AWS (AWS_ENDPOINT_URL)."),
    ] = None
    region: Annotated[
        str | None, typer.Option(metavar="NAME", show_default=False, help="S3 region (AWS_REGION).")
    ] = None
    profile: Annotated[
        str | None,
        typer.Option(metavar="NAME", show_default=False, help="Profile of the AWS configuration (AWS_PROFILE)."),
    ] = None
    path_style: Annotated[
        bool | None,
        typer.Option(
            "--path-style/--virtual-hosted",
            show_default=False,
            help="Bucket in the path of the URL, or in its host name. Default: path with an endpoint, host on AWS.",
        ),
    ] = None
    ca_bundle: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Certificates to trust (AWS_CA_BUNDLE)."),
    ] = None
    concurrency: Annotated[int, typer.Option(metavar="N", min=1, max=1024, help="Requests under way at once.")] = (
        128
    )

    def placed(self) -> StoreSettings:
        """With all that the configuration says of the store, where STORE is a name there."""
        from regstore.cli.config.current import keys_of, named_store, reached

        store = named_store(self.store) if self.registry_config is None else None
        if store is None:
            return self
        ways = {each: getattr(self, each) for each in WAYS}
        own = {each.name: getattr(self, each.name) for each in fields(StoreSettings)} | reached(store, ways)
        own |= {"store": store.url, "registry_config": store.registry_config}
        return placed_store(keys_of(store), **own)

    def open(self, *, read_only: bool = False) -> Storage:
        """The storage. Use it as an async context manager. read_only: for a command that only looks."""
        return self.open_with_config(read_only=read_only)[0]

    def open_with_config(self, *, read_only: bool = False) -> tuple[Storage, RegistryConfig | None]:
        """The storage, and the registry's configuration where --registry-config named it, or the store's section."""
        return self.placed()._open(read_only=read_only)

    def open_bucket(self, location: S3Location) -> Storage:
        """Another bucket, to look at, reached as the store is."""
        from regstore.storage.backends import open_location
        from regstore.storage.opening import read_registry_config

        said = self.placed()
        options = said._options(read_only=True)
        if said.registry_config is None:
            return open_location(location, options)
        config = read_registry_config(said.registry_config, dict(os.environ))
        return open_location(location, options, config.s3)

    def _options(self, *, read_only: bool) -> OpenOptions:
        from regstore.cli.progress import retries
        from regstore.storage.opening import OpenOptions

        return OpenOptions(
            endpoint_url=self.endpoint_url,
            region=self.region,
            profile=self.profile,
            path_style=self.path_style,
            ca_bundle=self.ca_bundle,
            concurrency=self.concurrency,
            read_only=read_only,
            on_event=retries(),
            **self.keys_to_sign(),
        )

    def _open(self, *, read_only: bool) -> tuple[Storage, RegistryConfig | None]:
        from regstore.storage.opening import open_registry_config, open_storage

        options = self._options(read_only=read_only)
        if self.registry_config is not None:
            if self.store is not None:
                raise InputError(f"two stores: {self.store} and that of --registry-config; give one of them")
            storage, config = open_registry_config(self.registry_config, dict(os.environ), options)
            voice().opens(storage.url)
            return storage, config
        if self.store is None:
            raise InputError(
                "no store: give s3://bucket[/rootdirectory] or a folder, or the registry's own --registry-config"
            )
        storage = open_storage(self.store, options)
        voice().opens(storage.url)
        return storage, None

    def keys_to_sign(self) -> Mapping[str, Any]:
        """As OpenOptions has them; nothing where the AWS environment, a profile or a configuration says them."""
        return {}

    def shifted_all(self, arguments: list[str] | None) -> tuple[StoreSettings, list[str]]:
        """For a command `STORE ARGUMENT...`: with --registry-config the first is an argument, too."""
        if self.registry_config is not None and self.store is not None:
            return replace(self, store=None), [self.store, *(arguments or [])]
        return self, arguments or []

    def shifted(self, argument: str | None, *, name: bool = False) -> tuple[StoreSettings, str | None]:
        """For a command `STORE ARGUMENT`: with --registry-config the only argument given is the second. name: where
        that is of a repository, and what can only be a store is one."""
        from regstore.cli.config.current import named_store

        word = self.store
        if self.registry_config is not None and argument is None and word is not None:
            if name and (word.startswith(("/", ".", "@")) or "://" in word or named_store(word) is not None):
                return self, None
            return replace(self, store=None), word
        return self, argument


@dataclass(frozen=True, kw_only=True)
class PlacedStore(StoreSettings):
    """With the keys that the configuration has for the store: no option says them."""

    keys: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def keys_to_sign(self) -> Mapping[str, Any]:
        return self.keys


def placed_store(keys: Mapping[str, Any], **said: Any) -> StoreSettings:
    """Of the fields of StoreSettings, and of keys where there are any."""
    return PlacedStore(keys=keys, **said) if keys else StoreSettings(**said)
