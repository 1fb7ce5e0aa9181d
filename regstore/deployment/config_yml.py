"""The registry's config.yml, for Distribution 2.8 and for 3.x. Pure.

The two read the same file but for Redis: 2.8 has `addr` and a `pool`, 3.x hands `addrs` to its client, which pools by
itself, and calls the variable of the password REGISTRY_REDIS_OPTIONS_PASSWORD. Besides, 3.x sends traces to this
computer unless OTEL_TRACES_EXPORTER says none (`registry_environment`), and its image has the file in
/etc/distribution, that of 2.8 in /etc/docker/registry.
"""

from __future__ import annotations

from typing import Any, Final

from regstore.deployment.wanted import (
    CONFIG,
    HTPASSWD,
    REGISTRY_ENV,
    SERVER_CERT,
    SERVER_KEY,
    STORE_CA,
    Cache,
    Deployment,
    RegistryVersion,
    Tls,
    WantedFile,
)
from regstore.storage import registry_yaml

REALM: Final = "registry"
#: Seconds in which what is under way may end when the registry is told to: less than who runs it waits.
DRAIN: Final = 50
_CACHE_NAMES: Final = {Cache.MEMORY: "inmemory", Cache.REDIS: "redis"}

_HEAD: Final = """\
# The registry's configuration, for Distribution {version}. Made by `regstore init`: run that again to change it.
# What is secret is in {secrets}, and comes as environment variables.
"""
_OF_CACHE: Final = {
    Cache.NONE: (
        "No descriptor cache: a registry with one answers for blobs that `regstore gc` took away until it is",
        "restarted, so gc frees their space only then. Without one it asks the store, and gc frees space at once.",
    ),
    Cache.MEMORY: (
        "With the cache in memory, what `regstore gc` took away is freed only after a restart of every registry",
        "process: until then it would answer for blobs that are gone.",
    ),
    Cache.REDIS: ("`regstore gc` takes what it removes out of this cache, too, so it frees space at once.",),
}
_OF_HTTP: Final = (
    "http.secret is REGISTRY_HTTP_SECRET: the same for all replicas, or uploads would break between them. Health",
    "and metrics are on loopback only: whoever reaches them sees more than a client should.",
)
_OF_HEALTH: Final = ("The store was seeded, so this passes from the start, before the first push.",)


def files(deployment: Deployment) -> list[WantedFile]:
    return [WantedFile(path=CONFIG, content=render(deployment).encode())]


def configuration(deployment: Deployment) -> dict[str, Any]:
    """The tree of the file."""
    storage: dict[str, Any] = {**deployment.seen_storage, "delete": {"enabled": True}}
    if deployment.cache is not Cache.NONE:
        storage["cache"] = {"blobdescriptor": _CACHE_NAMES[deployment.cache]}
    tree: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "info", "fields": {"service": "registry"}},
        "storage": storage,
        "http": _http(deployment),
        "auth": {"htpasswd": {"realm": REALM, "path": deployment.seen(HTPASSWD)}},
        "health": {"storagedriver": {"enabled": True, "interval": "10s", "threshold": 3}},
    }
    if deployment.cache is Cache.REDIS:
        tree["redis"] = _redis(deployment)
    return tree


def render(deployment: Deployment) -> str:
    comments = {"storage": _OF_CACHE[deployment.cache], "http": _OF_HTTP, "health": _OF_HEALTH}
    parts = [_HEAD.format(version=_named(deployment.registry), secrets=REGISTRY_ENV)]
    for name, section in configuration(deployment).items():
        parts.extend(f"# {line}\n" for line in comments.get(name, ()))
        parts.append(registry_yaml.dump([{name: section}]))
    return "".join(parts)


def registry_environment(deployment: Deployment) -> dict[str, str]:
    """What the registry's process must have in its environment that is no secret."""
    environment = {}
    if deployment.registry is RegistryVersion.V3:
        environment["OTEL_TRACES_EXPORTER"] = "none"
    if deployment.store_ca:
        # Of Go. The AWS SDK's own AWS_CA_BUNDLE makes the S3 driver of 2.8 panic.
        environment["SSL_CERT_FILE"] = deployment.seen(STORE_CA)
    return environment


def redis_password_variable(registry: RegistryVersion) -> str:
    return "REGISTRY_REDIS_PASSWORD" if registry is RegistryVersion.V2 else "REGISTRY_REDIS_OPTIONS_PASSWORD"


def _named(registry: RegistryVersion) -> str:
    return "2.8" if registry is RegistryVersion.V2 else "3.x"


def _http(deployment: Deployment) -> dict[str, Any]:
    # In a container it is what publishes the port that binds it to an address of the host.
    bind = "" if deployment.in_containers else deployment.bind
    http: dict[str, Any] = {
        "addr": f"{bind}:{deployment.port}",
        "draintimeout": f"{DRAIN}s",
        "headers": {"X-Content-Type-Options": ["nosniff"]},
        "debug": {
            "addr": f"127.0.0.1:{deployment.debug_port}",
            "prometheus": {"enabled": True, "path": "/metrics"},
        },
    }
    if deployment.tls is Tls.NONE:
        # Whatever ends TLS before it has another scheme, and maybe another port, than it sees itself.
        http["relativeurls"] = True
    else:
        http["tls"] = {
            "certificate": deployment.seen(SERVER_CERT),
            "key": deployment.seen(SERVER_KEY),
            "minimumtls": "tls1.2",
        }
    return http


def _redis(deployment: Deployment) -> dict[str, Any]:
    timeouts = {"dialtimeout": "1s", "readtimeout": "1s", "writetimeout": "1s"}
    if deployment.registry is RegistryVersion.V2:
        pool = {"maxidle": 16, "maxactive": 64, "idletimeout": "300s"}
        return {"addr": deployment.redis, "db": 0, **timeouts, "pool": pool}
    return {"addrs": [deployment.redis], "db": 0, **timeouts, "maxidleconns": 16, "poolsize": 64}
