"""config.yml says to the registry what was asked for; what the registry makes of it, test_end_to_end tries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from regstore.deployment import config_yml
from regstore.deployment.wanted import Cache, Form, RegistryVersion, Tls
from regstore.storage.location import S3Location
from regstore.storage.registry_config import parse_registry_config
from tests.deployment.asked import CASES, case
from tests.deployment.test_wanted import deployment


def tree_of(**changed: Any) -> dict[str, Any]:
    text = config_yml.render(deployment(**changed))
    tree: dict[str, Any] = yaml.safe_load(text)
    assert parse_registry_config(text.encode(), {}, where="it").location == S3Location("images")
    return tree


def test_what_is_always_there() -> None:
    tree = tree_of()
    assert tree["version"] == 0.1
    assert tree["storage"] == {"s3": {"bucket": "images", "region": "us-east-1"}, "delete": {"enabled": True}}
    assert tree["health"]["storagedriver"] == {"enabled": True, "interval": "10s", "threshold": 3}
    assert tree["auth"]["htpasswd"] == {"realm": "registry", "path": "/srv/registry/auth/htpasswd"}
    assert tree["http"]["addr"] == ":5000"
    assert tree["http"]["debug"] == {"addr": "127.0.0.1:5001", "prometheus": {"enabled": True, "path": "/metrics"}}
    assert tree["http"]["tls"] == {
        "certificate": "/srv/registry/tls/server.crt",
        "key": "/srv/registry/tls/server.key",
        "minimumtls": "tls1.2",
    }
    assert "secret" not in tree["http"]


def test_without_tls_it_is_on_loopback_and_says_no_scheme() -> None:
    http = tree_of(tls=Tls.NONE)["http"]
    assert (http["addr"], http["relativeurls"], "tls" in http) == ("127.0.0.1:5000", True, False)
    assert tree_of(tls=Tls.NONE, form=Form.COMPOSE)["http"]["addr"] == ":5000"


@pytest.mark.parametrize(
    ("version", "key", "value", "password"),
    [
        (RegistryVersion.V2, "addr", "cache:6379", "REGISTRY_REDIS_PASSWORD"),
        (RegistryVersion.V3, "addrs", ["cache:6379"], "REGISTRY_REDIS_OPTIONS_PASSWORD"),
    ],
)
def test_the_versions_differ_in_redis(version: RegistryVersion, key: str, value: object, password: str) -> None:
    asked = {"registry": version, "cache": Cache.REDIS, "redis": "cache:6379"}
    tree = tree_of(**asked)
    assert (tree["storage"]["cache"], tree["redis"][key]) == ({"blobdescriptor": "redis"}, value)
    assert ("pool" in tree["redis"]) == (version is RegistryVersion.V2)
    read = parse_registry_config(config_yml.render(deployment(**asked)).encode(), {}, where="it")
    assert read.redis is not None
    assert read.redis.addrs == ("cache:6379",)
    assert config_yml.redis_password_variable(version) == password


def test_a_cache_in_memory_and_what_it_means() -> None:
    assert tree_of(cache=Cache.MEMORY)["storage"]["cache"] == {"blobdescriptor": "inmemory"}
    assert "until it is\n# restarted" in config_yml.render(deployment())


def test_only_3_x_sends_traces() -> None:
    assert config_yml.registry_environment(deployment(store_ca=True)) == {
        "SSL_CERT_FILE": "/srv/registry/tls/store-ca.crt"
    }
    assert config_yml.registry_environment(deployment(registry=RegistryVersion.V3)) == {
        "OTEL_TRACES_EXPORTER": "none"
    }


#: What the documentation of each version lists (docs/configuration.md, its list of options); `*` is any name.
_BOTH = {
    "version", "log.level", "log.fields.*", "storage.filesystem.rootdirectory", "storage.delete.enabled",
    "storage.cache.blobdescriptor", "auth.htpasswd.realm", "auth.htpasswd.path", "http.addr", "http.relativeurls",
    "http.draintimeout",
    "http.headers.*", "http.debug.addr", "http.debug.prometheus.enabled", "http.debug.prometheus.path",
    "http.tls.certificate", "http.tls.key", "http.tls.minimumtls", "redis.db", "redis.dialtimeout", "redis.readtimeout",
    "redis.writetimeout", "health.storagedriver.enabled", "health.storagedriver.interval",
    "health.storagedriver.threshold",
    *(f"storage.s3.{name}" for name in (
        "region", "bucket", "rootdirectory", "regionendpoint", "secure", "v4auth", "forcepathstyle", "skipverify",
        "encrypt", "keyid", "storageclass", "objectacl",
    )),
}  # fmt: skip
_DOCUMENTED = {
    RegistryVersion.V2: _BOTH
    | {"redis.addr", "redis.pool.maxidle", "redis.pool.maxactive", "redis.pool.idletimeout"},
    RegistryVersion.V3: _BOTH | {"redis.addrs", "redis.maxidleconns", "redis.poolsize"},
}


@pytest.mark.parametrize("version", RegistryVersion)
@pytest.mark.parametrize("name", CASES)
def test_each_version_documents_all_that_is_said(version: RegistryVersion, name: str) -> None:
    tree = config_yml.configuration(case(name, registry=version))
    known = _DOCUMENTED[version]
    assert {
        path for path in _paths(tree) if path not in known and f"{path.rpartition('.')[0]}.*" not in known
    } == set()


def _paths(tree: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _paths(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


@settings(max_examples=50)
@example("\x85")
@example("")
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20))
def test_any_folder_is_named_as_it_is(text: str) -> None:
    storage = {"filesystem": {"rootdirectory": f"/data/{text}"}}
    made = yaml.safe_load(config_yml.render(deployment(store="/srv/x", storage=storage)))
    assert made["storage"]["filesystem"] == storage["filesystem"]


@pytest.mark.parametrize("bucket", ["123e4", "1.5e3", "0o17"])
def test_a_bucket_that_looks_like_a_number_to_go_is_quoted(bucket: str) -> None:
    """Go's YAML reads 123e4 as 1230000, and the registry would use another bucket."""
    storage = {"s3": {"bucket": bucket, "region": "us-east-1"}}
    text = config_yml.render(deployment(store=f"s3://{bucket}", storage=storage))
    assert f"bucket: '{bucket}'\n" in text
    assert yaml.safe_load(text)["storage"]["s3"] == storage["s3"]
