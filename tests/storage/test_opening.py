"""Locations, a registry's own configuration with its overrides, and the storages that they open."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from regstore.errors import InputError
from regstore.seed.configuration import registry_configuration
from regstore.storage import (
    DiskLocation,
    OpenOptions,
    PutOptions,
    S3Location,
    Storage,
    open_registry_config,
    open_storage,
    parse_location,
    read_registry_config,
)
from regstore.storage.disk import DiskStorage
from regstore.storage.registry_config import RedisSettings, parse_registry_config
from regstore.storage.s3 import S3Settings, S3Storage


def settings_of(storage: Storage) -> S3Settings:
    assert isinstance(storage, S3Storage)
    return storage.settings


# -- locations


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("s3://bucket", S3Location("bucket")),
        ("s3://bucket/", S3Location("bucket")),
        ("S3://bucket//", S3Location("bucket")),
        ("s3://bucket/reg", S3Location("bucket", "reg")),
        ("s3://bucket//reg//", S3Location("bucket", "reg")),
        ("s3://bucket/a/b", S3Location("bucket", "a/b")),
        ("s3://bucket/a//b", S3Location("bucket", "a//b")),
        ("s3://bucket/a%20b?c#d", S3Location("bucket", "a%20b?c#d")),
        ("s3://My_Bucket.x-1/r", S3Location("My_Bucket.x-1", "r")),
        ("/var/lib/registry", DiskLocation(Path("/var/lib/registry"))),
        ("relative/folder", DiskLocation(Path("relative/folder"))),
        (".", DiskLocation(Path())),
        ("a:b", DiskLocation(Path("a:b"))),
        ("./s3:/x", DiskLocation(Path("s3:/x"))),
        ("file:///var/lib/a%20b", DiskLocation(Path("/var/lib/a b"))),
        ("file://localhost/srv", DiskLocation(Path("/srv"))),
        ("file:/srv", DiskLocation(Path("/srv"))),
    ],
)
def test_locations(text: str, location: DiskLocation | S3Location) -> None:
    assert parse_location(text) == location


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no store is named"),
        ("  ", "no store is named"),
        ("s3:bucket", "expected s3://bucket"),
        ("s3:/bucket", "expected s3://bucket"),
        ("s3://", "names no bucket"),
        ("s3:///root", "names no bucket"),
        ("s3://a", "not a bucket's name"),
        ("s3://buc ket/x", "not a bucket's name"),
        ("s3://key:secret@bucket/x", "credentials do not belong"),
        ("gs://bucket", "expected s3://bucket"),
        ("https://bucket.s3.amazonaws.com/", "expected s3://bucket"),
        ("docker://localhost:5000/a", "expected s3://bucket"),
        ("file://host/srv", "three slashes"),
        ("file:srv", "file:///folder"),
        ("file://", "names no folder"),
        ("a\0b", "NUL"),
    ],
)
def test_what_is_no_location_is_told_what_is(text: str, why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        parse_location(text)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=20), st.sampled_from(["", "s3:", "s3://", "s3://b/", "file:", "file://", "file:///", "/"]))
def test_any_text_is_a_location_or_an_input_error(text: str, before: str) -> None:
    try:
        location = parse_location(before + text)
    except InputError:
        return
    assert parse_location(str(location)) == location or isinstance(location, DiskLocation)


# -- opening


async def test_a_path_opens_a_disk(tmp_path: Path) -> None:
    for place in (str(tmp_path), tmp_path, f"file://{tmp_path}"):
        async with open_storage(place) as storage:
            assert isinstance(storage, DiskStorage)
            assert storage.url == str(tmp_path)
            await storage.put("a", b"x")
    async with open_storage(Path("s3://looks/like/one")) as storage:
        assert isinstance(storage, DiskStorage), "a Path is a path"
    async with open_storage(tmp_path / "new", OpenOptions(create=True)) as storage:
        await storage.put("a", b"x")
    assert (tmp_path / "new" / "a").read_bytes() == b"x"


async def test_a_url_opens_s3_with_the_options_given(tmp_path: Path) -> None:
    options = OpenOptions(
        endpoint_url="http://127.0.0.1:1",
        region="eu-central-1",
        profile="work",
        path_style=False,
        ca_bundle=tmp_path / "ca.pem",
        concurrency=7,
    )
    async with open_storage("s3://bucket/reg/", options) as storage:
        assert storage.url == "s3://bucket/reg"
        assert settings_of(storage) == S3Settings(
            bucket="bucket",
            root="reg",
            endpoint_url="http://127.0.0.1:1",
            region="eu-central-1",
            profile="work",
            path_style=False,
            ca_bundle=str(tmp_path / "ca.pem"),
            concurrency=7,
        )
    async with open_storage("s3://bucket") as storage:
        assert settings_of(storage) == S3Settings(bucket="bucket")
    with pytest.raises(InputError, match="concurrency"):
        OpenOptions(concurrency=0)


@pytest.mark.long
def test_speaking_of_a_storage_imports_nothing_heavy() -> None:
    script = (
        "import sys, regstore.storage, regstore.storage.opening\n"
        "regstore.storage.open_storage\n"
        "heavy = {'boto3', 'botocore', 'aiohttp', 'aioboto3', 'obstore', 'duckdb', 'lxml', 'arro3'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# -- a registry's configuration

S3: dict[str, Any] = {"bucket": "bucket", "region": "us-east-1"}


def parse(config: Any, **environ: str) -> Any:
    text = config if isinstance(config, str) else yaml.safe_dump(config)
    return parse_registry_config(text, environ, where="config.yml")


def test_an_s3_configuration() -> None:
    config = parse(
        {
            "version": 0.1,
            "storage": {
                "s3": {
                    "accesskey": "AKIA",
                    "secretkey": "SECRET",
                    "sessiontoken": "TOKEN",
                    "region": "eu-west-1",
                    "regionendpoint": "minio:9000",
                    "secure": False,
                    "skipverify": True,
                    "v4auth": True,
                    "forcepathstyle": True,
                    "bucket": "bucket",
                    "rootdirectory": "/reg/istry/",
                    "encrypt": True,
                    "keyid": "arn:aws:kms:x",
                    "storageclass": "standard_ia",
                    "objectacl": "bucket-owner-full-control",
                    "chunksize": 5242880,
                },
                "delete": {"enabled": True},
                "maintenance": {"uploadpurging": {"enabled": False}, "readonly": {"enabled": True}},
                "cache": {"blobdescriptor": "redis"},
                "redirect": {"disable": True},
            },
            "redis": {"addr": "localhost:6379", "password": "PASSWORD", "db": 3},
            "proxy": {"remoteurl": "https://registry-1.docker.io"},
        }
    )
    assert (config.kind, config.version, config.location) == ("s3", "0.1", S3Location("bucket", "reg/istry"))
    assert config.s3.endpoint_url == "http://minio:9000"
    assert (config.s3.region, config.s3.path_style, config.s3.verify_tls) == ("eu-west-1", True, False)
    assert (config.s3.access_key, config.s3.secret_key, config.s3.session_token) == ("AKIA", "SECRET", "TOKEN")
    assert config.put == PutOptions(
        storage_class="STANDARD_IA", sse="aws:kms", sse_kms_key_id="arn:aws:kms:x", acl="bucket-owner-full-control"
    )
    assert (config.read_only, config.delete_enabled, config.cache) == (True, True, "redis")
    assert config.proxy_remote_url == "https://registry-1.docker.io"
    assert config.redis == RedisSettings(addrs=("localhost:6379",), password="PASSWORD", db=3)
    for secret in ("AKIA", "SECRET", "TOKEN", "PASSWORD"):
        assert secret not in repr(config)


def test_the_least_that_a_configuration_can_say() -> None:
    config = parse({"storage": {"filesystem": None}})
    assert (config.kind, config.location) == ("filesystem", DiskLocation(Path("/var/lib/registry")))
    assert (config.s3, config.redis, config.proxy_remote_url) == (None, None, None)
    assert (config.read_only, config.delete_enabled, config.cache, config.put) == (
        False,
        False,
        "none",
        PutOptions(),
    )
    assert parse("storage: filesystem").location == DiskLocation(Path("/var/lib/registry"))
    config = parse({"storage": {"s3": S3}})
    assert (config.location, config.s3.path_style, config.s3.access_key) == (S3Location("bucket"), None, None)


@pytest.mark.parametrize(
    ("endpoint", "secure", "url"),
    [
        ("minio:9000", None, "https://minio:9000"),
        ("minio:9000", True, "https://minio:9000"),
        ("minio:9000", "false", "http://minio:9000"),
        ("http://minio:9000", True, "http://minio:9000"),
        ("https://minio", False, "https://minio"),
        ("", False, None),
    ],
)
def test_endpoints(endpoint: str, secure: Any, url: str | None) -> None:
    assert parse({"storage": {"s3": {**S3, "regionendpoint": endpoint, "secure": secure}}}).s3.endpoint_url == url


@pytest.mark.parametrize(
    ("parameters", "put"),
    [
        ({"storageclass": "NONE"}, PutOptions()),
        ({"encrypt": True}, PutOptions(sse="AES256")),
        ({"encrypt": "true", "keyid": "k"}, PutOptions(sse="aws:kms", sse_kms_key_id="k")),
        ({"keyid": "k"}, PutOptions()),
    ],
)
def test_how_the_registry_stores_objects(parameters: dict[str, Any], put: PutOptions) -> None:
    assert parse({"storage": {"s3": {**S3, **parameters}}}).put == put


def test_the_configuration_that_we_write_says_how_objects_are_stored() -> None:
    put = PutOptions(
        storage_class="STANDARD_IA", sse="aws:kms", sse_kms_key_id="k", acl="bucket-owner-full-control"
    )
    written = registry_configuration(S3Storage(S3Settings(bucket="bucket", region="us-east-1", put=put)))
    assert parse(written).put == put


def test_what_is_ours_is_stored_as_the_registry_stores(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(yaml.safe_dump({"storage": {"s3": {**S3, "encrypt": True}}}))
    storage, config = open_registry_config(path, {})
    assert isinstance(storage, S3Storage)
    assert storage.put_options == config.put == PutOptions(sse="AES256")


@pytest.mark.parametrize(
    ("cache", "name"),
    [
        ({"blobdescriptor": "inmemory"}, "inmemory"),
        ({"layerinfo": "redis"}, "redis"),
        ({"blobdescriptor": "inmemory", "layerinfo": "redis"}, "inmemory"),
        ({"blobdescriptor": "memcached"}, "unknown"),
        ({"blobdescriptor": ""}, "none"),
        ({"blobdescriptorsize": 10000}, "none"),
        (None, "none"),
    ],
)
def test_caches(cache: Any, name: str) -> None:
    assert parse({"storage": {"s3": S3, "cache": cache}}).cache == name


def test_redis_of_3_x() -> None:
    redis = {
        "addrs": ["a:1", "b:2"],
        "username": "u",
        "password": 12,
        "db": "4",
        "mastername": "m",
        "tls": {"key": "k"},
    }
    assert parse({"storage": {"s3": S3}, "redis": redis}).redis == RedisSettings(
        addrs=("a:1", "b:2"), username="u", password="12", db=4, master_name="m", tls=True
    )


# -- overrides


@pytest.mark.parametrize("driver", ["s3_v2", "s3_v1", "s3"])
@pytest.mark.parametrize("path_style", [True, False])
def test_the_drivers_of_gitlab(driver: str, path_style: bool) -> None:
    """Its issue 523095: the driver of another AWS SDK has another name, and other words for the same bucket."""
    text = f"""
