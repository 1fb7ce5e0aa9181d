"""Kubernetes manifests, as a folder for `kubectl apply -k`. Pure.

The Secrets and ConfigMaps are made by kustomize (of kubectl 1.21 or newer) of the files in DIR: so what is secret is in
no manifest, and each gets a name with the hash of its content, by which a new password or a renewed certificate makes
pods anew. Nothing names a namespace: `-n` does.

- All of a pod's files are one projected volume, laid out as DIR is: a change reaches it whole.
- Pods run as nobody in particular, without capabilities, on a root that they can't write; a store that is a folder is
  a claim that belongs to their group.
- Ready is who answers on the registry's own port: while its storage health check fails, that answers 503. Alive is who
  answers at all, on the debug server: to restart registries because a bucket is away would cure nothing.
- Kubernetes tells pods of services by variables such as REGISTRY_PORT, which the registry would take for its
  configuration: `enableServiceLinks` is off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from regstore.deployment import containers, nightly
from regstore.deployment.config_yml import DRAIN, registry_environment
from regstore.deployment.wanted import (
    CONFIG,
    CONTAINER_FOLDER,
    HTPASSWD,
    REGISTRY_ENV,
    REGSTORE_ENV,
    SERVER_CERT,
    SERVER_KEY,
    STORE_CA,
    Deployment,
    Tls,
    WantedFile,
)

KUSTOMIZATION: Final = "kustomization.yaml"
FOLDER: Final = "kubernetes"

#: "nonroot" of images without a shell: who runs is nobody whom a node knows.
_USER: Final = 65532
_NAME: Final = "app.kubernetes.io/name"
_PART: Final = "app.kubernetes.io/component"
#: What a claim asks for; an overlay says what is right.
_SIZES: Final = {"store": "100Gi", "backup": "100Gi", "cache": "5Gi"}
#: Seconds until all know that a pod is to go; for what is under way then; and for one night.
_NOTICE: Final = 5
_GRACE: Final = _NOTICE + DRAIN + 10
_NIGHT: Final = 20 * 3600

_CONFIG: Final = "registry-config"
_REGSTORE: Final = "regstore-config"
_AUTH: Final = "registry-auth"
_TLS: Final = "registry-tls"
_STORE_CA: Final = "registry-store-ca"
_ENV: Final = {"registry": "registry-env", "regstore": "regstore-env"}

_COMMENT: Final = """\
Made by `regstore init`: run that again to change it. For what it does not know (sizes and classes of claims, limits, an
ingress, roles of service accounts), write a kustomization of your own elsewhere, that has this folder as its resource.
"""

Manifest = dict[str, Any]


def files(deployment: Deployment) -> list[WantedFile]:
    found = {f"{FOLDER}/registry.yaml": _registry(deployment), f"{FOLDER}/nightly.yaml": _nightly(deployment)}
    if deployment.with_serve:
        found[f"{FOLDER}/serve.yaml"] = _serve(deployment)
    kustomization = _kustomization(deployment, sorted(found))
    manifests = {KUSTOMIZATION: [kustomization], **found}
    made = [WantedFile(path=path, content=containers.render(each, _COMMENT)) for path, each in manifests.items()]
    return [*made, *nightly.files(deployment)]


def _kustomization(deployment: Deployment, resources: list[str]) -> Manifest:
    secrets: list[Manifest] = [
        {"name": _ENV["registry"], "envs": [REGISTRY_ENV]},
        {"name": _ENV["regstore"], "envs": [REGSTORE_ENV]},
        {"name": _AUTH, "files": [_named(HTPASSWD)]},
    ]
    if deployment.tls is not Tls.NONE:
        secrets.append({"name": _TLS, "files": [_named(SERVER_CERT), _named(SERVER_KEY)]})
    config_maps: list[Manifest] = [
        {"name": _CONFIG, "files": [CONFIG]},
        {"name": _REGSTORE, "files": [nightly.REGSTORE_TOML]},
    ]
    if deployment.store_ca:
        config_maps.append({"name": _STORE_CA, "files": [_named(STORE_CA)]})
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": resources,
        "configMapGenerator": config_maps,
        "secretGenerator": secrets,
    }


# -- the registry


def _registry(deployment: Deployment) -> list[Manifest]:
    image = containers.registry_image(deployment)
    environment = registry_environment(deployment)
    # Kubernetes may ask a pod on its own address only, and the debug server is on loopback, so a command asks that.
    alive = {"exec": {"command": containers.asks_registry(deployment, "/metrics")}}
    ready = {"httpGet": {"path": "/", "port": "registry", "scheme": _scheme(deployment)}}
    container: Manifest = {
        "name": "registry",
        "image": image,
        "args": containers.registry_arguments(deployment),
        **_environment("registry", environment),
        "ports": [{"name": "registry", "containerPort": deployment.port}],
        "startupProbe": {**ready, "periodSeconds": 2, "failureThreshold": 60},
        "readinessProbe": {**ready, "periodSeconds": 10, "timeoutSeconds": 5},
        "livenessProbe": {**alive, "periodSeconds": 30, "timeoutSeconds": 10},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(_NOTICE)]}}},
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "securityContext": _confined(),
        "volumeMounts": _mounts(deployment, "store"),
    }
    return [
        _account("registry"),
        *_claims(deployment, "store"),
        _deployment(deployment, "registry", container, _volumes(deployment, _for_clients(deployment), "store")),
        *([] if deployment.on_disk else [_disruption("registry")]),
        _service(deployment, "registry", deployment.port),
        _network_policy("registry", [deployment.port]),
    ]


# -- regstore


def _serve(deployment: Deployment) -> list[Manifest]:
    ready = {"httpGet": {"path": "/healthz", "port": "serve", "scheme": _scheme(deployment)}}
    container: Manifest = {
        **_regstore(deployment, "serve", containers.serve_arguments(deployment), nightly.environment(deployment)),
        "ports": [{"name": "serve", "containerPort": deployment.serve_port}],
        "startupProbe": {**ready, "periodSeconds": 2, "failureThreshold": 60},
        "readinessProbe": {**ready, "periodSeconds": 10, "timeoutSeconds": 5},
        "livenessProbe": {**ready, "periodSeconds": 30, "timeoutSeconds": 10},
        "volumeMounts": [*_mounts(deployment, "store", read_only=True), *_scratch_mounts("tmp", "serve-cache")],
    }
    volumes = [*_volumes(deployment, _for_clients(deployment), "store"), _empty("tmp"), _empty("serve-cache")]
    return [
        _deployment(deployment, "serve", container, volumes),
        _service(deployment, "serve", deployment.serve_port),
        _network_policy("serve", [deployment.serve_port]),
    ]


def _nightly(deployment: Deployment) -> list[Manifest]:
    own = _part("configMap", _REGSTORE, [nightly.REGSTORE_TOML])
    container: Manifest = {
        **_regstore(deployment, "nightly", nightly.arguments(), nightly.job_environment(deployment)),
        "volumeMounts": [*_mounts(deployment, "store", "backup"), *_scratch_mounts("tmp", "cache")],
    }
    volumes = [*_volumes(deployment, [own], "store", "backup"), _empty("tmp"), _claimed("cache")]
    pod = {**_pod(deployment, "nightly", container, volumes, account="regstore"), "restartPolicy": "Never"}
    at = deployment.nightly
    job = {
        "schedule": f"{at.minute} {at.hour} * * *",
        # Two would meet at the store's lock.
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 3600,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 7,
        "jobTemplate": {
            "spec": {
                # Damage is not cured by looking again: the next night does, or somebody.
                "backoffLimit": 0,
                "activeDeadlineSeconds": _NIGHT,
                "template": {"metadata": {"labels": _labels("nightly")}, "spec": pod},
            }
        },
    }
    return [
        _account("regstore"),
        *_claims(deployment, "backup"),
        _claim("cache"),
        {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": _metadata("nightly"), "spec": job},
        _network_policy("nightly", []),
    ]


def _regstore(deployment: Deployment, name: str, arguments: list[str], environment: Mapping[str, str]) -> Manifest:
    image = containers.regstore_image(deployment)
    return {
        "name": name,
        "image": image,
        # It was put on the nodes, and is nowhere else.
        **({"imagePullPolicy": "Never"} if containers.is_built_here(image) else {}),
        "args": arguments,
        **_environment("regstore", environment),
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
        "securityContext": _confined(),
    }


# -- parts of manifests


def _metadata(part: str, name: str = "") -> Manifest:
    return {"name": name or _called(part), "labels": _labels(part)}


def _called(part: str) -> str:
    return part if part == "registry" else f"registry-{part}"


def _labels(part: str) -> dict[str, str]:
    return {_NAME: "registry", _PART: part}


def _account(name: str) -> Manifest:
    """For a role that gives keys; no pod talks to Kubernetes."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "labels": {_NAME: "registry"}},
        "automountServiceAccountToken": False,
    }


