"""The check against real registries: green, and red with the right words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import regstore.sync
from regstore.deployment.check import CheckOptions, CheckResult, Outcome, check
from regstore.seed import SeedOptions, seed
from regstore.storage import open_storage
from tests.deployment.certified import HOST, PASSWORD, USER, Authority, make_htpasswd
from tests.servers import debian, distribution
from tests.servers.api import Api
from tests.servers.distribution import Registry
from tests.servers.fault_proxy import FaultProxy
from tests.servers.process import free_port, wait_until
from tests.servers.s3 import S3Root, S3Server

pytestmark = pytest.mark.servers
REPOSITORY = "regstore-check/probe"


@dataclass(frozen=True)
class Deployed:
    registry: Registry
    authority: Authority
    folder: Path

    @property
    def options(self) -> CheckOptions:
        """As whoever runs it would ask: by its name, which no resolver here knows."""
        port = self.registry.host.rpartition(":")[2]
        return CheckOptions(
            url=f"https://{HOST}:{port}",
            address="127.0.0.1",
            ca=self.authority.ca,
            user=USER,
            password=PASSWORD,
            health_url=self.registry.debug_url,
        )


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    debian.require(distribution.PROGRAM)
    folder = tmp_path_factory.mktemp("deployed")
    authority = Authority.make(folder / "ca.crt")
    htpasswd = make_htpasswd(folder / "htpasswd")
    (folder / "store").mkdir()
    with regstore.sync.storage.open_storage(str(folder / "store")) as store:
        regstore.sync.seed.seed(store, SeedOptions())
    with Registry(folder / "store", tls=authority.issue(folder / "tls"), htpasswd=htpasswd) as registry:
        yield Deployed(registry, authority, folder)


def shown(result: CheckResult) -> str:
    return "\n".join(f"{line.outcome:<9} {line.name}: {line.detail} | {line.cure}" for line in result.lines)


def red(result: CheckResult, name: str) -> str:
    """The words of the one line that fails."""
    failed = [line.name for line in result.lines if line.outcome is Outcome.FAIL]
    assert failed == [name], shown(result)
    assert result.exit_code == 1
    line = result.of(name)
    assert line is not None and line.cure
    return f"{line.detail} | {line.cure}"


def assert_green(result: CheckResult) -> None:
    assert [line for line in result.lines if line.outcome is not Outcome.OK or line.cure] == [], shown(result)
    assert result.exit_code == 0


async def test_a_deployment_on_disk_is_green_and_left_as_it_was(deployed: Deployed) -> None:
    async with open_storage(str(deployed.folder / "store")) as store:
        result = await check(replace(deployed.options, store=store))
    assert_green(result)
    assert [line.name for line in result.lines] == [
        *("name", "port", "TLS", "certificate", "host name", "dates", "registry"),
        *("password needed", "password accepted", "wrong password", "storage health", "store"),
        *("push", "pull", "same store", "catalogue", "removal"),
    ]
    dates = result.of("dates")
    assert dates is not None and "in 396 days" in dates.detail and "its authority on" in dates.detail
    tags = deployed.folder / f"store/docker/registry/v2/repositories/{REPOSITORY}/_manifests/tags"
    assert list(tags.iterdir()) == []
    assert list((tags.parent.parent / "_uploads").glob("*")) == []


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        ({"url": "https://other.example.org"}, "host name", f"is for {HOST}, 127.0.0.1, not for other.example.org"),
        ({"password": "wrong"}, "password accepted", "the password of ann is refused"),
        ({"user": "nobody"}, "password accepted", "the password of nobody is refused"),
        ({"url": f"http://{HOST}"}, "TLS", "it speaks TLS, and its address says http://"),
    ],
    ids=["name", "password", "user", "http"],
)
async def test_asked_wrongly(deployed: Deployed, change: dict[str, Any], name: str, words: str) -> None:
    if "url" in change:
        change = change | {"address": deployed.registry.host}
    result = await check(replace(deployed.options, **change))
    assert words in red(result, name)
    pushed = result.of("push")
    assert pushed is not None and pushed.outcome is Outcome.NOT_TRIED


async def test_another_authority_with_and_without_the_same_name(deployed: Deployed, tmp_path: Path) -> None:
    other = Authority.make(tmp_path / "other.crt", host="elsewhere.example.org")
    words = red(await check(replace(deployed.options, ca=other.ca)), "certificate")
    assert f"signed by 'regstore CA of {HOST}', which is not among the authorities in {other.ca}" in words
    assert "--tls-ca" in words
    again = Authority.make(tmp_path / "again.crt")
    words = red(await check(replace(deployed.options, ca=again.ca)), "certificate")
    assert "signed by another 'regstore CA of" in words or "which is not among" in words
    words = red(await check(replace(deployed.options, ca=None)), "certificate")
    assert "not among the authorities that this computer trusts" in words


async def test_an_expired_certificate(deployed: Deployed, tmp_path: Path) -> None:
    old = Authority.make(tmp_path / "old.crt", ago=timedelta(days=500))
    tls = old.issue(tmp_path / "tls", ago=timedelta(days=400))
    with Registry(tmp_path / "store", tls=tls, htpasswd=deployed.registry.htpasswd) as registry:
        words = red(await check(Deployed(registry, old, tmp_path).options), "dates")
    assert "the certificate ended on" in words and "(3 days ago)" in words and "--renew" in words


async def test_nothing_listens(deployed: Deployed) -> None:
    words = red(await check(replace(deployed.options, address=f"127.0.0.1:{free_port()}")), "port")
    assert "refuses connections: nothing listens there" in words and "start the registry" in words


async def test_no_tls_and_no_password_where_both_are_expected(deployed: Deployed, tmp_path: Path) -> None:
    with Registry(tmp_path / "store") as plain:
        asked = Deployed(plain, deployed.authority, tmp_path).options
        assert "it speaks plain HTTP at this port" in red(await check(asked), "TLS")
        asked = replace(asked, url=f"http://{plain.host}", address="")
        assert "asks nobody for a password" in red(await check(asked), "password needed")
        result = await check(replace(asked, user="", password=""))
        assert "asks nobody for a password" in red(result, "password needed")
        removal = result.of("removal")
        assert removal is not None and removal.outcome is Outcome.OK  # the rest is tried all the same


async def test_deletion_disabled_and_read_only(tmp_path: Path) -> None:
    with Registry(tmp_path / "store", delete=False) as registry:
        asked = CheckOptions(url=f"http://{registry.host}")
        result = await check(asked)
        removal = result.of("removal")
        assert removal is not None and removal.outcome is Outcome.WARN
        tag = registry.tags(REPOSITORY)[0]
        assert removal.detail == f"the registry has deletion disabled: {REPOSITORY}:{tag} stays"
        assert (
            "storage.delete.enabled: true" in removal.cure
            and f"`regstore rm STORE {REPOSITORY}:{tag}`" in removal.cure
        )
        # A tag of another check stays, and is told once that check must have ended.
        with Api(registry.host) as api:
            kind, data = api.get_manifest(REPOSITORY, tag)
            api.put_manifest(REPOSITORY, "check-20200101T000000Z-0123456789abcdef", data, kind)
        registry.delete_enabled = True
        registry.restart()
        result = await check(asked)
        removal = result.of("removal")
        assert removal is not None and "1 tag of earlier checks" in removal.detail, shown(result)
        assert registry.tags(REPOSITORY) == ["check-20200101T000000Z-0123456789abcdef", tag]
        registry.restart(readonly=True)
        result = await check(asked)
        pushed = result.of("push")
        assert pushed is not None and "405" in pushed.detail and "read-only" in pushed.cure, shown(result)


async def test_on_ceph(
    deployed: Deployed, ceph: S3Server, ceph_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Green; red where the registry's keys lack a right, each named; red where the bucket is gone."""
    for name, value in ceph.environment().items():
        monkeypatch.setenv(name, value)
    with FaultProxy(ceph.endpoint_url) as proxy:
        storage = S3Root(ceph.at(proxy.endpoint_url), ceph_bucket, "/reg")
        tls = deployed.authority.issue(tmp_path / "tls")
        async with open_storage(f"s3://{ceph_bucket}/reg") as store:
            await seed(store, SeedOptions())
            with Registry(storage, tls=tls, htpasswd=deployed.registry.htpasswd) as registry:
                asked = replace(Deployed(registry, deployed.authority, tmp_path).options, store=store)
                assert_green(await check(asked))
                for operations, right in (
                    (("PutObject", "CreateMultipartUpload"), "write"),
                    (("GetObject",), "read, write and delete"),
                    (("DeleteObject", "DeleteObjects"), "read, write and delete"),
                ):
                    proxy.clear()
                    proxy.answer(403, "AccessDenied", operation=operations, times=None)
                    words = red(await check(asked), "push")
                    assert "the registry's s3aws storage failed" in words
                    assert f"give the registry's keys the right to {right}" in words
                proxy.clear()
                ceph.remove_bucket(ceph_bucket)
                without = await check(replace(asked, health_url=None))
                wait_until(lambda: registry.debug_health()[0] == 503, "the health check to fail")
                result, blind = await check(asked), await check(replace(asked, health_url=None, store=None))
    failed = {line.name: line for line in without.lines if line.outcome is Outcome.FAIL}
    assert {"store", "push"} <= set(failed), shown(without)
    failed = {line.name: line for line in result.lines if line.outcome is Outcome.FAIL}
    assert set(failed) == {"registry", "storage health", "store"}, shown(result)
    assert "NoSuchBucket" in failed["storage health"].detail
    for name in ("storage health", "store"):
        assert "make it again with `regstore seed-bucket`" in failed[name].cure
    health = blind.of("storage health")
    assert health is not None and health.outcome is Outcome.FAIL
    assert "health check failed: please see /debug/health" in health.detail, shown(blind)
