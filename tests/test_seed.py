"""seed-bucket's library: what it writes, what it says, and that a real registry is well on what it made."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from regstore import layout
from regstore.errors import AccessDenied, AuthenticationFailed, InputError, StorageError, Unreachable
from regstore.seed import Check, Outcome, SeedOptions, SeedResult, health, seed
from regstore.storage.opening import OpenOptions, open_storage
from regstore.storage.registry_config import parse_registry_config
from tests.servers import images, skopeo
from tests.servers.distribution import PROGRAM, Registry
from tests.servers.fault_proxy import FaultProxy, Request
from tests.servers.process import Child, clean_environment, free_port, wait_until
from tests.servers.s3 import S3Root, S3Server

SEEDS = {layout.encode(key) for key in layout.SEEDS}
READING = {"GET", "HEAD"}


@pytest.fixture
def new_bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a bucket that is not there yet; the environment knows the server."""
    use(s3_server, monkeypatch)
    name = s3_server.create_bucket("seed")
    s3_server.remove_bucket(name)
    return name


def use(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)


async def run(url: str | Path, **options: Any) -> SeedResult:
    async with open_storage(url, OpenOptions(concurrency=4)) as storage:
        return await seed(storage, SeedOptions(**options))


def outcome(result: SeedResult, name: str) -> Outcome:
    check = result.of(name)
    assert check is not None, f"no check {name} in {[each.name for each in result.checks]}"
    return check.outcome


# -- the health check's questions


class Bucket:
    """A listing like S3's, version 1, that remembers what it was asked."""

    def __init__(self, *keys: str, page: int = 1000) -> None:
        self.keys = sorted(keys)
        self.page = page
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, *, Prefix: str, MaxKeys: int, Delimiter: str = "", Marker: str = "") -> dict[str, Any]:
        self.asked.append({"Prefix": Prefix, "MaxKeys": MaxKeys, "Delimiter": Delimiter, "Marker": Marker})
        found: dict[str, bool] = {}
        for key in self.keys:
            if key.startswith(Prefix):
                cut = key.find(Delimiter, len(Prefix)) if Delimiter else -1
                found.setdefault(key if cut < 0 else key[: cut + 1], cut < 0)
        entries = [name for name in sorted(found) if name > Marker]
        page = entries[: min(MaxKeys, self.page)]
        answer: dict[str, Any] = {"IsTruncated": len(page) < len(entries)}
        answer["Contents"] = [{"Key": name} for name in page if found[name]]
        answer["CommonPrefixes"] = [{"Prefix": name} for name in page if not found[name]]
        if answer["IsTruncated"] and Delimiter:
            answer["NextMarker"] = page[-1]
        return answer


async def test_stat_asks_for_one_key_and_finds_any() -> None:
    bucket = Bucket("reg/docker/registry/v2/blobs/_regstore/seed", "other")
    assert (await health.s3_stat_root(bucket, "/reg")).passes
    assert bucket.asked == [{"Prefix": "reg/", "MaxKeys": 1, "Delimiter": "", "Marker": ""}]


@pytest.mark.parametrize(
    ("rootdirectory", "prefix"), [("", ""), ("/", ""), ("/reg", "reg/"), ("reg/", "reg/"), ("/a/b/", "a/b/")]
)
def test_the_prefix_is_the_drivers(rootdirectory: str, prefix: str) -> None:
    assert health.s3_path(rootdirectory, "/") == prefix


async def test_nothing_there_fails_stat_and_passes_list() -> None:
    bucket = Bucket("other/key")
    verdict = await health.s3_stat_root(bucket, "/reg")
    assert not verdict.passes
    assert "Path not found: /" in verdict.why
    assert (await health.s3_list_root(bucket, "/reg")).passes


async def test_a_key_that_is_the_root_itself_passes() -> None:
    assert (await health.s3_stat_root(Bucket("reg/"), "/reg")).passes


async def test_list_follows_every_page() -> None:
    bucket = Bucket(*(f"reg/{number:04}/x" for number in range(25)), page=10)
    verdict = await health.s3_list_root(bucket, "/reg")
    assert verdict.passes
    assert "25" in verdict.why
    assert [each["Marker"] for each in bucket.asked] == ["", "reg/0009/", "reg/0019/"]
    assert {(each["Delimiter"], each["MaxKeys"]) for each in bucket.asked} == {("/", 1000)}


