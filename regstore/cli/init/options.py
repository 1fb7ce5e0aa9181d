"""What `regstore init` is asked, in groups. None: as it was recorded before, or else the default that the help says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from regstore.cli.settings import StoreSettings
from regstore.deployment.wanted import Cache, Form, RegistryVersion, Tls


@dataclass(frozen=True, kw_only=True)
class InitStore(StoreSettings):
    """The store is an option here, for the argument is the deployment's folder."""

    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="STORE",
            show_default=False,
            help="s3://bucket[/rootdirectory], or a folder, for images.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the deployment is to be."""

    host: Annotated[
        str | None,
        typer.Option(metavar="NAME", show_default=False, help="What clients call it: a DNS name or an IP address."),
    ] = None
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", show_default=False, help="One more name or address of it (repeatable)."),
    ] = None
    port: Annotated[int | None, typer.Option(metavar="PORT", show_default="5000", help="Of the registry.")] = None
    debug_port: Annotated[
        int | None,
        typer.Option(metavar="PORT", show_default="5001", help="Of its health and metrics, on loopback only."),
    ] = None
    form: Annotated[
        Form | None, typer.Option("--for", show_default="systemd", help="What is to run it.", case_sensitive=False)
    ] = None
    tls: Annotated[
        Tls | None,
        typer.Option(
            show_default="own-ca",
            case_sensitive=False,
            help="A certificate by an authority of its own, one that is given, or none: something before it ends TLS.",
        ),
    ] = None
    registry: Annotated[
        RegistryVersion | None,
        typer.Option(show_default="v2", case_sensitive=False, help="Distribution 2.8, or 3.x."),
    ] = None
    cache: Annotated[
        Cache | None,
        typer.Option(
            show_default="none",
            case_sensitive=False,
            help="The registry's descriptor cache. Without one gc frees space with no restart.",
        ),
    ] = None
    redis: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            show_default=False,
            help="Of --cache redis. Its password is taken from REGISTRY_REDIS_PASSWORD.",
        ),
    ] = None
    with_serve: Annotated[
        bool | None,
        typer.Option(
            "--with-serve/--without-serve", show_default="without", help="`regstore serve` beside it, to look at."
        ),
    ] = None
    serve_port: Annotated[int | None, typer.Option(metavar="PORT", show_default="5002", help="Of its pages.")] = (
        None
    )
    backup: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET",
            show_default=False,
            help="Where backups go every night: s3://bucket[/path], a folder, or none.",
        ),
    ] = None
    nightly: Annotated[
        str | None, typer.Option(metavar="HH:MM", show_default="02:30", help="When backup, gc and verify run.")
    ] = None
    run_as: Annotated[
        str | None,
        typer.Option(
            metavar="USER", show_default="who runs this", help="The user that it runs as, and that owns DIR."
        ),
    ] = None
    registry_program: Annotated[
        str | None,
        typer.Option(metavar="PATH", show_default="docker-registry", help="The registry's program (systemd)."),
    ] = None
    registry_image: Annotated[
        str | None, typer.Option(metavar="IMAGE", show_default=False, help="The registry's image, in containers.")
    ] = None
    regstore_image: Annotated[
        str | None, typer.Option(metavar="IMAGE", show_default=False, help="regstore's image, in containers.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Secrets that come from elsewhere: never themselves on the command line."""

    user: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", show_default="admin", help="Who may push and pull (repeatable)."),
    ] = None
    password_stdin: Annotated[
        bool,
        typer.Option(
            "--password-stdin", help="Read the password of each named user from standard input, a line each."
        ),
    ] = False
    registry_profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="AWS profile of the registry's own S3 keys, as the policy says.",
        ),
    ] = None
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", show_default=False, help="Of --tls files: the certificate with its chain, PEM."
        ),
    ] = None
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", show_default=False, help="Its key, PEM.")] = None
    tls_ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Whom clients trust it by, if no public authority."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Doing:
    """What to do other than all, and how."""

    renew: Annotated[
        bool, typer.Option("--renew", help="Only make a new server certificate; the authority stays.")
    ] = False
    add_user: Annotated[
        str | None,
        typer.Option(metavar="NAME", show_default=False, help="Only add this user, or give it another password."),
    ] = None
    remove_user: Annotated[
        str | None, typer.Option(metavar="NAME", show_default=False, help="Only take this user away.")
    ] = None
    create: Annotated[bool, typer.Option("--create", help="Make the bucket, or the folders, that are missing.")] = (
        False
    )
    overwrite: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Replace this file of DIR though it was edited by hand (repeatable).",
        ),
    ] = None