def _claims(deployment: Deployment, *names: str) -> list[Manifest]:
    return [_claim(name) for name in names if name in containers.folders(deployment)]


def _claim(name: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _metadata(name, f"registry-{name}"),
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": _SIZES[name]}}},
    }


def _deployment(deployment: Deployment, part: str, container: Manifest, volumes: list[Manifest]) -> Manifest:
    """Of a bucket two registries serve, so that one may go; a claim is one node's, so there the old one goes first."""
    is_doubled = part == "registry" and not deployment.on_disk
    change: Manifest = {"type": "Recreate"}
    if not deployment.on_disk:
        change = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    account = "registry" if part == "registry" else "regstore"
    pod = _pod(deployment, part, container, volumes, account=account)
    if is_doubled:
        term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": _labels(part)}}
        spread = [{"weight": 100, "podAffinityTerm": term}]
        pod["affinity"] = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": spread}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(part),
        "spec": {
            "replicas": 2 if is_doubled else 1,
            "strategy": change,
            "selector": {"matchLabels": _labels(part)},
            "template": {"metadata": {"labels": _labels(part)}, "spec": pod},
        },
    }


def _pod(
    deployment: Deployment, part: str, container: Manifest, volumes: list[Manifest], *, account: str
) -> Manifest:
    context: Manifest = {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "fsGroup": _USER,
        # A store has millions of files: its group is set once, not at every start.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    ports = [each["containerPort"] for each in container.get("ports", [])]
    if any(port < containers.FIRST_FREE_PORT for port in ports):
        context["sysctls"] = [{"name": containers.LOW_PORTS, "value": "0"}]
    pod: Manifest = {
        "serviceAccountName": account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE,
        "securityContext": context,
        "containers": [container],
        "volumes": volumes,
    }
    if deployment.on_disk and part != "registry":
        pod["initContainers"] = [_seeding(deployment)]
        # The store's claim is of one node: that of the registry.
        term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": _labels("registry")}}
        pod["affinity"] = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    return pod


def _seeding(deployment: Deployment) -> Manifest:
    """A new claim is empty, and to regstore no registry's store; where it is one, this does nothing."""
    arguments = ["seed-bucket", "--registry-config", deployment.seen(CONFIG)]
    return {
        **_regstore(deployment, "seed", arguments, nightly.environment(deployment)),
        "volumeMounts": [*_mounts(deployment, "store"), {"name": "tmp", "mountPath": "/tmp"}],
    }


def _disruption(part: str) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(part),
        "spec": {"minAvailable": 1, "selector": {"matchLabels": _labels(part)}},
    }