storage:
  {driver}:
    bucket: registry
    region: eu-west-1
    regionendpoint: http://minio:9000
    pathstyle: {str(path_style).lower()}
    checksum_disabled: true
    loglevel: logdebug
"""
    config = parse_registry_config(text)
    assert (config.kind, config.location) == ("s3", S3Location("registry"))
    assert config.s3 is not None
    assert (config.s3.endpoint_url, config.s3.path_style) == ("http://minio:9000", path_style)


@pytest.mark.parametrize(
    ("section", "environ", "database"),
    [
        ("", {}, ""),
        ("database: {enabled: true}", {}, "true"),
        ("database: {enabled: 'true'}", {}, "true"),
        ("database: {enabled: prefer}", {}, "prefer"),
        ("Database: {Enabled: PREFER}", {}, "prefer"),
        ("database: {enabled: false, host: db}", {}, ""),
        ("", {"REGISTRY_DATABASE_ENABLED": "true"}, "true"),
        ("", {"REGISTRY_DATABASE_ENABLED": "prefer"}, "prefer"),
        ("database: {enabled: true}", {"REGISTRY_DATABASE_ENABLED": "false"}, ""),
        ("database: {enabled: true}", {"REGISTRY_DATABASE_PASSWORD": "@no: {yaml"}, "true"),
    ],
)
def test_a_metadata_database_is_known(section: str, environ: dict[str, str], database: str) -> None:
    assert parse_registry_config(f"storage: filesystem\n{section}", environ).database == database


def test_a_word_for_the_database_that_is_not_known_is_no_guess() -> None:
    with pytest.raises(InputError, match="database: enabled must be true or false"):
        parse_registry_config("storage: filesystem\ndatabase: {enabled: perhaps}")


@pytest.mark.parametrize(
    ("section", "whose"),
    [
        ("middleware: {registry: [{name: openshift}], repository: [{name: openshift}]}", "OpenShift"),
        ("middleware: {storage: [{name: openshift}]}", "OpenShift"),
        ("auth: {openshift: {realm: openshift}}", "OpenShift"),
        ("auth: {openshift: }", "OpenShift"),
        ("auth: {htpasswd: {realm: harbor-registry-basic-realm, path: /etc/registry/passwd}}", "Harbor"),
        ("auth: {token: {issuer: harbor-token-issuer, realm: 'https://h/service/token'}}", "Harbor"),
        ("notifications: {endpoints: [{name: harbor, url: 'http://core:8080/service/notifications'}]}", "Harbor"),
        ("auth: {htpasswd: {realm: basic-realm, path: /auth}}", ""),
        ("middleware: {storage: [{name: cloudfront}]}\nnotifications: {endpoints: [{name: listener}]}", ""),
        ("middleware: odd\nauth: [odd]\nnotifications: {endpoints: odd}", ""),
    ],
)
def test_who_keeps_tags_elsewhere_is_known(section: str, whose: str) -> None:
    assert parse_registry_config(f"storage: filesystem\n{section}").tags_in == whose


def test_an_override_replaces_one_setting() -> None:
    config = parse(
        {"storage": {"s3": {**S3, "rootdirectory": "/old"}, "cache": {"blobdescriptor": "inmemory"}}},
        REGISTRY_STORAGE_S3_BUCKET="other",
        REGISTRY_STORAGE_S3_ROOTDIRECTORY="/new",
        REGISTRY_STORAGE_S3_REGIONENDPOINT="http://ceph",
        REGISTRY_STORAGE_S3_FORCEPATHSTYLE="false",
        REGISTRY_STORAGE_CACHE_BLOBDESCRIPTOR="redis",
        REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED="true",
        REGISTRY_STORAGE_DELETE_ENABLED="true",
        REGISTRY_REDIS_ADDR="redis:6379",
        REGISTRY_PROXY_REMOTEURL="https://up",
        REGISTRY_HTTP_ADDR=":5000",
        REGISTRY_LOG_LEVEL="[not yaml",
        OTHER_STORAGE_S3_BUCKET="no",
    )
    assert config.location == S3Location("other", "new")
    assert (config.s3.endpoint_url, config.s3.path_style, config.s3.region) == ("http://ceph", False, "us-east-1")
    assert (config.cache, config.read_only, config.delete_enabled) == ("redis", True, True)
    assert config.redis.addrs == ("redis:6379",)
    assert config.proxy_remote_url == "https://up"


def test_another_driver_replaces_the_storage_section() -> None:
    file = {"storage": {"filesystem": {"rootdirectory": "/data"}, "cache": {"blobdescriptor": "inmemory"}}}
    config = parse(file, REGISTRY_STORAGE="s3", REGISTRY_STORAGE_S3_BUCKET="bucket")
    assert (config.location, config.cache) == (S3Location("bucket"), "none")
    config = parse(file, REGISTRY_STORAGE="{s3: {bucket: bucket}}")
    assert config.location == S3Location("bucket")
    with pytest.raises(InputError, match=r"several drivers \(filesystem, s3\).*REGISTRY_STORAGE=NAME"):
        parse(file, REGISTRY_STORAGE_S3_BUCKET="bucket")
    assert parse(file, REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY="/new").location == DiskLocation(Path("/new"))
    assert parse("storage: filesystem", REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY="/x").location == DiskLocation(
        Path("/x")
    )
    assert parse("version: 0.1", REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY="/x").kind == "filesystem"


def test_overrides_of_lists() -> None:
    file = {"storage": {"s3": S3}, "redis": {"addrs": ["a:1", "b:2"]}}
    assert parse(file, REGISTRY_REDIS_ADDRS="[c:3]").redis.addrs == ("c:3",)
    assert parse(file, REGISTRY_REDIS_ADDRS_1="c:3").redis.addrs == ("a:1", "c:3")
    assert parse(file, REGISTRY_REDIS_ADDRS_2="c:3").redis.addrs == ("a:1", "b:2", "c:3")
    assert parse({"storage": {"s3": S3}}, REGISTRY_REDIS_ADDRS_0="c:3").redis.addrs == ("c:3",)
    with pytest.raises(InputError, match="REGISTRY_REDIS_ADDRS_9"):
        parse(file, REGISTRY_REDIS_ADDRS_9="c:3")


def test_keys_in_any_case() -> None:
    text = "Storage:\n  S3:\n    Bucket: bucket\n    RootDirectory: /reg\n"
    assert parse(text).location == S3Location("bucket", "reg")
    assert parse(text, REGISTRY_STORAGE_S3_BUCKET="other").location == S3Location("other", "reg")


# -- what cannot be used


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("storage: {s3: {bucket: b", "not valid YAML at line"),
        ("a: b: c", "not valid YAML at line 1"),
        ("\0", "not valid YAML"),
        ("storage: 2026-99-99", "not valid YAML"),
        ("[" * 1100, "not valid YAML"),
        ("", "YAML with a storage section is expected"),
        ("- storage", "YAML with a storage section is expected"),
        ("just words", "YAML with a storage section is expected"),
        ("version: 0.1", "no storage section"),
        ("storage:", "no storage section"),
        ("storage: [s3]", "no storage section"),
        ("storage: {cache: {blobdescriptor: redis}}", "names no driver"),
        ("storage: {s3: {region: x}}", "has no bucket"),
        ("storage: {s3: }", "has no bucket"),
        ("storage: {s3: bucket}", "must be a section"),
        ("storage: {s3: {bucket: b/c}}", "not a bucket's name"),
        ("storage: {s3: {bucket: bbb, secure: maybe, regionendpoint: h}}", "secure must be true or false"),
        ("storage: {s3: {bucket: bbb, forcepathstyle: 2}}", "forcepathstyle must be true or false"),
        ("storage: {filesystem: {rootdirectory: data}}", "must be an absolute path"),
        ("storage: gcs", "'gcs'; regstore works on s3 and filesystem"),
        ("storage: inmemory", "'inmemory'; regstore works on s3 and filesystem"),
        ("storage: {azure: {accountname: x}}", "'azure'; regstore works on s3 and filesystem"),
        ("storage: {swift: {}, delete: {enabled: true}}", "'swift'; regstore works"),
        ("storage: {s3: {bucket: bbb}, filesystem: {}}", "several drivers"),
        ("{storage: {s3: {bucket: bbb}}, redis: {addr: a, db: x}}", "redis.db must be a number"),
        ("{storage: {s3: {bucket: bbb}}, proxy: yes}", "proxy must be a section"),
    ],
)
def test_what_cannot_be_used_is_one_clear_sentence(text: str, why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_a_broken_override_is_named() -> None:
    with pytest.raises(InputError, match="REGISTRY_STORAGE_S3_BUCKET is not valid YAML"):
        parse({"storage": {"s3": S3}}, REGISTRY_STORAGE_S3_BUCKET="{a: [")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yml: no such file"):
        read_registry_config(tmp_path / "none.yml", {})
    with pytest.raises(InputError, match="is a directory"):
        read_registry_config(tmp_path, {})
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe\x00storage")
    with pytest.raises(InputError, match=r"binary\.yml is not"):
        read_registry_config(tmp_path / "binary.yml", {})


async def test_opening_by_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(yaml.safe_dump({"version": 0.1, "storage": {"filesystem": {"rootdirectory": str(tmp_path)}}}))
    storage, config = open_registry_config(path, {})
    async with storage:
        assert isinstance(storage, DiskStorage)
        assert (storage.url, config.kind) == (str(tmp_path), "filesystem")
    file = {**S3, "regionendpoint": "http://a", "accesskey": "k", "secretkey": "s", "rootdirectory": "/reg"}
    path.write_text(yaml.safe_dump({"version": 0.1, "storage": {"s3": file}}))
    storage, config = open_registry_config(path, {"REGISTRY_STORAGE_S3_SKIPVERIFY": "true"})
    async with storage:
        assert settings_of(storage) == S3Settings(
            bucket="bucket",
            root="reg",
            region="us-east-1",
            endpoint_url="http://a",
            access_key="k",
            secret_key="s",
            verify_tls=False,
        )
    options = OpenOptions(endpoint_url="http://b", region="r", profile="p", path_style=False)
    storage, _ = open_registry_config(path, {}, options)
    async with storage:
        settings = settings_of(storage)
        assert (settings.endpoint_url, settings.region, settings.path_style) == ("http://b", "r", False)
        assert (settings.profile, settings.access_key) == ("p", None)


@pytest.mark.parametrize(
    "text",
    [
        "storage: {s3: {bucket: bbb, regionendpoint: 'http://me:hush@host'}}",
        "storage: {s3: {bucket: bbb, regionendpoint: 'me:hush@host'}}",
        "{storage: {s3: {bucket: bbb}}, redis: 'redis://:hush@cache:6379'}",
        "{storage: {s3: {bucket: bbb}}, redis: {addr: 'redis://:hush@cache:6379'}}",
        "{storage: {s3: {bucket: bbb}}, redis: {addrs: ['me:hush@cache:6379']}}",
    ],
)
def test_a_password_in_the_wrong_place_of_a_configuration_is_not_repeated(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        open_registry_config(path, {})
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["s3://me:hush@bucket", "https://me:hush@host/bucket", "S3://me:hush@b", "redis://:hush@a"]
)
def test_a_password_in_a_location_is_not_repeated(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_location(text)
    assert "hush" not in str(caught.value)


async def test_keys_that_are_given_come_before_those_of_a_configuration(tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    config.write_text(
        "version: 0.1\nstorage:\n  s3: {bucket: bucket, region: r, accesskey: theirs, secretkey: theirs}\n"
    )
    for options, expected in (
        (OpenOptions(), "theirs"),
        (OpenOptions(profile="p"), None),
        (OpenOptions(access_key="ours", secret_key="s"), "ours"),
        (OpenOptions(access_key="ours", secret_key="s", profile="p"), "ours"),
    ):
        storage, _ = open_registry_config(config, {}, options)
        assert isinstance(storage, S3Storage)
        assert storage.settings.access_key == expected
    assert "geheim" not in repr(OpenOptions(access_key="k", secret_key="geheim"))
