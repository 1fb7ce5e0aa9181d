"""The real registry, Distribution 2.8 from Debian, over a folder or a bucket."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlencode

import yaml

from tests.servers.process import Child, ServerError, clean_environment, free_port, tail, wait_until, which
from tests.servers.s3 import S3Root

PROGRAM: Final = "docker-registry"
_ATTEMPTS: Final = 4


class Registry:
    """A registry process and its configuration.

    storage: a folder (the registry's rootdirectory), or a place in a bucket.
    cache: its blob descriptor cache; "redis" needs redis_address (host:port). tls: certificate and key. htpasswd: a
    file; `request` has no password, and is then answered 401.

    Use it as a context manager, or `start` and `stop`. The port is chosen at the first start and kept by `restart`.
    """

    def __init__(
        self,
        storage: Path | S3Root,
        *,
        cache: Literal["none", "inmemory", "redis"] = "none",
        redis_address: str = "",
        readonly: bool = False,
        delete: bool = True,
        health: bool = True,
        schema1: bool = True,
        proxy_remote: str = "",
        tls: tuple[Path, Path] | None = None,
        htpasswd: Path | None = None,
    ) -> None:
        self.storage = storage
        self.cache = cache
        self.redis_address = redis_address
        self.readonly = readonly
        self.delete_enabled = delete
        self.health = health
        self.schema1 = schema1
        self.proxy_remote = proxy_remote
        self.tls = tls
        self.htpasswd = htpasswd
        self.folder = Path(tempfile.mkdtemp(prefix="regstore-registry-"))
        self.config = self.folder / "config.yml"
        self.log = self.folder / "registry.log"
        self._port = 0
        self._debug_port = 0
        self._child: Child | None = None

    # -- the process

    @property
    def host(self) -> str:
        """`127.0.0.1:port`, as in an image's name."""
        return f"127.0.0.1:{self._port}"

    @property
    def debug_url(self) -> str:
        """Where it tells its metrics."""
        return f"http://127.0.0.1:{self._debug_port}"

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    def start(self, *, seconds: float = 30.0) -> Registry:
        """Start and wait until `/v2/` answers at all (also 503, when the health check fails)."""
        for attempt in range(_ATTEMPTS):
            if attempt or not self._port:
                self._port, self._debug_port = free_port(), free_port()
            self.write_config()
            self._child = Child([PROGRAM, "serve", str(self.config)], self.log, clean_environment(self.folder))
            try:
                wait_until(self._answers_or_ended, f"{self.host}/v2/ to answer", seconds)
            except ServerError as error:
                said = tail(self.log)
                self.stop()
                raise ServerError(f"{error}\n{said}") from error
            if self._child.running:
                return self
            self._child.stop()
            if "address already in use" not in tail(self.log):
                break
        raise ServerError(f"{PROGRAM} ended at start:\n{tail(self.log)}")

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()
            self._child = None

    def kill(self) -> None:
        """End it without notice (SIGKILL)."""
        if self._child is not None:
            self._child.kill()

    def restart(self, *, readonly: bool | None = None) -> Registry:
        """A new process at the same address: its in-memory cache is gone."""
        self.stop()
        if readonly is not None:
            self.readonly = readonly
        return self.start()

    def close(self) -> None:
        """Stop, and remove the configuration and the log. The storage stays."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Registry:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *exc: object) -> None:
        self.close()

    def garbage_collect(self, *flags: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The registry's own `garbage-collect` with flags such as `-d` and `-m`, in a process of its own."""
        if not self.config.exists():
            self.write_config()
        program = which(PROGRAM)
        if program is None:
            raise ServerError(f"{PROGRAM} is not installed")
        result = subprocess.run(
            [program, "garbage-collect", *flags, str(self.config)],
            env=clean_environment(self.folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if check and result.returncode != 0:
            raise ServerError(
                f"garbage-collect gave {result.returncode}:\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
            )
        return result

    # -- its API

    def request(
        self,
        method: str,
        target: str,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        port: int | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """One HTTP request: status, headers (names in lower case), body."""
        connection: http.client.HTTPConnection
        if self.tls is not None and port is None:
            context = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=60, context=context)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", port or self._port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, target, body, headers or {})
            with connection.getresponse() as response:
                fields = {name.lower(): value for name, value in response.getheaders()}
                return response.status, fields, response.read()

    def catalog(self, *, page: int = 1000) -> list[str]:
        """Every repository, over all pages."""
        names: list[str] = []
        target = "/v2/_catalog?" + urlencode({"n": page})
        while True:
            status, headers, body = self.request("GET", target)
            if status != 200:
                raise ServerError(f"{target}: {status} {body[:500]!r}")
            more: list[str] = json.loads(body)["repositories"] or []
            names += more
            if "link" not in headers or not more:
                return names
            target = "/v2/_catalog?" + urlencode({"n": page, "last": more[-1]})

    def tags(self, repository: str) -> list[str]:
        """Sorted; empty when the registry says that it does not know the repository."""
        status, _, body = self.request("GET", f"/v2/{repository}/tags/list")
        if status == 404:
            return []
        if status != 200:
            raise ServerError(f"tags of {repository}: {status} {body[:500]!r}")
        return sorted(json.loads(body)["tags"] or [])

    def delete(self, repository: str, digest: object) -> int:
        """DELETE a manifest; the status (202 when done, 404, 405)."""
        return self.request("DELETE", f"/v2/{repository}/manifests/{digest}")[0]

    def debug_health(self) -> tuple[int, dict[str, str]]:
        """`/debug/health`: 200 and {} when well, 503 and the failing checks otherwise."""
        status, _, body = self.request("GET", "/debug/health", port=self._debug_port)
        return status, json.loads(body)

    # -- its configuration

    def write_config(self) -> Path:
        self.config.write_text(yaml.safe_dump(self.configuration(), default_flow_style=False))
        return self.config

    def configuration(self) -> dict[str, Any]:
        storage: dict[str, Any] = {
            "delete": {"enabled": self.delete_enabled},
            "redirect": {"disable": True},
            "maintenance": {
                "uploadpurging": {"enabled": False},
                "readonly": {"enabled": self.readonly},
            },
        }
        if isinstance(self.storage, Path):
            storage["filesystem"] = {"rootdirectory": str(self.storage)}
        else:
            server = self.storage.server
            storage["s3"] = {
                "accesskey": server.access_key,
                "secretkey": server.secret_key,
                "region": server.region,
                "regionendpoint": server.endpoint_url,
                "bucket": self.storage.bucket,
                "rootdirectory": self.storage.rootdirectory,
                "secure": False,
                "v4auth": True,
                "forcepathstyle": True,
            }
        if self.cache != "none":
            storage["cache"] = {"blobdescriptor": self.cache}
        configuration: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": True}},
            "storage": storage,
            "http": {
                "addr": self.host,
                "secret": "not-secret",
                "debug": {"addr": f"127.0.0.1:{self._debug_port}", "prometheus": {"enabled": True}},
            },
            "health": {"storagedriver": {"enabled": self.health, "interval": "1s", "threshold": 2}},
            "validation": {"manifests": {"urls": {"allow": ["^https?://"]}}},
            "compatibility": {"schema1": {"enabled": self.schema1}},
        }
        if self.cache == "redis":
            configuration["redis"] = {"addr": self.redis_address, "db": 0}
        if self.tls is not None:
            configuration["http"]["tls"] = dict(zip(("certificate", "key"), map(str, self.tls), strict=True))
        if self.htpasswd is not None:
            configuration["auth"] = {"htpasswd": {"realm": "tests", "path": str(self.htpasswd)}}
        if self.proxy_remote:
            configuration["proxy"] = {"remoteurl": self.proxy_remote}
        return configuration

    def _answers_or_ended(self) -> bool:
        if not self.running:
            return True
        try:
            self.request("GET", "/v2/")
        except OSError:
            return False
        return self.running


@contextlib.contextmanager
def registry(storage: Path | S3Root, **options: Any) -> Iterator[Registry]:
    with Registry(storage, **options) as running:
        yield running
