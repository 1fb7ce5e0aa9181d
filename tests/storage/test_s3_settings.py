"""Endpoint, region, trust and credentials: what is asked for, what the environment says, and the rest."""

from __future__ import annotations

import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from regstore.errors import (
    AccessDenied,
    AuthenticationFailed,
    InputError,
    NoSuchBucket,
    NotFound,
    RegstoreError,
    StorageError,
    Unreachable,
)
from regstore.storage.s3 import RetryPolicy, S3Settings, S3Storage, translate
from regstore.storage.s3.aws_config import Variables, open_config, open_session, variable_credentials
from regstore.storage.s3.credentials import CredentialSource
from regstore.storage.s3.settings import make_endpoint, proxy_for
from regstore.storage.s3.sigv4 import Credentials
from tests.servers.certificates import make_certificate

Environment = Callable[..., None]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    def put(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


def url_of(key: str = "a//b", **settings: Any) -> str:
    made = S3Settings(**{"bucket": "bkt", **settings})
    endpoint = make_endpoint(made, open_config(made.profile))
    return f"{endpoint.region} {endpoint.scheme}://{endpoint.host}{endpoint.path(key)}"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "us-east-1 https://bkt.s3.us-east-1.amazonaws.com/a//b"),
        ({"region": "eu-west-1"}, "eu-west-1 https://bkt.s3.eu-west-1.amazonaws.com/a//b"),
        ({"region": "cn-north-1"}, "cn-north-1 https://bkt.s3.cn-north-1.amazonaws.com.cn/a//b"),
        ({"bucket": "b.k"}, "us-east-1 https://s3.us-east-1.amazonaws.com/b.k/a//b"),
        ({"path_style": True}, "us-east-1 https://s3.us-east-1.amazonaws.com/bkt/a//b"),
        ({"endpoint_url": "http://host:9000"}, "us-east-1 http://host:9000/bkt/a//b"),
        ({"endpoint_url": "https://host:443/"}, "us-east-1 https://host/bkt/a//b"),
        ({"endpoint_url": "http://host/s3/"}, "us-east-1 http://host/s3/bkt/a//b"),
        ({"endpoint_url": "host:9000"}, "us-east-1 https://host:9000/bkt/a//b"),
        ({"endpoint_url": "http://[::1]:80"}, "us-east-1 http://[::1]/bkt/a//b"),
        ({"endpoint_url": "http://host", "path_style": False}, "us-east-1 http://bkt.host/a//b"),
        (
            {"endpoint_url": "https://s3.eu-west-1.amazonaws.com", "region": "eu-west-1"},
            "eu-west-1 https://bkt.s3.eu-west-1.amazonaws.com/a//b",
        ),
    ],
)
def test_endpoints(settings: dict[str, Any], expected: str) -> None:
    assert url_of(**settings) == expected


def test_the_bucket_itself() -> None:
    assert url_of("") == "us-east-1 https://bkt.s3.us-east-1.amazonaws.com/"
    assert url_of("", endpoint_url="http://host") == "us-east-1 http://host/bkt"


def test_the_environment_completes(environment: Environment) -> None:
    environment(AWS_DEFAULT_REGION="eu-west-2", AWS_ENDPOINT_URL="http://general")
    assert url_of() == "eu-west-2 http://general/bkt/a//b"
    environment(AWS_REGION="eu-west-3", AWS_ENDPOINT_URL_S3="http://special")
    assert url_of() == "eu-west-3 http://special/bkt/a//b"
    assert url_of(endpoint_url="http://asked", region="r") == "r http://asked/bkt/a//b"
    environment(AWS_IGNORE_CONFIGURED_ENDPOINT_URLS="true")
    assert url_of() == "eu-west-3 https://bkt.s3.eu-west-3.amazonaws.com/a//b"


def test_a_profile_completes(environment: Environment, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "[profile one]\nregion = eu-north-1\nendpoint_url = http://one\n"
        "[profile two]\nservices = special\n[services special]\ns3 =\n  endpoint_url = http://two\n"
    )
    environment(AWS_CONFIG_FILE=str(config))
    assert url_of(profile="one") == "eu-north-1 http://one/bkt/a//b"
    assert url_of(profile="two") == "us-east-1 http://two/bkt/a//b"
    environment(AWS_PROFILE="one")
    assert url_of() == "eu-north-1 http://one/bkt/a//b"
    with pytest.raises(InputError, match="no profile 'three'"):
        url_of(profile="three")


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://host:port", "http://host?x"])
def test_what_is_no_endpoint(url: str) -> None:
    with pytest.raises(InputError):
        url_of(endpoint_url=url)


