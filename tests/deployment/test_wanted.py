"""What may be asked for, and how it is called from outside and from within."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest

from regstore.deployment.wanted import Cache, Deployment, Form, Kind, Tls, WantedFile, parse_host
from regstore.errors import InputError


def deployment(**changed: Any) -> Deployment:
    asked: dict[str, Any] = {
        "host": "registry.example.org",
        "store": "s3://images",
        "storage": {"s3": {"bucket": "images", "region": "us-east-1"}},
        "folder": PurePosixPath("/srv/registry"),
    }
    return Deployment(**{**asked, **changed})


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Registry.Example.ORG.", "registry.example.org"),
        ("büro.example", "xn--bro-hoa.example"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("192.0.2.7", "192.0.2.7"),
        ("localhost", "localhost"),
    ],
)
def test_a_host_has_one_form(text: str, host: str) -> None:
    assert parse_host(text) == host == parse_host(host)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://a.example",
        "a.example:5000",
        "a b",
        "-a.example",
        "a..b",
        "300.1.1.1",
        "fe80::1%eth0",
        "0.0.0.0",
        "a/b",
        "é" * 80,
    ],
)
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(InputError, match=r"host|address|certificate"):
        parse_host(text)


def test_an_ipv6_address_stands_in_brackets() -> None:
    asked = deployment(host="2001:db8::1", names=("registry", "2001:db8::1"))
    assert asked.url == "https://[2001:db8::1]:5000"
    assert asked.all_names == ("2001:db8::1", "registry")


def test_a_container_has_the_files_and_the_folder_elsewhere() -> None:
    storage = {"filesystem": {"rootdirectory": "/data", "maxthreads": 50}}
    asked = deployment(store="/data", storage=storage, form=Form.COMPOSE)
    assert (asked.seen("tls/server.key"), asked.seen_store) == ("/etc/registry/tls/server.key", "/var/lib/registry")
    assert asked.seen_storage == {"filesystem": {"rootdirectory": "/var/lib/registry", "maxthreads": 50}}
    on_host = deployment(store="/data", storage=storage)
    assert (on_host.seen("a"), on_host.seen_store, on_host.seen_storage) == ("/srv/registry/a", "/data", storage)


@pytest.mark.parametrize(
    "changed",
    [
        {"host": "Registry"},
        {"port": 0},
        {"port": 5001},
        {"with_serve": True, "serve_port": 5000},
        {"cache": Cache.REDIS},
        {"redis": "cache:6379"},
        {"cache": Cache.REDIS, "redis": "cache"},
        {"cache": Cache.REDIS, "redis": "redis://:hunter2@cache:6379"},
        {"folder": PurePosixPath("registry")},
        {"user": "a b"},
        {"storage": {}},
        {"storage": {"filesystem": {"rootdirectory": "/srv"}}, "store": "/srv"},
        {"backup": "s3://images"},
        {"backup": "s3://images/backup"},
        {"store": "s3://images/a/b", "backup": "s3://images/a"},
        {"storage": {"filesystem": {"rootdirectory": "/data"}}, "store": "/data", "backup": "/data/backup"},
        {"backup": "/srv"},
    ],
)
def test_what_can_t_be_asked_for(changed: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        deployment(**changed)
    assert "hunter2" not in str(caught.value)


def test_without_tls_it_listens_on_loopback_only() -> None:
    asked = deployment(tls=Tls.NONE)
    assert (asked.bind, asked.url) == ("127.0.0.1", "http://registry.example.org:5000")


def test_a_file_lies_within_the_folder_and_a_secret_is_private() -> None:
    for path in ("", "/etc/passwd", "../a", "a/../../b"):
        with pytest.raises(ValueError, match="not within"):
            WantedFile(path=path, content=b"")
    with pytest.raises(ValueError, match="private"):
        WantedFile(path="secrets/a", content=b"", kind=Kind.SECRET)
    assert "hunter2" not in repr(WantedFile(path="secrets/a", content=b"hunter2", kind=Kind.SECRET, mode=0o600))


def test_neighbours_are_no_trouble() -> None:
    deployment(store="s3://images/a", backup="s3://images/ab")
    deployment(
        storage={"filesystem": {"rootdirectory": "/srv/registry/data"}}, store="/srv/registry/data", backup="/srv/b"
    )
