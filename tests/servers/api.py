"""The Distribution API, spoken directly: to push what no client pushes, and to prove that a pull is complete."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterable
from typing import Any, Final, Self
from urllib.parse import urlencode, urljoin, urlsplit

from tests.servers import images
from tests.servers.images import Blob, Document

_ACCEPT: Final = ", ".join(
    (
        images.OCI_INDEX,
        images.DOCKER_LIST,
        images.OCI_MANIFEST,
        images.DOCKER_MANIFEST,
        images.OCI_ARTIFACT,
        images.DOCKER_SCHEMA1_SIGNED,
        images.DOCKER_SCHEMA1,
    )
)


class ApiError(Exception):
    def __init__(self, what: str, status: int, body: bytes) -> None:
        super().__init__(f"{what}: {status} {body[:1000].decode(errors='replace')}")
        self.status = status
        self.body = body

    @property
    def code(self) -> str:
        """The registry's own word, such as MANIFEST_BLOB_UNKNOWN, or ""."""
        try:
            return str(json.loads(self.body)["errors"][0]["code"])
        except (ValueError, KeyError, IndexError, TypeError):
            return ""


class Incomplete(AssertionError):
    """A pull that a client would fail."""


class Api:
    """One keep-alive connection to a registry. Not for use by several threads."""

    def __init__(self, host: str, *, timeout: float = 60.0) -> None:
        self._connection = http.client.HTTPConnection(host, timeout=timeout)
        self._base = f"http://{host}/"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.close()

    def request(
        self, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (names in lower case), body. `target` may be a whole URL, as in a Location."""
        parts = urlsplit(urljoin(self._base, target))
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        try:
            self._connection.request(method, path, body, headers or {})
            with self._connection.getresponse() as response:
                fields = {name.lower(): value for name, value in response.getheaders()}
                return response.status, fields, response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise

    def expect(self, wanted: int, method: str, target: str, **more: Any) -> tuple[dict[str, str], bytes]:
        status, headers, body = self.request(method, target, **more)
        if status != wanted:
            raise ApiError(f"{method} {target}", status, body)
        return headers, body

    # -- blobs

    def has_blob(self, repository: str, digest: str) -> bool:
        """HEAD, as clients do before they upload: it goes through the repository's layer link."""
        return self.request("HEAD", f"/v2/{repository}/blobs/{digest}")[0] == 200

    def get_blob(self, repository: str, digest: str) -> bytes:
        return self.expect(200, "GET", f"/v2/{repository}/blobs/{digest}")[1]

    def put_blob(self, repository: str, data: bytes, *, digest: str = "", chunk: int = 0) -> str:
        """POST and PUT; with `chunk`, PATCHes of at most so many bytes in between. Returns the digest."""
        digest = digest or images.sha256(data)
        location = self.start_upload(repository)
        if chunk:
            for start in range(0, len(data), chunk):
                location = self.patch_upload(location, data[start : start + chunk], start)
            data = b""
        self.finish_upload(location, digest, data)
        return digest

    def start_upload(self, repository: str) -> str:
        """POST: an upload in progress; its location."""
        return self.expect(202, "POST", f"/v2/{repository}/blobs/uploads/", body=b"")[0]["location"]

    def patch_upload(self, location: str, data: bytes, start: int = 0) -> str:
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{start}-{start + len(data) - 1}"}
        return self.expect(202, "PATCH", location, body=data, headers=headers)[0]["location"]

    def finish_upload(self, location: str, digest: str, data: bytes = b"") -> None:
        headers = {"Content-Type": "application/octet-stream"}
        target = location + ("&" if "?" in location else "?") + urlencode({"digest": digest})
        self.expect(201, "PUT", target, body=data, headers=headers)

    def mount(self, repository: str, digest: str, source: str) -> bool:
        """POST with mount and from. False when the registry would rather have the bytes."""
        query = urlencode({"mount": digest, "from": source})
        status, headers, body = self.request("POST", f"/v2/{repository}/blobs/uploads/?{query}", b"")
        if status == 202:
            self.request("DELETE", headers["location"])
            return False
        if status != 201:
            raise ApiError(f"mount {digest}", status, body)
        return True

    # -- manifests

    def head_manifest(self, repository: str, reference: str) -> str | None:
        """The digest, or None when there is none."""
        status, headers, _ = self.request(
            "HEAD", f"/v2/{repository}/manifests/{reference}", headers={"Accept": _ACCEPT}
        )
        if status not in (200, 404):
            raise ApiError(f"HEAD {repository} {reference}", status, b"")
        return headers["docker-content-digest"] if status == 200 else None

    def get_manifest(self, repository: str, reference: str) -> tuple[str, bytes]:
        """Media type and bytes."""
        headers, body = self.expect(
            200, "GET", f"/v2/{repository}/manifests/{reference}", headers={"Accept": _ACCEPT}
        )
        return headers["content-type"], body

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> str:
        """Returns the digest that the registry gave it."""
        headers, _ = self.expect(
            201, "PUT", f"/v2/{repository}/manifests/{reference}", body=data, headers={"Content-Type": media_type}
        )
        return headers["docker-content-digest"]

    def delete_manifest(self, repository: str, digest: str) -> None:
        self.expect(202, "DELETE", f"/v2/{repository}/manifests/{digest}")


def push_api(
    host: str,
    repository: str,
    document: Document,
    tag: str = "",
    *,
    tags: Iterable[str] = (),
    chunk: int = 0,
    mount_from: str = "",
    check_first: bool = True,
) -> str:
    """Push as docker and skopeo do: HEAD each blob, mount or upload it, children by digest, then the tags.

    Without tags the manifest is pushed by its digest alone. Returns its digest.
    """
    with Api(host) as api:
        for part in document.documents():
            for content in part.blobs:
                _push_blob(api, repository, content, chunk, mount_from, check_first)
            names = [name for name in (tag, *tags) if name] if part is document else []
            for reference in names or [part.digest]:
                api.put_manifest(repository, reference, part.data, part.media_type)
    return document.digest


def _push_blob(api: Api, repository: str, content: Blob, chunk: int, mount_from: str, check_first: bool) -> None:
    if check_first and api.has_blob(repository, content.digest):
        return
    if mount_from and api.mount(repository, content.digest, mount_from):
        return
    api.put_blob(repository, content.data, chunk=chunk)


def pull_complete(host: str, repository: str, reference: str, *, sparse: bool = False) -> dict[str, int]:
    """Fetch all that the reference reaches and check every digest and size; digest to size, manifests included.

    Incomplete tells the first thing that is missing or wrong. sparse: children of an index that the registry does
    not have are no failure. Foreign layers are not asked for.
    """
    seen: dict[str, int] = {}
    with Api(host) as api:
        _pull_manifest(api, repository, reference, -1, sparse, seen)
    return seen


def _pull_manifest(
    api: Api, repository: str, reference: str, size: int, sparse: bool, seen: dict[str, int]
) -> None:
    where = f"{repository} {reference}"
    try:
        _, data = api.get_manifest(repository, reference)
    except ApiError as error:
        if sparse and error.status == 404 and seen:
            return
        raise Incomplete(f"{where}: {error}") from error
    document = json.loads(data)
    if document.get("schemaVersion") == 1 and "signatures" in document:
        data = _schema1_payload(data, document)
    digest = images.sha256(data)
    if ":" in reference and digest != reference:
        raise Incomplete(f"{where}: its {len(data)} bytes have {digest}")
    if size not in (-1, len(data)):
        raise Incomplete(f"{where}: {len(data)} bytes, and {size} promised")
    seen[digest] = len(data)
    for entry in document.get("manifests") or []:
        if "manifest" in entry["mediaType"] or "index" in entry["mediaType"]:
            _pull_manifest(api, repository, entry["digest"], entry["size"], sparse, seen)
        else:
            _pull_blob(api, repository, entry["digest"], entry["size"], seen)
    parts = [document["config"]] if "config" in document else []
    parts += document.get("layers") or document.get("blobs") or []
    parts += [{"digest": entry["blobSum"], "size": -1} for entry in document.get("fsLayers") or []]
    for part in parts:
        if not part.get("urls"):
            _pull_blob(api, repository, part["digest"], part["size"], seen)


def _pull_blob(api: Api, repository: str, digest: str, size: int, seen: dict[str, int]) -> None:
    if digest in seen:
        return
    try:
        data = api.get_blob(repository, digest)
    except ApiError as error:
        raise Incomplete(f"{repository} blob {digest}: {error}") from error
    if images.sha256(data) != digest:
        raise Incomplete(f"{repository} blob {digest}: its {len(data)} bytes have {images.sha256(data)}")
    if size not in (-1, len(data)):
        raise Incomplete(f"{repository} blob {digest}: {len(data)} bytes, and {size} promised")
    seen[digest] = len(data)


def _schema1_payload(data: bytes, document: dict[str, Any]) -> bytes:
    """The signed bytes of a prettyjws document: the head of the document, and a tail that the signature carries."""
    protected = json.loads(_unbase64(document["signatures"][0]["protected"]))
    return data[: protected["formatLength"]] + _unbase64(protected["formatTail"])


def _unbase64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