@pytest.mark.parametrize(
    "url",
    [
        "http://me:hush@host",
        "http://me:hu/sh@host:9000",
        "https://hush@host/base",
        "me:hush@host",
        "http://me:hush@[::1",
    ],
)
def test_a_password_in_the_endpoint_is_refused_and_not_repeated(environment: Environment, url: str) -> None:
    with pytest.raises(InputError, match="AWS_SECRET_ACCESS_KEY") as caught:
        S3Settings(bucket="b", endpoint_url=url)
    assert "hush" not in str(caught.value) and "sh@" not in str(caught.value)
    environment(AWS_ENDPOINT_URL=url)
    with pytest.raises(InputError, match="AWS_SECRET_ACCESS_KEY") as caught:
        url_of()
    assert "hush" not in str(caught.value) and "sh@" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://host?X-Amz-Signature=hush", "http://[bad?hush", "http://host:port?hush"])
def test_what_may_be_a_signature_is_not_repeated(url: str) -> None:
    with pytest.raises(InputError) as caught:
        url_of(endpoint_url=url)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [{"bucket": ""}, {"bucket": "a/b"}, {"root": "/a"}, {"root": "a/"}, {"access_key": "a"}, {"concurrency": 0}],
)
def test_what_are_no_settings(settings: dict[str, object]) -> None:
    with pytest.raises(InputError):
        S3Settings(**{"bucket": "b", **settings})  # type: ignore[arg-type]


def test_secrets_are_not_shown() -> None:
    settings = S3Settings(bucket="b", access_key="visible-not", secret_key="hidden", session_token="hidden")
    assert "hidden" not in repr(settings) and "visible-not" not in repr(settings)
    assert S3Storage(settings).url == "s3://b"


def test_proxies(environment: Environment) -> None:
    settings = S3Settings(bucket="b", endpoint_url="http://s3.example.org")
    endpoint = make_endpoint(settings, open_config(settings.profile))
    assert proxy_for(endpoint) is None
    environment(http_proxy="http://proxy:3128")
    assert proxy_for(endpoint) == "http://proxy:3128"
    environment(no_proxy="example.org")
    assert proxy_for(endpoint) is None


async def test_credentials_of_the_environment(environment: Environment) -> None:
    environment(AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="s", AWS_SESSION_TOKEN="t")
    settings = S3Settings(bucket="b")
    assert await CredentialSource(settings, open_config(settings.profile)).get() == Credentials("a", "s", "t")
    explicit = S3Settings(bucket="b", access_key="x", secret_key="y")
    assert await CredentialSource(explicit, open_config(explicit.profile)).get() == Credentials("x", "y", None)


