"""The manifests: valid by the schemas of Kubernetes, whole in what they refer to, and as strict as they can be."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from regstore.deployment import config_yml, kubernetes, nightly
from regstore.deployment.wanted import (
    CONFIG,
    HTPASSWD,
    REGISTRY_ENV,
    REGSTORE_ENV,
    SERVER_CERT,
    SERVER_KEY,
    STORE_CA,
    Form,
)
from tests.deployment.asked import CASES, case
from tests.servers.process import which

#: The oldest that the schemas are there for, and a new one.
VERSIONS = ("1.25", "1.34")
#: What stands in DIR that other modules make.
STANDING = (REGISTRY_ENV, REGSTORE_ENV, HTPASSWD, SERVER_CERT, SERVER_KEY, STORE_CA)

Manifest = dict[str, Any]


@cache
def written(name: str) -> dict[str, list[Manifest]]:
    files = kubernetes.files(case(name, form=Form.KUBERNETES))
    return {file.path: list(yaml.safe_load_all(file.content)) for file in files if file.path.endswith(".yaml")}


def manifests(name: str) -> list[Manifest]:
    return [each for path, found in written(name).items() if path != kubernetes.KUSTOMIZATION for each in found]


def one(name: str, kind: str, called: str) -> Manifest:
    (found,) = [each for each in manifests(name) if (each["kind"], each["metadata"]["name"]) == (kind, called)]
    return found


def pods(name: str) -> Iterator[Manifest]:
    for manifest in manifests(name):
        if manifest["kind"] == "Deployment":
            yield manifest["spec"]["template"]["spec"]
        elif manifest["kind"] == "CronJob":
            yield manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", CASES)
def test_they_keep_to_the_schemas(name: str, version: str) -> None:
    for manifest in manifests(name):
        kubernetes_validate.validate(manifest, version, strict=True)
        assert "namespace" not in manifest["metadata"]
    named = [(each["kind"], each["metadata"]["name"]) for each in manifests(name)]
    assert len(set(named)) == len(named)


@pytest.mark.parametrize("name", CASES)
def test_whatever_is_referred_to_is_there(name: str) -> None:
    (kustomization,) = written(name)[kubernetes.KUSTOMIZATION]
    assert set(kustomization["resources"]) == set(written(name)) - {kubernetes.KUSTOMIZATION}
    made: dict[tuple[str, str], set[str]] = {}
    sources = set()
    for kind, field in (("configMap", "configMapGenerator"), ("secret", "secretGenerator")):
        for generator in kustomization[field]:
            entries = [entry.rpartition("=") for entry in generator.get("files", [])]
            made[kind, generator["name"]] = {key or path for key, _, path in entries}
            sources |= {path for _, _, path in entries} | set(generator.get("envs", []))
    assert sources <= {CONFIG, nightly.REGSTORE_TOML, *STANDING}
    claims = {each["metadata"]["name"] for each in manifests(name) if each["kind"] == "PersistentVolumeClaim"}
    accounts = {each["metadata"]["name"] for each in manifests(name) if each["kind"] == "ServiceAccount"}
    for pod in pods(name):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        (container,) = pod["containers"]
        assert [mount["name"] for mount in container["volumeMounts"]] == list(volumes)
        assert ("secret", container["envFrom"][0]["secretRef"]["name"]) in made
        assert pod["serviceAccountName"] in accounts
        for source in volumes["files"]["projected"]["sources"]:
            ((kind, part),) = source.items()
            assert {item["key"] for item in part["items"]} <= made[kind, part["name"]]
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims


def test_a_pod_has_the_files_where_they_are_looked_for() -> None:
    asked = case("everything", form=Form.KUBERNETES)
    text = json.dumps(config_yml.configuration(asked)) + nightly.render(asked)
    for pod in pods("everything"):
        sources = pod["volumes"][0]["projected"]["sources"]
        there = {item["path"] for source in sources for part in source.values() for item in part["items"]}
        is_nightly = pod["containers"][0]["name"] == "nightly"
        # The job lets nobody in.
        assert there == {
            CONFIG,
            STORE_CA,
            *([nightly.REGSTORE_TOML] if is_nightly else [HTPASSWD, SERVER_CERT, SERVER_KEY]),
        }
    assert asked.seen(SERVER_KEY) in text


@pytest.mark.parametrize("name", CASES)
def test_who_runs_may_do_little(name: str) -> None:
    for pod in pods(name):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert "Secret" not in {each["kind"] for each in manifests(name)}


def test_replicas_follow_the_store() -> None:
    spec = one("everything", "Deployment", "registry")["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (2, "RollingUpdate")
    assert one("everything", "PodDisruptionBudget", "registry")["spec"]["minAvailable"] == 1
    assert "podAntiAffinity" in spec["template"]["spec"]["affinity"]
    assert "affinity" not in pod_of("everything", "registry-serve")
    assert "affinity" not in pod_of("folders", "registry")
    spec = one("folders", "Deployment", "registry")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    # Its claim is one node's, so the job goes there.
    job = one("folders", "CronJob", "registry-nightly")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (term,) = job["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"]["matchLabels"] == spec["template"]["metadata"]["labels"]


def test_what_is_reached() -> None:
    everything = one("everything", "Deployment", "registry")["spec"]["template"]["spec"]
    (container,) = everything["containers"]
    assert container["ports"] == [{"name": "registry", "containerPort": 443}]
    assert everything["securityContext"]["sysctls"] == [
        {"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}
    ]
    assert container["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"
    assert one("everything", "Service", "registry")["spec"]["type"] == "LoadBalancer"
    assert one("behind a proxy", "Service", "registry")["spec"]["type"] == "ClusterIP"
    policy = one("everything", "NetworkPolicy", "registry")["spec"]
    assert policy["ingress"] == [{"ports": [{"protocol": "TCP", "port": 443}]}]
    assert one("everything", "NetworkPolicy", "registry-nightly")["spec"]["ingress"] == []


def pod_of(name: str, part: str) -> Manifest:
    kind = "CronJob" if part == "registry-nightly" else "Deployment"
    spec: Manifest = one(name, kind, part)["spec"]
    pod: Manifest = (spec["jobTemplate"]["spec"] if kind == "CronJob" else spec)["template"]["spec"]
    return pod


def test_the_pages_are_there_where_they_are_asked_for() -> None:
    assert "kubernetes/serve.yaml" not in written("plain")
    (container,) = pod_of("folders", "registry-serve")["containers"]
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    assert mounts["/var/lib/registry"] is True
    assert mounts["/var/cache/regstore"] is False
    assert container["args"][0] == "serve"
    (job,) = pod_of("folders", "registry-nightly")["containers"]
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in job["volumeMounts"]}
    assert (mounts["/var/lib/registry"], mounts["/var/lib/regstore-backup"]) == (False, False)
    assert job["args"] == ["run", "nightly"]


def test_a_new_claim_is_made_a_store() -> None:
    for part in ("registry-serve", "registry-nightly"):
        (seed,) = pod_of("folders", part)["initContainers"]
        assert seed["args"] == ["seed-bucket", "--registry-config", "/etc/registry/config.yml"]
        (mount,) = (each for each in seed["volumeMounts"] if each["name"] == "store")
        assert "readOnly" not in mount
        assert {each["name"] for each in seed["volumeMounts"]} <= {
            each["name"] for each in pod_of("folders", part)["volumes"]
        }
        assert "initContainers" not in pod_of("everything", part)
    assert "initContainers" not in pod_of("folders", "registry")  # it needs no image of regstore


def test_whose_keys_and_environment() -> None:
    """A role is of an account, so the registry's and regstore's are two."""
    for part, account, secret in (
        ("registry", "registry", "registry-env"),
        ("registry-serve", "regstore", "regstore-env"),
        ("registry-nightly", "regstore", "regstore-env"),
    ):
        pod = pod_of("everything", part)
        (container,) = pod["containers"]
        assert pod["serviceAccountName"] == account
        assert container["envFrom"] == [{"secretRef": {"name": secret}}]
    (registry,) = pod_of("everything", "registry")["containers"]
    said = {each["name"]: each["value"] for each in registry["env"]}
    assert said == {"OTEL_TRACES_EXPORTER": "none", "SSL_CERT_FILE": "/etc/registry/tls/store-ca.crt"}
    assert "env" not in pod_of("plain", "registry")["containers"][0]
    (job,) = pod_of("everything", "registry-nightly")["containers"]
    said = {each["name"]: each["value"] for each in job["env"]}
    assert said["REGSTORE_CONFIG"] == "/etc/registry/regstore.toml"
    assert said["AWS_CA_BUNDLE"] == "/etc/registry/tls/store-ca.crt"


def test_an_image_that_is_not_published_is_never_pulled() -> None:
    assert pod_of("plain", "registry-nightly")["containers"][0]["imagePullPolicy"] == "Never"
    assert "imagePullPolicy" not in pod_of("behind a proxy", "registry-nightly")["containers"][0]
    assert "imagePullPolicy" not in pod_of("plain", "registry")["containers"][0]


def test_a_failed_night_is_not_repeated_at_once() -> None:
    job = one("plain", "CronJob", "registry-nightly")["spec"]
    assert (job["schedule"], job["concurrencyPolicy"]) == ("30 2 * * *", "Forbid")
    assert job["jobTemplate"]["spec"]["backoffLimit"] == 0


@pytest.mark.long
def test_kustomize_makes_them_whole(tmp_path: Path) -> None:
    """kubectl's own, which gives the Secrets their names; that of Debian 12 is older than what is asked for."""
    kubectl = which("kubectl")
    help_text = (
        subprocess.run([kubectl, "version", "--client"], capture_output=True, text=True) if kubectl else None
    )
    if help_text is None or "Kustomize Version: v5" not in help_text.stdout:
        pytest.skip("needs a kubectl with kustomize 5, which no package of Debian 12 has")
    asked = case("everything", form=Form.KUBERNETES)
    folder = tmp_path / "d i $r"
    for file in [*kubernetes.files(asked), *config_yml.files(asked)]:
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / file.path).write_bytes(file.content)
    for path in STANDING:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("# Secret: mode 0600.\nNAME=a/b+c=!%&\n")
    result = subprocess.run(
        [str(kubectl), "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=True
    )
    found = list(yaml.safe_load_all(result.stdout))
    for manifest in found:
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)
    secrets = {each["metadata"]["name"]: each for each in found if each["kind"] == "Secret"}
    (environment,) = [name for name in secrets if name.startswith("registry-env-")]
    assert list(secrets[environment]["data"]) == ["NAME"]
    # Names with the hash of the content, also where pods refer to them.
    said = json.dumps([each for each in found if each["kind"] in ("Deployment", "CronJob")])
    maps = [each["metadata"]["name"] for each in found if each["kind"] == "ConfigMap"]
    assert all(f'"{name}"' in said for name in [*secrets, *maps])