@pytest.mark.parametrize(
    "answer",
    [{}, {"IsTruncated": True}, {"IsTruncated": True, "NextMarker": ""}, {"IsTruncated": True, "NextMarker": "a"}],
)
async def test_a_listing_that_the_driver_cannot_follow_fails(answer: dict[str, Any]) -> None:
    async def listing(**_: Any) -> dict[str, Any]:
        return dict(answer)

    assert not (await health.s3_list_root(listing, "")).passes


def test_a_folder_that_is_missing_fails_both(tmp_path: Path) -> None:
    assert health.disk_stat_root(tmp_path).passes
    assert health.disk_list_root(tmp_path).passes
    assert not health.disk_stat_root(tmp_path / "none").passes
    assert not health.disk_list_root(tmp_path / "none").passes


# -- a bucket


@pytest.mark.parametrize("root", ["", "/reg", "/a/b"])
async def test_a_new_bucket_gets_two_objects_and_is_well(s3_server: S3Server, new_bucket: str, root: str) -> None:
    result = await run(f"s3://{new_bucket}{root}")
    assert not result.broken
    assert not result.missing
    assert outcome(result, "bucket") is Outcome.DONE
    assert outcome(result, "health 2.5") is outcome(result, "health 2.6") is Outcome.OK
    prefix = f"{root[1:]}/" if root else ""
    assert set(s3_server.keys(new_bucket)) == {prefix + key for key in SEEDS}
    for permission in ("write", "read", "list", "delete", "uploads"):
        assert outcome(result, f"permission {permission}") is Outcome.OK
    # Ceph 16.2 denies every PUT once BlockPublicAcls is set.
    s3_server.client().put_object(Bucket=new_bucket, Key=f"{prefix}docker/x", Body=b"", ACL="private")


async def test_a_new_bucket_gets_settings(s3_server: S3Server, new_bucket: str) -> None:
    result = await run(f"s3://{new_bucket}/reg")
    client = s3_server.client()
    (rule,) = client.get_bucket_lifecycle_configuration(Bucket=new_bucket)["Rules"]
    assert rule["ID"] == "regstore-abort-uploads"
    assert rule["Status"] == "Enabled"
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert (rule.get("Filter") or rule)["Prefix"] == "reg/docker/registry/v2/"
    assert outcome(result, "lifecycle") is Outcome.DONE
    blocked = client.get_public_access_block(Bucket=new_bucket)["PublicAccessBlockConfiguration"]
    assert blocked["IgnorePublicAcls"] and blocked["BlockPublicPolicy"] and blocked["RestrictPublicBuckets"]
    if s3_server.name == "ceph":
        # Its answer to ?encryption is a listing of the bucket: nothing may be put there.
        assert outcome(result, "encryption") is Outcome.UNSUPPORTED
    else:
        assert blocked["BlockPublicAcls"]
        rules = client.get_bucket_encryption(Bucket=new_bucket)["ServerSideEncryptionConfiguration"]["Rules"]
        assert rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"