def _service(deployment: Deployment, part: str, port: int) -> Manifest:
    """Clients, and the nodes that pull, come from outside. Without TLS, what ends it comes from within."""
    kind = "ClusterIP" if deployment.tls is Tls.NONE else "LoadBalancer"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(part),
        "spec": {
            "type": kind,
            "selector": _labels(part),
            "ports": [{"name": part, "port": port, "targetPort": part}],
        },
    }


def _network_policy(part: str, ports: Sequence[int]) -> Manifest:
    """In comes what the ports are for; out may go what wants to: to the store, wherever that is."""
    allowed = [{"ports": [{"protocol": "TCP", "port": port} for port in ports]}] if ports else []
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(part),
        "spec": {
            "podSelector": {"matchLabels": _labels(part)},
            "policyTypes": ["Ingress"],
            "ingress": allowed,
        },
    }


def _confined() -> Manifest:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _scheme(deployment: Deployment) -> str:
    return "HTTP" if deployment.tls is Tls.NONE else "HTTPS"


def _environment(secret: str, plain: Mapping[str, str]) -> Manifest:
    found: Manifest = {"envFrom": [{"secretRef": {"name": _ENV[secret]}}]}
    if plain:
        found["env"] = [{"name": name, "value": value} for name, value in plain.items()]
    return found


# -- volumes


def _named(path: str) -> str:
    """An entry of a generator: under the file's own name."""
    return f"{PurePosixPath(path).name}={path}"


def _for_clients(deployment: Deployment) -> list[Manifest]:
    """What only who serves has: whom to let in, and what to show."""
    found = [_part("secret", _AUTH, [HTPASSWD])]
    if deployment.tls is not Tls.NONE:
        found.append(_part("secret", _TLS, [SERVER_CERT, SERVER_KEY]))
    return found


def _volumes(deployment: Deployment, more: list[Manifest], *names: str) -> list[Manifest]:
    """The files of DIR, and the folders of that name that there are."""
    sources = [_part("configMap", _CONFIG, [CONFIG])]
    if deployment.store_ca:
        sources.append(_part("configMap", _STORE_CA, [STORE_CA]))
    # Of its group, for who runs is no owner.
    files = {"name": "files", "projected": {"defaultMode": 0o440, "sources": [*sources, *more]}}
    return [files, *(_claimed(name) for name in names if name in containers.folders(deployment))]


def _part(kind: str, name: str, paths: list[str]) -> Manifest:
    return {kind: {"name": name, "items": [{"key": PurePosixPath(path).name, "path": path} for path in paths]}}


def _claimed(name: str) -> Manifest:
    return {"name": name, "persistentVolumeClaim": {"claimName": f"registry-{name}"}}


def _empty(name: str) -> Manifest:
    return {"name": name, "emptyDir": {}}


def _mounts(deployment: Deployment, *names: str, read_only: bool = False) -> list[Manifest]:
    found: list[Manifest] = [{"name": "files", "mountPath": str(CONTAINER_FOLDER), "readOnly": True}]
    for name, (_, target) in containers.folders(deployment).items():
        if name in names:
            found.append({"name": name, "mountPath": str(target), **({"readOnly": True} if read_only else {})})
    return found


def _scratch_mounts(tmp: str, cache: str) -> list[Manifest]:
    return [{"name": tmp, "mountPath": "/tmp"}, {"name": cache, "mountPath": str(nightly.CACHE_FOLDER)}]
