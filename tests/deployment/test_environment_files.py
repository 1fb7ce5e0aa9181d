"""Files of what is secret: made once, added to, and readable alike by all who read them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from regstore.deployment import environment_files
from regstore.deployment.environment_files import Secrets, StoreKeys, variables
from regstore.deployment.wanted import PRIVATE, REGISTRY_ENV, REGSTORE_ENV, Cache, RegistryVersion
from regstore.errors import InputError
from tests.deployment.test_wanted import deployment

KEYS = StoreKeys(access_key="AKIA0123", secret_key="a/b+c=d")


def made(given: Secrets, standing: dict[str, bytes] | None = None, **asked: object) -> dict[str, bytes]:
    files = environment_files.files(deployment(**asked), given, standing or {})
    assert all(file.mode == PRIVATE for file in files)
    return {file.path: file.content for file in files}


def test_each_has_its_own_keys() -> None:
    own = StoreKeys(access_key="AKIA4567", secret_key="xyz")
    files = made(Secrets(registry=KEYS, regstore=own))
    registry = variables(files[REGISTRY_ENV])
    assert len(registry.pop("REGISTRY_HTTP_SECRET")) == 64
    assert registry == {
        "REGISTRY_STORAGE_S3_ACCESSKEY": "AKIA0123",
        "REGISTRY_STORAGE_S3_SECRETKEY": "a/b+c=d",
    }
    assert variables(files[REGSTORE_ENV]) == {"AWS_ACCESS_KEY_ID": "AKIA4567", "AWS_SECRET_ACCESS_KEY": "xyz"}


def test_what_is_there_stays_and_what_lacks_is_added() -> None:
    standing = {REGISTRY_ENV: b"# ours\nREGISTRY_HTTP_SECRET=mine", REGSTORE_ENV: b""}
    files = made(Secrets(registry=KEYS), standing)
    assert files[REGISTRY_ENV].startswith(b"# ours\nREGISTRY_HTTP_SECRET=mine\nREGISTRY_STORAGE_S3_ACCESSKEY=")
    assert made(Secrets(registry=KEYS), files) == files


def test_the_password_of_redis_goes_with_the_version() -> None:
    asked: dict[str, Any] = {"cache": Cache.REDIS, "redis": "cache:6379"}
    files = made(Secrets(redis_password="pw"), None, **asked)
    assert variables(files[REGISTRY_ENV])["REGISTRY_REDIS_PASSWORD"] == "pw"
    assert variables(files[REGSTORE_ENV]) == {"REGISTRY_REDIS_PASSWORD": "pw"}
    later = made(Secrets(), files, registry=RegistryVersion.V3, **asked)
    assert variables(later[REGISTRY_ENV])["REGISTRY_REDIS_OPTIONS_PASSWORD"] == "pw"
    assert "REDIS" not in made(Secrets(redis_password="pw"))[REGISTRY_ENV].decode()


@pytest.mark.parametrize(
    "value",
    [
        "a b",
        "a$b",
        "a'b",
        'a"b',
        "a\\b",
        "a#b",
        "ü",
        "",
        "a`b",
        "0123",
        "1e5",
        "0o17",
        "1_0",
        "y",
        "true",
        "null",
        "2020-01-01",
        "[a]",
        "a:",
    ],
)
def test_a_value_that_is_read_in_several_ways_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(InputError, match="REGISTRY_STORAGE_S3_SECRETKEY") as caught:
        made(Secrets(registry=StoreKeys(access_key="AKIA", secret_key=value)))
    assert len(value) < 3 or value not in str(caught.value)


def test_the_secret_of_http_is_text_to_the_registry_too() -> None:
    """Hex digits may be a number to YAML, and are text for all that in a field that is text."""
    value = variables(made(Secrets())[REGISTRY_ENV])["REGISTRY_HTTP_SECRET"]
    assert str(yaml.safe_load(f"a: '{value}'")["a"]) == value


def test_hex_digits_are_a_key_as_servers_make_them() -> None:
    key = StoreKeys(
        access_key="GK31c2f218a2e44f485b94239e", secret_key="b892c0665f0ada8a4755dae98baa3b133590e11d" * 2
    )
    assert variables(made(Secrets(registry=key))[REGISTRY_ENV])["REGISTRY_STORAGE_S3_SECRETKEY"] == key.secret_key
