"""Where the bucket is and as whom to speak: settings, completed from the AWS environment and shared config."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from regstore.errors import InputError
from regstore.events import OnEvent, ignore
from regstore.hosts import bracketed
from regstore.storage.base import PutOptions
from regstore.storage.s3.aws_config import AwsConfig
from regstore.storage.s3.retry import RetryPolicy
from regstore.storage.s3.sigv4 import encode_path

DEFAULT_REGION: Final = "us-east-1"
#: Of requests for objects; the first is the usual one.
TRANSPORTS: Final = ("own", "aiohttp")
TRANSPORT_VARIABLE: Final = "REGSTORE_S3_TRANSPORT"
DEFAULT_RETRIES: Final = RetryPolicy()
DEFAULT_PUT: Final = PutOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """How to reach a bucket. None leaves a thing to the AWS environment: variables, profile, instance role.

    root: the keys' common prefix, "" or "a/b" with no slash at either end.
    path_style: the bucket in the path (True) or in the host name; None is path style unless the endpoint is AWS.
    ca_bundle: path of a PEM file to trust instead of the system's. concurrency: requests at a time (streams
    being read not counted). page_size: keys asked for in a LIST, at most 1,000. put: how objects are stored that
    are put without options of their own. transport: `own`, or `aiohttp`, the way out where a server does not get on
    with ours; None is what REGSTORE_S3_TRANSPORT says, and else `own`. Through a proxy it is aiohttp in any case.
    read_only: refuse every request that changes anything. on_event: told of each that is tried again
    (`Retry`), and of a clock that is in doubt (`Notice`).
    """

    bucket: str
    root: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    path_style: bool | None = None
    ca_bundle: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    verify_tls: bool = True
    concurrency: int = 128
    page_size: int = 1000
    retries: RetryPolicy = DEFAULT_RETRIES
    put: PutOptions = DEFAULT_PUT
    transport: str | None = None
    read_only: bool = False
    on_event: OnEvent = field(default=ignore, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.bucket or "/" in self.bucket:
            raise InputError(f"{self.bucket!r} is not a bucket's name")
        if self.root.startswith("/") or self.root.endswith("/"):
            raise InputError(f"the root {self.root!r} must have no slash at either end")
        if bool(self.access_key) != bool(self.secret_key):
            raise InputError("an access key and a secret key go together; give both or neither")
        if self.endpoint_url:
            refuse_secrets(self.endpoint_url)
        if self.transport is not None and self.transport not in TRANSPORTS:
            raise InputError(f"{self.transport!r} is no transport; expected {' or '.join(TRANSPORTS)}")
        if self.concurrency < 1 or not 1 <= self.page_size <= 1000:
            raise InputError("concurrency must be at least 1, and page_size from 1 to 1,000")

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}" + (f"/{self.root}" if self.root else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Settings made definite: the URL of the bucket and the region to sign for."""

    url: str
    bucket: str
    region: str
    path_style: bool
    is_aws: bool
    scheme: str
    #: As the Host header says it: no port where it is the scheme's own.
    host: str
    #: What stands before the encoded key in the path; ends with "/".
    base: str

    @property
    def address(self) -> tuple[str, int]:
        """Where to connect: name or number of the host, and port."""
        parts = urlsplit(f"{self.scheme}://{self.host}")
        return parts.hostname or "", parts.port or {"http": 80, "https": 443}[self.scheme]

    def path(self, key: str) -> str:
        """The encoded path of a key, or of the bucket for ""."""
        try:
            return self.base + encode_path(key) if key else (self.base if not self.path_style else self.base[:-1])
        except UnicodeEncodeError as error:
            raise InputError(f"{key!r} cannot be a key in S3: it is not Unicode text") from error