async def test_settings_can_be_declined(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    use(moto, monkeypatch)
    bucket = moto.create_bucket("seed")
    moto.remove_bucket(bucket)
    result = await run(f"s3://{bucket}", block_public_access=False, encryption=False, lifecycle=False)
    assert {outcome(result, name) for name in ("public access", "encryption", "lifecycle")} == {Outcome.SKIPPED}
    client = moto.client()
    for ask in (
        client.get_public_access_block,
        client.get_bucket_encryption,
        client.get_bucket_lifecycle_configuration,
    ):
        with pytest.raises(client.exceptions.ClientError):
            ask(Bucket=bucket)


async def test_a_second_run_changes_nothing(s3_server: S3Server, new_bucket: str) -> None:
    await run(f"s3://{new_bucket}/reg")
    client = s3_server.client()
    before = client.list_objects_v2(Bucket=new_bucket)["Contents"]
    with FaultProxy(s3_server.endpoint_url) as proxy:
        async with open_storage(f"s3://{new_bucket}/reg", OpenOptions(endpoint_url=proxy.endpoint_url)) as storage:
            result = await seed(storage, SeedOptions())
        written = [request for request in proxy.requests if request.method not in READING]
    assert {request.method for request in written} == {"PUT", "DELETE"}
    assert {request.key.partition("probe-")[0] for request in written} == {"reg/regstore/"}
    assert outcome(result, "bucket") is outcome(result, "seed blobs") is outcome(result, "seed repositories")
    after = client.list_objects_v2(Bucket=new_bucket)["Contents"]
    assert [(each["Key"], each["LastModified"]) for each in after] == [
        (each["Key"], each["LastModified"]) for each in before
    ]


@pytest.mark.parametrize("state", ["missing", "empty", "seeded"])
async def test_a_check_writes_nothing(s3_server: S3Server, new_bucket: str, state: str) -> None:
    if state != "missing":
        s3_server.client().create_bucket(Bucket=new_bucket)
    if state == "seeded":
        await run(f"s3://{new_bucket}/reg")
    with FaultProxy(s3_server.endpoint_url) as proxy:
        async with open_storage(f"s3://{new_bucket}/reg", OpenOptions(endpoint_url=proxy.endpoint_url)) as storage:
            result = await seed(storage, SeedOptions(check=True))
        assert set(proxy.methods) <= READING
    assert not result.broken
    missing = {check.name for check in result.missing}
    if state == "missing":
        assert missing == {"bucket"}
    elif state == "empty":
        assert missing == {"seed blobs", "seed repositories", "health 2.6"}
        assert outcome(result, "health 2.5") is Outcome.OK
    else:
        assert missing == set()


async def test_an_existing_bucket_is_only_looked_at(s3_server: S3Server, new_bucket: str) -> None:
    client = s3_server.client()
    client.create_bucket(Bucket=new_bucket)
    result = await run(f"s3://{new_bucket}/reg")
    assert outcome(result, "public access") is outcome(result, "lifecycle") is Outcome.DIFFERS
    assert not result.broken
    with pytest.raises(client.exceptions.ClientError):
        client.get_bucket_lifecycle_configuration(Bucket=new_bucket)


async def test_applied_settings_are_merged(s3_server: S3Server, new_bucket: str) -> None:
    client = s3_server.client()
    client.create_bucket(Bucket=new_bucket)
    expire = {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 30}}
    client.put_bucket_lifecycle_configuration(Bucket=new_bucket, LifecycleConfiguration={"Rules": [expire]})
    for root in ("one", "two"):
        result = await run(f"s3://{new_bucket}/{root}", apply_settings=True)
        assert outcome(result, "lifecycle") is Outcome.DONE
    rules = {rule["ID"]: rule for rule in client.get_bucket_lifecycle_configuration(Bucket=new_bucket)["Rules"]}
    assert set(rules) == {"logs", "regstore-abort-uploads", "regstore-abort-uploads-2"}
    assert rules["logs"]["Expiration"] == {"Days": 30}
    assert outcome(await run(f"s3://{new_bucket}/two", apply_settings=True), "lifecycle") is Outcome.OK


