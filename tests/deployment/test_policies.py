"""What the policies grant is what is asked for, no less and no more: by a store that refuses all else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from regstore.cli.app import app
from regstore.deployment import config_yml, nightly, policies
from regstore.deployment.policies import Place
from regstore.deployment.wanted import CONFIG, Deployment
from regstore.layout import PREFIX
from regstore.seed import SeedOptions, seed
from regstore.storage import open_storage
from regstore.storage.s3 import S3Storage
from regstore.storage.sizes import SINGLE_PUT
from tests.deployment.iam import Guard, allows
from tests.deployment.test_wanted import deployment
from tests.servers import images
from tests.servers.api import Api, pull_complete, push_api
from tests.servers.distribution import Registry
from tests.servers.fault_proxy import FaultProxy
from tests.servers.memory_s3 import memory_s3
from tests.servers.s3 import S3Root, S3Server

BUCKET, ROOT = "images.example.org", "a $b/c*"


@pytest.fixture(scope="module")
def proxy() -> Iterator[FaultProxy]:
    with memory_s3() as server, FaultProxy(server.endpoint_url) as proxy:
        server.client().create_bucket(Bucket=BUCKET)
        server.client().create_bucket(Bucket="backup")
        yield proxy


@pytest.fixture
def store(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    proxy.clear()
    server = S3Server(proxy.endpoint_url, "any", "thing")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    driver = {
        "bucket": BUCKET,
        "rootdirectory": f"/{ROOT}",
        "region": server.region,
        "regionendpoint": proxy.endpoint_url,
        "forcepathstyle": True,
    }
    return deployment(
        store=f"s3://{BUCKET}/{ROOT}", storage={"s3": driver}, backup="s3://backup/of/it", with_serve=True
    )


def of(asked: Deployment, path: str) -> dict[str, Any]:
    found = {file.path: file.content for file in policies.files(asked)}
    policy: dict[str, Any] = json.loads(found[path])
    return policy


def test_the_registry(proxy: FaultProxy, store: Deployment, start_registry: Callable[..., Registry]) -> None:
    guard = Guard(proxy, of(store, policies.REGISTRY_POLICY))
    place = S3Root(S3Server(proxy.endpoint_url, "any", "thing"), BUCKET, f"/{ROOT}")
    registry = start_registry(place)
    one, other = images.image("one", 2), images.image("two", 2)
    push_api(registry.host, "team/app", one, "1", chunk=1000)
    push_api(registry.host, "team/app", other, "1")
    push_api(registry.host, "team/other", one, "1", mount_from="team/app")
    pull_complete(registry.host, "team/app", "1")
    assert registry.tags("team/app") == ["1"]
    assert registry.catalog() == ["team/app", "team/other"]
    assert registry.delete("team/app", one.digest) == 202
    with Api(registry.host) as api:  # an upload that is given up
        api.request("DELETE", api.patch_upload(api.start_upload("team/app"), b"x" * 100))
    registry.garbage_collect("-m")
    assert guard.denied == set()
    assert guard.used == guard.granted


@pytest.mark.long
async def test_regstore(
    proxy: FaultProxy, store: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nightly job, the way back from gc, and what goes in parts."""
    server = S3Server(proxy.endpoint_url, "any", "thing")
    orphan = images.layer("orphan")
    keys = images.registry_keys("team/app", images.image("one", 2), "1")
    for key, data in {**keys, images.blob_key(orphan.digest): orphan.data}.items():
        server.write(BUCKET, f"{ROOT}/{key}", data)
    abandoned = f"{ROOT}/{PREFIX}repositories/team/app/_uploads/0/data"
    server.client().create_multipart_upload(Bucket=BUCKET, Key=abandoned)
    elsewhere = {"docker/registry/v2/x": b"1", f"{ROOT}x/regstore/y": b"2"}
    for key, data in elsewhere.items():
        server.write(BUCKET, key, data)

    asked = replace(store, folder=PurePosixPath(tmp_path))
    (tmp_path / CONFIG).write_text(config_yml.render(asked))
    toml = nightly.render(asked)
    now = "".join(f'\n{name} = "0s"' for name in ("grace", "settle", "uploads_older_than"))
    (tmp_path / nightly.REGSTORE_TOML).write_text(toml.replace("yes = true", f"yes = true{now}"))
    for name, value in nightly.job_environment(asked).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    guard = Guard(proxy, of(asked, policies.REGSTORE_POLICY))
    for number, step in enumerate(nightly.steps(asked), 1):  # in this process
        said = await said_by(*nightly.arguments(), "--step", str(number))
        assert said.exit_code == 0, (step, said.output)
    assert f"{ROOT}/{images.blob_key(orphan.digest)}" not in server.keys(BUCKET)
    assert (await said_by("trash", "restore", nightly.STORE, "--yes")).exit_code == 0

    for url in (asked.store, str(asked.backup)):
        async with open_storage(url) as storage:
            key = f"{PREFIX}big" if url == asked.store else "big"
            assert await storage.put_stream(key, parts(SINGLE_PUT + 1)) == SINGLE_PUT + 1
            with pytest.raises(OSError, match="the source broke"):  # what is there is taken away again
                await storage.put_stream(key, parts(SINGLE_PUT + 1, broken=True))
            assert isinstance(storage, S3Storage)
            assert await storage.stored_parts(key, "no such upload") is None
    assert {action for action, _ in guard.denied} <= {"s3:GetObjectAcl"}
    assert guard.used == guard.granted
    proxy.clear()
    assert {key: server.read(BUCKET, key) for key in elsewhere} == elsewhere