def refuse_secrets(url: str) -> None:
    """InputError, which does not repeat it, where the URL of an endpoint has a user's name or a password in it: it is
    printed, written into a registry's configuration, and kept in stores."""
    if "@" in url:
        raise InputError(
            "the URL of the S3 endpoint has a user's name or a password in it (what stands before the @), and it is "
            "shown and stored in many places: leave them out, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )


def make_endpoint(settings: S3Settings, config: AwsConfig) -> Endpoint:
    """InputError where the endpoint is no URL."""
    region = settings.region or os.environ.get("AWS_REGION") or config.get_config_variable("region")
    region = region or DEFAULT_REGION
    url = settings.endpoint_url or _configured_endpoint(config)
    if not url:
        suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        url = f"https://s3.{region}.{suffix}"
    refuse_secrets(url)
    shown = url.partition("?")[0]  # what follows may be a signature
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
    except ValueError as error:
        raise InputError(f"{shown!r} is not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InputError(f"{shown!r} is not the URL of an S3 endpoint, such as https://s3.example.org:9000")
    try:
        port = parts.port
    except ValueError as error:
        raise InputError(f"{shown!r} has no valid port") from error
    name = bracketed(parts.hostname)
    is_aws = name.endswith((".amazonaws.com", ".amazonaws.com.cn"))
    # A dot in the bucket's name does not fit the wildcard of AWS' certificate.
    path_style = settings.path_style if settings.path_style is not None else not is_aws or "." in settings.bucket
    host = name if path_style else f"{settings.bucket}.{name}"
    if port is not None and port != {"http": 80, "https": 443}[parts.scheme]:
        host += f":{port}"
    base = parts.path.rstrip("/") + "/" + (encode_path(settings.bucket) + "/" if path_style else "")
    return Endpoint(
        url=url,
        bucket=settings.bucket,
        region=region,
        path_style=path_style,
        is_aws=is_aws,
        scheme=parts.scheme,
        host=host,
        base=base,
    )


def _configured_endpoint(config: AwsConfig) -> str | None:
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return None
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if os.environ.get(name):
            return os.environ[name]
    profile: dict[str, Any] = config.get_scoped_config()
    services = config.full_config.get("services", {}).get(profile.get("services", ""), {})
    service = services.get("s3", {})
    found = (service.get("endpoint_url") if isinstance(service, dict) else None) or profile.get("endpoint_url")
    return str(found) if found else None


def tls_context(settings: S3Settings, config: AwsConfig) -> ssl.SSLContext:
    """What to trust: `ca_bundle`, else AWS_CA_BUNDLE or the profile's ca_bundle, else the system."""
    bundle = settings.ca_bundle or config.get_config_variable("ca_bundle")
    try:
        if not settings.verify_tls:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        if bundle:
            folder = Path(bundle).is_dir()
            return ssl.create_default_context(cafile=None if folder else bundle, capath=bundle if folder else None)
        context = ssl.create_default_context()
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"the CA bundle {bundle} cannot be read: {error}") from error
    paths = ssl.get_default_verify_paths()
    if not paths.cafile and not paths.capath:  # a system without certificates: those that botocore brings
        import botocore

        context.load_verify_locations(cafile=str(Path(botocore.__file__).with_name("cacert.pem")))
    return context


def by_aiohttp(settings: S3Settings) -> bool:
    """Whether requests go by aiohttp, proxy or not. InputError where the environment names no transport."""
    chosen = settings.transport or os.environ.get(TRANSPORT_VARIABLE) or TRANSPORTS[0]
    if chosen not in TRANSPORTS:
        raise InputError(
            f"{TRANSPORT_VARIABLE} is {chosen!r}, which is no transport; expected {' or '.join(TRANSPORTS)}"
        )
    return chosen == "aiohttp"


def proxy_for(endpoint: Endpoint) -> str | None:
    """The proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY ask for."""
    proxy = getproxies().get(endpoint.scheme)
    return None if not proxy or proxy_bypass(endpoint.host) else proxy


def driver_parameters(endpoint: Endpoint, settings: S3Settings, put: PutOptions) -> dict[str, Any]:
    """What a registry's S3 driver is to be told. put: as far as the driver can (a key without an encryption says
    nothing to it). Where no endpoint is named the driver reaches AWS by the region alone."""
    driver: dict[str, Any] = {"region": endpoint.region, "bucket": settings.bucket}
    if settings.root:
        driver["rootdirectory"] = f"/{settings.root}"
    if not endpoint.is_aws:
        driver["regionendpoint"] = endpoint.url
        driver["secure"] = endpoint.url.startswith("https://")
        driver["v4auth"] = True
        if endpoint.path_style:
            # Known from 2.8 on; earlier versions ignore it, and use path style with any regionendpoint.
            driver["forcepathstyle"] = True
    if not settings.verify_tls:
        driver["skipverify"] = True
    if put.sse:
        driver["encrypt"] = True
        if put.sse_kms_key_id:
            driver["keyid"] = put.sse_kms_key_id
    if put.storage_class:
        driver["storageclass"] = put.storage_class
    if put.acl:
        driver["objectacl"] = put.acl
    return driver