OF_VARIABLES: list[dict[str, str]] = [
    {},
    {"AWS_DEFAULT_REGION": "eu-west-2", "AWS_CA_BUNDLE": "/bundle.pem"},
    {"AWS_DEFAULT_REGION": "", "AWS_CA_BUNDLE": ""},
    {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"},
    {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SECURITY_TOKEN": "t", "AWS_SESSION_TOKEN": "u"},
    {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SECURITY_TOKEN": "", "AWS_SESSION_TOKEN": "u"},
]


@pytest.mark.parametrize("variables", OF_VARIABLES)
def test_without_botocore_variables_say_what_they_say_to_it(
    environment: Environment, variables: dict[str, str]
) -> None:
    environment(**variables)
    light, full = open_config(None), open_session(None)
    assert type(light) is Variables
    assert light.get_scoped_config() == full.get_scoped_config()
    assert light.full_config == full.full_config
    for name in ("region", "ca_bundle"):
        assert light.get_config_variable(name) == full.get_config_variable(name)
    found = variable_credentials(None)
    if "AWS_ACCESS_KEY_ID" in variables:
        known = full.get_credentials().get_frozen_credentials()
        assert found == Credentials(known.access_key, known.secret_key, known.token)
    else:
        assert found is None


@pytest.mark.parametrize(
    "variables",
    [
        {"AWS_PROFILE": "one"},
        {"AWS_DEFAULT_PROFILE": "one"},
        {"AWS_CONFIG_FILE": "{file}"},
        {"AWS_SHARED_CREDENTIALS_FILE": "{file}"},
        {"AWS_CONFIG_FILE": "$FOLDER/config"},
        {"AWS_CONFIG_FILE": "~/config", "HOME": "{folder}"},
    ],
)
def test_botocore_reads_what_is_more_than_variables(
    environment: Environment, tmp_path: Path, variables: dict[str, str]
) -> None:
    file = tmp_path / "config"
    file.write_text("[default]\nregion = eu-north-1\n")
    environment(FOLDER=str(tmp_path), AWS_DEFAULT_REGION="other")
    environment(**{name: value.format(file=file, folder=tmp_path) for name, value in variables.items()})
    if "one" in variables.values():
        with pytest.raises(InputError, match="no profile 'one'"):
            open_config(None)
    else:
        assert open_config(None).get_scoped_config() == {"region": "eu-north-1"}
    with pytest.raises(InputError, match="no profile 'two'"):
        open_config("two")


def test_credentials_of_variables_that_botocore_must_look_at(environment: Environment) -> None:
    environment(AWS_ACCESS_KEY_ID="a")
    assert variable_credentials(None) is None, "half of them"
    environment(AWS_SECRET_ACCESS_KEY="s")
    assert variable_credentials(None) is not None
    assert variable_credentials("one") is None, "a profile comes before them"
    environment(AWS_CREDENTIAL_EXPIRATION="2026-01-01T00:00:00Z")
    assert variable_credentials(None) is None, "they end"


@pytest.mark.long
def test_where_variables_say_it_all_botocore_is_not_loaded(environment: Environment) -> None:
    environment(AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="s", AWS_REGION="r")
    script = (
        "import asyncio, sys\nfrom regstore.storage.s3 import S3Settings, S3Storage\n"
        "async def main():\n    async with S3Storage(S3Settings(bucket='b')) as storage:\n"
        "        return await storage._client.credentials.get()\n"
        "print(asyncio.run(main()).access_key, *({'botocore', 'boto3'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "a\n"


def certificate(folder: Path) -> Path:
    """Certificate and key in one file."""
    pem = folder / "server.pem"
    pem.write_bytes(b"".join(part.read_bytes() for part in make_certificate(folder)))
    return pem


async def test_trust(environment: Environment, tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)

    async def hello(request: web.Request) -> web.Response:
        return web.Response(body=b"hello")

    app = web.Application()
    app.router.add_get("/b/key", hello)
    server = TestServer(app, scheme="https", host="127.0.0.1")
    await server.start_server(ssl=context, access_log=None)
    common = {
        "bucket": "b",
        "endpoint_url": f"https://127.0.0.1:{server.port}",
        "access_key": "a",
        "secret_key": "s",
        "retries": RetryPolicy(base=0),
    }
    try:
        async with S3Storage(S3Settings(**common)) as storage:  # type: ignore[arg-type]
            with pytest.raises(Unreachable, match="certificate"):
                await storage.get("key")
            assert storage.counters.requests == {"GetObject": 1}, "not retried"
        for more in ({"ca_bundle": str(pem)}, {"verify_tls": False}):
            async with S3Storage(S3Settings(**common, **more)) as storage:  # type: ignore[arg-type]
                assert await storage.get("key") == b"hello"
        environment(AWS_CA_BUNDLE=str(pem))
        async with S3Storage(S3Settings(**common)) as storage:  # type: ignore[arg-type]
            assert await storage.get("key") == b"hello"
        async with S3Storage(S3Settings(**common, ca_bundle=str(tmp_path / "none"))) as storage:  # type: ignore[arg-type]
            with pytest.raises(InputError, match="CA bundle"):
                await storage.get("key")
    finally:
        await server.close()


def client_error(status: int, code: str, operation: str = "GetObject", **headers: str) -> Exception:
    answer = {
        "Error": {"Code": code, "Message": "m"},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
    }
    error: Exception = botocore.exceptions.ClientError(answer, operation)
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (client_error(404, "NoSuchBucket"), NoSuchBucket),
        (client_error(404, "404", "HeadBucket"), NoSuchBucket),
        (client_error(404, "404", "HeadObject"), NotFound),
        (client_error(403, "403", "HeadBucket"), AccessDenied),
        (client_error(403, "AccessDenied"), AccessDenied),
        (client_error(403, "SignatureDoesNotMatch"), AuthenticationFailed),
        (client_error(301, "301", "HeadBucket"), StorageError),
        (client_error(503, "SlowDown"), Unreachable),
        (client_error(418, "Teapot"), StorageError),
        (botocore.exceptions.NoCredentialsError(), AuthenticationFailed),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="http://e"), Unreachable),
        (botocore.exceptions.ConnectTimeoutError(endpoint_url="http://e"), Unreachable),
        (botocore.exceptions.SSLError(endpoint_url="http://e", error="bad"), Unreachable),
        (ConnectionResetError("reset"), Unreachable),
        (TimeoutError(), Unreachable),
        (NotFound("k"), NotFound),
        (ValueError("odd"), StorageError),
    ],
)
def test_translate(error: Exception, expected: type[RegstoreError]) -> None:
    found = translate(error, "HeadBucket", bucket="bkt", endpoint="http://e")
    assert type(found) is expected
    assert "\n" not in str(found)


def test_translations_name_what_is_wrong() -> None:
    missing = translate(client_error(404, "NoSuchBucket"), "x", bucket="bkt", endpoint="http://e")
    assert str(missing) == "there is no bucket bkt at http://e"
    region = client_error(301, "301", "HeadBucket", **{"x-amz-bucket-region": "eu-west-1"})
    assert "eu-west-1" in str(translate(region, "HeadBucket", bucket="bkt"))
    assert "--region" in str(translate(region, "HeadBucket", bucket="bkt"))