async def said_by(*arguments: str) -> Result:
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, list(arguments)))


async def parts(size: int, *, broken: bool = False) -> AsyncIterator[bytes]:
    for start in range(0, size, 1 << 20):
        yield bytes(min(1 << 20, size - start))
    if broken:
        raise OSError("the source broke")


@pytest.mark.long
def test_serve(proxy: FaultProxy, store: Deployment, tmp_path: Path) -> None:
    """By its report, which is made of its pages, and by what is pulled."""
    server = S3Server(proxy.endpoint_url, "any", "thing")
    for key, data in images.registry_keys("team/app", images.image("one", 2), "1").items():
        server.write(BUCKET, f"{ROOT}/{key}", data)
    guard = Guard(proxy, of(store, policies.SERVE_POLICY))
    said = CliRunner().invoke(app, ["report", store.store, "--html", str(tmp_path / "report.html")])
    assert said.exit_code == 0, said.output
    assert guard.denied == set()
    assert guard.used == guard.granted


@pytest.mark.parametrize("action", ["s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"])
async def test_seeding_says_which_permission_lacks(proxy: FaultProxy, store: Deployment, action: str) -> None:
    policy = of(store, policies.REGSTORE_POLICY)
    for statement in policy["Statement"]:
        statement["Action"] = [each for each in statement["Action"] if each != action]
    Guard(proxy, policy)
    async with open_storage(store.store) as storage:
        result = await seed(storage, SeedOptions(apply_settings=False))
    assert any(action in check.detail for check in result.broken), result.broken


def test_a_place_is_itself_and_nothing_else() -> None:
    """Asterisks, question marks and dollar signs in a root stand for themselves."""
    policy = policies.registry_policy(Place(bucket="b", root="a*/$x?"))
    this = "arn:aws:s3:::b/a*/$x?/docker/registry/v2/blobs/x"
    assert allows(policy, "s3:GetObject", this)
    for other in (this.replace("*", "z"), this.replace("?", "z"), this.replace("registry/v2", "registry/v3")):
        assert not allows(policy, "s3:GetObject", other)
    assert not allows(policy, "s3:GetObject", "arn:aws:s3:::b/a*/$x?/regstore/trash/x")
    assert allows(policies.regstore_policy(Place(bucket="b")), "s3:PutObject", "arn:aws:s3:::b/regstore/id")


def test_no_policy_changes_a_bucket_or_empties_a_backup() -> None:
    found = policies.regstore_policy(Place(bucket="b"), Place(bucket="c"))
    for policy in (found, policies.registry_policy(Place(bucket="b")), policies.serve_policy(Place(bucket="b"))):
        of_buckets = {
            action
            for statement in policy["Statement"]
            for action in statement["Action"]
            if not statement["Resource"][0].endswith("*")
        }
        assert all(action.startswith(("s3:List", "s3:Get")) for action in of_buckets)
    assert not allows(found, "s3:DeleteObject", "arn:aws:s3:::c/blobs/x")


@pytest.mark.parametrize(
    ("driver", "statement"),
    [
        ({"keyid": "1-2"}, None),  # the driver does not use it
        ({"encrypt": True}, None),
        ({"encrypt": True, "keyid": "1-2"}, {"Resource": ["arn:aws:kms:eu-west-1:*:key/1-2"]}),
        (
            {"encrypt": True, "keyid": "arn:aws:kms:eu-west-1:1:key/3"},
            {"Resource": ["arn:aws:kms:eu-west-1:1:key/3"]},
        ),
        (
            {"encrypt": True, "keyid": "alias/mine"},
            {
                "Resource": ["arn:aws:kms:eu-west-1:*:key/*"],
                "Condition": {"ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/mine"}},
            },
        ),
    ],
)
def test_a_key_of_ones_own(driver: dict[str, Any], statement: dict[str, Any] | None) -> None:
    asked = deployment(storage={"s3": {"bucket": "images", "region": "eu-west-1", **driver}})
    found = [each for each in of(asked, policies.REGISTRY_POLICY)["Statement"] if each["Sid"] == "RegistryKey"]
    if statement is None:
        assert found == []
    else:
        assert found[0].items() >= statement.items()
        assert found[0]["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]


def test_access_lists_and_partitions() -> None:
    driver = {"bucket": "images", "region": "cn-north-1", "objectacl": "bucket-owner-full-control"}
    asked = deployment(storage={"s3": driver})
    assert allows(of(asked, policies.REGISTRY_POLICY), "s3:PutObjectAcl", f"arn:aws-cn:s3:::images/{PREFIX}x")
    assert allows(of(asked, policies.REGSTORE_POLICY), "s3:GetObjectAcl", f"arn:aws-cn:s3:::images/{PREFIX}x")
    assert policies.files(deployment(storage={"filesystem": {"rootdirectory": "/srv/x"}}, store="/srv/x")) == []