async def test_a_rule_that_was_disabled_stays_so(
    moto: S3Server, moto_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(moto, monkeypatch)
    rule = {
        "ID": "regstore-abort-uploads",
        "Status": "Disabled",
        "Filter": {"Prefix": "reg/docker/registry/v2/"},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
    client = moto.client()
    client.put_bucket_lifecycle_configuration(Bucket=moto_bucket, LifecycleConfiguration={"Rules": [rule]})
    result = await run(f"s3://{moto_bucket}/reg", apply_settings=True)
    assert outcome(result, "lifecycle") is Outcome.DIFFERS
    assert client.get_bucket_lifecycle_configuration(Bucket=moto_bucket)["Rules"][0]["Status"] == "Disabled"


async def test_a_versioned_bucket_says_what_stays(s3_server: S3Server, new_bucket: str) -> None:
    client = s3_server.client()
    client.create_bucket(Bucket=new_bucket)
    client.put_bucket_versioning(Bucket=new_bucket, VersioningConfiguration={"Status": "Enabled"})
    result = await run(f"s3://{new_bucket}")
    retention = result.of("retention")
    assert retention is not None
    assert retention.outcome is Outcome.DIFFERS
    assert "noncurrent version" in retention.detail
    assert not result.broken


async def test_a_bucket_in_another_region_is_made_there(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    use(moto, monkeypatch)
    bucket = moto.create_bucket("seed")
    moto.remove_bucket(bucket)
    async with open_storage(f"s3://{bucket}", OpenOptions(region="eu-central-1")) as storage:
        result = await seed(storage, SeedOptions())
    assert outcome(result, "bucket") is Outcome.DONE
    assert moto.client().get_bucket_location(Bucket=bucket)["LocationConstraint"] == "eu-central-1"
    assert result.configuration["storage"]["s3"]["region"] == "eu-central-1"


# -- what is refused


@pytest.mark.parametrize(
    ("operation", "method", "permission", "word"),
    [
        ("PutObject", "PUT", "write", "s3:PutObject"),
        ("GetObject", "GET", "read", "s3:GetObject"),
        ("ListObjectsV2", "GET", "list", "s3:ListBucket"),
        ("DeleteObject", "DELETE", "delete", "s3:DeleteObject"),
    ],
)
async def test_a_missing_permission_is_named(
    s3_server: S3Server, new_bucket: str, operation: str, method: str, permission: str, word: str
) -> None:
    s3_server.client().create_bucket(Bucket=new_bucket)
    await run(f"s3://{new_bucket}")
    with FaultProxy(s3_server.endpoint_url) as proxy:
        proxy.answer(403, "AccessDenied", method=method, operation=operation, times=None)
        async with open_storage(f"s3://{new_bucket}", OpenOptions(endpoint_url=proxy.endpoint_url)) as storage:
            result = await seed(storage, SeedOptions())
    denied = result.of(f"permission {permission}")
    assert denied is not None
    assert denied.outcome is Outcome.DENIED
    assert word in denied.detail
    assert denied in result.broken
    left = [key for key in s3_server.keys(new_bucket) if key not in SEEDS]
    if permission == "delete":
        assert len(left) == 1
        assert left[0] in denied.detail
    else:
        assert left == []


@pytest.mark.servers
@pytest.mark.parametrize(
    ("action", "broken"),
    [
        ("s3:ListBucket", {"permission list", "health 2.5", "health 2.6"}),
        ("s3:GetObject", {"permission read"}),
        ("s3:DeleteObject", {"permission delete"}),
        ("s3:ListBucketMultipartUploads", {"permission uploads"}),
        ("s3:PutObject", {"seed blobs", "seed repositories", "permission write", "health 2.6"}),
    ],
)
async def test_a_bucket_policy_that_denies(
    ceph: S3Server, ceph_bucket: str, monkeypatch: pytest.MonkeyPatch, action: str, broken: set[str]
) -> None:
    use(ceph, monkeypatch)
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": [action],
        "Resource": [f"arn:aws:s3:::{ceph_bucket}", f"arn:aws:s3:::{ceph_bucket}/*"],
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    ceph.client().put_bucket_policy(Bucket=ceph_bucket, Policy=json.dumps(policy))
    try:
        result = await run(f"s3://{ceph_bucket}")
        assert {check.name for check in result.broken} == broken
        checked = await run(f"s3://{ceph_bucket}", check=True)
        if action == "s3:ListBucket":
            assert {check.name for check in checked.broken} == broken
            assert not checked.missing
    finally:
        ceph.client().delete_bucket_policy(Bucket=ceph_bucket)


async def test_a_wrong_key_is_told_apart(
    s3_server: S3Server, new_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if s3_server.name != "ceph":
        pytest.skip("moto takes any key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(AuthenticationFailed):
        await run(f"s3://{new_bucket}")


async def test_an_endpoint_that_is_down_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    down = S3Server(f"http://127.0.0.1:{free_port()}", "key", "secret")
    use(down, monkeypatch)
    with pytest.raises(Unreachable):
        await run("s3://bucket")


async def test_a_bucket_that_may_not_be_made_raises(s3_server: S3Server, new_bucket: str) -> None:
    with FaultProxy(s3_server.endpoint_url) as proxy:
        proxy.answer(403, "AccessDenied", operation="CreateBucket", times=None)
        async with open_storage(f"s3://{new_bucket}", OpenOptions(endpoint_url=proxy.endpoint_url)) as storage:
            with pytest.raises(AccessDenied, match="creating the bucket"):
                await seed(storage, SeedOptions())


async def test_a_server_without_the_settings_only_warns(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    use(moto, monkeypatch)
    bucket = moto.create_bucket("seed")
    moto.remove_bucket(bucket)
    with FaultProxy(moto.endpoint_url) as proxy:
        for name, answer in (
            ("publicAccessBlock", (501, "NotImplemented")),
            ("encryption", (405, "MethodNotAllowed")),
            ("lifecycle", (400, "MalformedXML")),
        ):
            proxy.answer(*answer, query=f"^{name}", times=None)
        async with open_storage(f"s3://{bucket}", OpenOptions(endpoint_url=proxy.endpoint_url)) as storage:
            result = await seed(storage, SeedOptions())
    assert {outcome(result, name) for name in ("public access", "encryption", "lifecycle")} == {Outcome.UNSUPPORTED}
    assert not result.broken
    assert {check.name for check in result.warnings} == {"public access", "encryption", "lifecycle"}


@pytest.mark.parametrize("block_refuses", [1, 2])
async def test_a_block_that_ends_all_writes_is_taken_back(
    moto: S3Server, moto_bucket: str, monkeypatch: pytest.MonkeyPatch, block_refuses: int
) -> None:
    """As Ceph 16.2 does with BlockPublicAcls; and a server that would do it with any block at all."""
    use(moto, monkeypatch)
    client = moto.client()
    before = {
        "BlockPublicAcls": False,
        "IgnorePublicAcls": True,
        "BlockPublicPolicy": False,
        "RestrictPublicBuckets": False,
    }
    client.put_public_access_block(Bucket=moto_bucket, PublicAccessBlockConfiguration=before)
    blocked = 0
    with FaultProxy(moto.endpoint_url) as proxy:

        def refuses(request: Request) -> bool:
            nonlocal blocked
            if request.method == "PUT" and "publicAccessBlock" in request.query:
                blocked += 1
            return request.method == "PUT" and "/probe-" in request.key and 1 <= blocked <= block_refuses

        proxy.answer(403, "AccessDenied", when=refuses, times=None)
        async with open_storage(f"s3://{moto_bucket}", OpenOptions(endpoint_url=proxy.endpoint_url)) as storage:
            result = await seed(storage, SeedOptions(apply_settings=True))
    after = client.get_public_access_block(Bucket=moto_bucket)["PublicAccessBlockConfiguration"]
    if block_refuses == 1:
        assert outcome(result, "public access") is Outcome.DONE
        assert after == dict.fromkeys(before, True) | {"BlockPublicAcls": False}
    else:
        assert outcome(result, "public access") is Outcome.UNSUPPORTED
        assert after == before
    assert set(moto.keys(moto_bucket)) == SEEDS


def test_a_check_cannot_apply() -> None:
    with pytest.raises(InputError):
        SeedOptions(check=True, apply_settings=True)


# -- a folder


async def test_a_folder_is_made_and_seeded(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "registry"
    result = await run(folder)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == SEEDS
    assert {path.name for path in folder.iterdir()} == {"docker"}
    assert not result.broken
    assert outcome(result, "folder") is Outcome.DONE
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    again = await run(folder)
    assert {outcome(again, name) for name in ("folder", "seed blobs", "seed repositories")} == {Outcome.OK}
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == times


async def test_a_check_leaves_a_folder_alone(tmp_path: Path) -> None:
    result = await run(tmp_path / "none", check=True)
    assert [check.name for check in result.missing] == ["folder"]
    assert not (tmp_path / "none").exists()
    result = await run(tmp_path, check=True)
    assert {check.name for check in result.missing} == {"seed blobs", "seed repositories"}
    assert list(tmp_path.iterdir()) == []


async def test_our_state_in_a_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "regstore" / "locks").mkdir(parents=True)
    await run(tmp_path)
    assert (tmp_path / "regstore" / "locks").is_dir()


async def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="can't be made"):
        await run(tmp_path / "file" / "registry")


# -- the configuration that it prints


async def test_its_configuration_leads_back_to_the_store(s3_server: S3Server, new_bucket: str) -> None:
    url = f"s3://{new_bucket}/a/b"
    result = await run(url)
    text = yaml.safe_dump(dict(result.configuration))
    assert s3_server.secret_key not in text + str(result.environment)
    from_file = parse_registry_config(text.encode(), {}, where="config.yml")
    image = b"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: /var/lib/registry\n"
    from_environment = parse_registry_config(image, dict(result.environment), where="config.yml")
    for config in (from_file, from_environment):
        assert str(config.location) == url
        assert config.s3 is not None
        assert config.s3.endpoint_url == s3_server.endpoint_url
        assert config.delete_enabled


# -- a real registry on it


class Printed(Registry):
    """A registry with the configuration that seeding printed, and the keys beside it."""

    printed: SeedResult

    def configuration(self) -> dict[str, Any]:
        mine = super().configuration()
        printed: dict[str, Any] = yaml.safe_load(yaml.safe_dump(dict(self.printed.configuration)))
        assert printed["health"]["storagedriver"]["enabled"] is True
        printed["http"] = mine["http"]
        printed["health"]["storagedriver"].update(interval="1s", threshold=2)
        if "s3" in printed["storage"]:
            keys = {name: mine["storage"]["s3"][name] for name in ("accesskey", "secretkey")}
            printed["storage"]["s3"].update(keys)
        return printed


def store_of(storage: Path | S3Root) -> str:
    return str(storage) if isinstance(storage, Path) else f"s3://{storage.bucket}{storage.rootdirectory}"


async def seeded(storage: Path | S3Root, monkeypatch: pytest.MonkeyPatch) -> SeedResult:
    if isinstance(storage, S3Root):
        use(storage.server, monkeypatch)
        storage.server.client().delete_bucket(Bucket=storage.bucket)
    result = await run(store_of(storage))
    assert not result.broken
    return result


@pytest.mark.servers
async def test_a_registry_is_well_on_it(
    registry_storage: Path | S3Root, with_skopeo: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Printed(registry_storage)
    registry.printed = await seeded(registry_storage, monkeypatch)
    first, second = images.image("first"), images.multiarch("second")
    oci = images.write_oci_layout(tmp_path / "oci", {"1": first, "2": second})
    with registry:
        assert registry.request("GET", "/v2/")[0] == 200
        started = time.monotonic()
        assert registry.debug_health() == (200, {})
        assert registry.catalog() == []
        for arguments in (("-d",), ()):
            registry.garbage_collect(*arguments)
        assert registry.debug_health() == (200, {})
        skopeo.push(oci, "1", registry.host, "team/app")
        assert registry.catalog() == ["team/app"]
        registry.garbage_collect()
        assert not (await run(store_of(registry_storage))).broken
        skopeo.push(oci, "2", registry.host, "team/app")
        assert "0 blobs" in registry.garbage_collect("-d").stdout
        registry.garbage_collect()
        for tag in ("1", "2"):
            skopeo.pull(registry.host, "team/app", tag)
        # An interval of 1 s and a threshold of 2: only now has the check been able to fail.
        wait_until(lambda: time.monotonic() - started > 3.5, "three health checks")
        assert registry.debug_health() == (200, {})


@pytest.mark.servers
async def test_a_registry_is_well_by_the_compose_environment(
    registry_storage: Path | S3Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.servers.debian import require

    require(PROGRAM)
    result = await seeded(registry_storage, monkeypatch)
    port, debug = free_port(), free_port()
    config = tmp_path / "image.yml"
    config.write_text(
        "version: 0.1\nstorage:\n  cache:\n    blobdescriptor: inmemory\n  filesystem:\n"
        f"    rootdirectory: {tmp_path / 'image'}\nhttp:\n  addr: 127.0.0.1:{port}\n"
        f"  secret: x\n  debug:\n    addr: 127.0.0.1:{debug}\n"
    )
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testtest"}
    if isinstance(registry_storage, S3Root):
        keys["AWS_ACCESS_KEY_ID"] = registry_storage.server.access_key
        keys["AWS_SECRET_ACCESS_KEY"] = registry_storage.server.secret_key
    environment = dict(result.environment)
    for name, value in environment.items():
        if value.startswith("${"):  # as docker compose substitutes
            environment[name] = keys[value[2:-1]]
    environment["REGISTRY_HEALTH_STORAGEDRIVER_INTERVAL"] = "1s"
    environment["REGISTRY_HEALTH_STORAGEDRIVER_THRESHOLD"] = "2"
    child = Child([PROGRAM, "serve", str(config)], tmp_path / "log", clean_environment(tmp_path, **environment))
    registry = Registry(registry_storage)
    try:

        def answers() -> bool:
            try:
                return registry.request("GET", "/v2/_catalog", port=port)[0] == 200
            except OSError:
                return False

        wait_until(answers, "the registry to answer", 30)
        # An interval of 1 s and a threshold of 2: only now has the check been able to fail.
        started = time.monotonic()
        wait_until(lambda: time.monotonic() - started > 3.5, "three health checks")
        assert registry.request("GET", "/debug/health", port=debug)[::2] == (200, b"{}")
        assert not (tmp_path / "image").exists()
    finally:
        child.stop()
        registry.close()


def test_results_know_what_is_wrong() -> None:
    checks = (
        Check("a", Outcome.DENIED, required=True),
        Check("b", Outcome.MISSING, required=True),
        Check("c", Outcome.DIFFERS),
        Check("d", Outcome.OK),
        Check("e", Outcome.SKIPPED),
    )
    result = SeedResult(url="x", checks=checks)
    assert [check.name for check in result.broken] == ["a"]
    assert [check.name for check in result.missing] == ["b"]
    assert [check.name for check in result.warnings] == ["c"]
