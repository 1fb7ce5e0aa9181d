"""`regstore seed-bucket` as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from regstore import layout
from tests.cli.conftest import Run
from tests.servers.fault_proxy import FaultProxy
from tests.servers.s3 import S3Server


def use(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)


def test_a_folder_as_text(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    said = run("seed-bucket", folder)
    assert (said.code, said.err) == (0, "")
    assert "Ready: " in said.out
    config = said.out.partition("config.yml of the registry:\n")[2].partition("Or, in a compose file:")
    assert yaml.safe_load(config[0])["health"]["storagedriver"]["enabled"] is True
    environment = yaml.safe_load(config[2])["environment"]
    assert environment["REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY"] == str(folder)
    assert all(isinstance(value, str) for value in environment.values())
    assert run("ls", folder).code == 0


def test_json(run: Run, s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(s3_server, monkeypatch)
    said = run("seed-bucket", "--json", f"s3://{s3_bucket}/reg")
    document = said.json
    assert said.code == 0
    assert document["ready"] is True
    assert said.envelope["store"] == f"s3://{s3_bucket}/reg"
    outcomes = {check["name"]: check["outcome"] for check in document["checks"]}
    assert outcomes["bucket"] == outcomes["health 2.6"] == "ok"
    assert outcomes["seed blobs"] == "done"
    assert document["configuration"]["storage"]["s3"]["rootdirectory"] == "/reg"
    assert s3_server.secret_key not in said.out
    assert "regstore: warning: lifecycle: " in said.err
    assert set(s3_server.keys(s3_bucket)) == {f"reg/{layout.encode(key)}" for key in layout.SEEDS}


def test_a_check_with_something_missing_is_3(run: Run, tmp_path: Path) -> None:
    assert run("seed-bucket", "--check", tmp_path).code == 3
    assert run("seed-bucket", tmp_path).code == 0
    said = run("seed-bucket", "--check", tmp_path)
    assert said.code == 0
    assert "missing" not in said.out


def test_a_denied_delete_is_1_and_says_so(
    run: Run, moto: S3Server, moto_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(moto, monkeypatch)
    with FaultProxy(moto.endpoint_url) as proxy:
        proxy.answer(403, "AccessDenied", method="DELETE", times=None)
        said = run("seed-bucket", f"s3://{moto_bucket}", "--endpoint-url", proxy.endpoint_url)
    assert said.code == 1
    assert "regstore: permission delete: " in said.err
    assert "s3:DeleteObject" in said.err
    assert "Ready" not in said.out


def test_a_setting_that_is_denied_is_3(run: Run, moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    use(moto, monkeypatch)
    bucket = moto.create_bucket("seed")
    moto.remove_bucket(bucket)
    with FaultProxy(moto.endpoint_url) as proxy:
        proxy.answer(403, "AccessDenied", query="^encryption", times=None)
        said = run("seed-bucket", f"s3://{bucket}", "--endpoint-url", proxy.endpoint_url)
    assert said.code == 3
    assert "regstore: warning: encryption: " in said.err


@pytest.mark.parametrize("setting", ["versioning", "object-lock", "encryption", "lifecycle", "publicAccessBlock"])
def test_a_setting_that_may_not_be_seen_is_no_harm(
    run: Run, moto: S3Server, moto_bucket: str, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    use(moto, monkeypatch)
    with FaultProxy(moto.endpoint_url) as proxy:
        proxy.answer(403, "AccessDenied", query=f"^{setting}", times=None)
        said = run("seed-bucket", "--json", f"s3://{moto_bucket}", "--endpoint-url", proxy.endpoint_url)
    assert said.code == 0, said.err
    assert "denied" not in [check["outcome"] for check in said.json["checks"]]


def test_check_and_apply_exclude_each_other(run: Run, tmp_path: Path) -> None:
    run("seed-bucket", "--check", "--apply-settings", tmp_path).failed(2, "check")


def test_a_registry_configuration_names_the_store(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    config.write_text(f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {tmp_path / 'registry'}\n")
    assert run("seed-bucket", "--registry-config", config).code == 0
    assert (tmp_path / "registry" / layout.encode(layout.SEEDS[0])).is_file()
