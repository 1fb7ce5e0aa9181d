"""Errors as answers: the JSON that the OCI distribution specification 1.1 defines ("Error Codes").

No answer holds a traceback, a credential, or the text of an error that is not meant for the client: what the store said
goes to the log, and the client learns that it was the store.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import orjson
from aiohttp import web

from regstore.errors import (
    BlobUnknown,
    IntegrityError,
    InvalidDigest,
    InvalidManifest,
    InvalidReference,
    ManifestUnknown,
    NameUnknown,
    RegstoreError,
    TagUnknown,
    Unreachable,
)

JSON: Final = "application/json"
#: What went wrong inside while a request was answered, for the log.
TOLD: Final = web.RequestKey("told", Exception)
#: Errors that say something of what was asked for; the message is the client's to read.
_CODES: Final[tuple[tuple[type[RegstoreError], int, str], ...]] = (
    (NameUnknown, HTTPStatus.NOT_FOUND, "NAME_UNKNOWN"),
    (TagUnknown, HTTPStatus.NOT_FOUND, "MANIFEST_UNKNOWN"),
    (ManifestUnknown, HTTPStatus.NOT_FOUND, "MANIFEST_UNKNOWN"),
    (BlobUnknown, HTTPStatus.NOT_FOUND, "BLOB_UNKNOWN"),
    (InvalidDigest, HTTPStatus.BAD_REQUEST, "DIGEST_INVALID"),
    (InvalidReference, HTTPStatus.BAD_REQUEST, "NAME_INVALID"),
    (InvalidManifest, HTTPStatus.INTERNAL_SERVER_ERROR, "MANIFEST_INVALID"),
)


class ApiError(Exception):
    """An answer other than success: raised where it is found out, sent by the server."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = int(status)
        self.code = code
        self.message = message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def api_error(error: RegstoreError) -> ApiError:
    """What the client learns of an error of the library."""
    for kind, status, code in _CODES:
        if isinstance(error, kind):
            return ApiError(status, code, _said(code))
    if isinstance(error, IntegrityError):
        return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "UNKNOWN", "what is stored here is damaged")
    if isinstance(error, Unreachable):
        return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "UNAVAILABLE", "the store does not answer", Retry_After="5")
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "UNKNOWN", "the store could not be read")


_SAID: Final = {
    "NAME_UNKNOWN": "repository name not known to registry",
    "MANIFEST_UNKNOWN": "manifest unknown to registry",
    "BLOB_UNKNOWN": "blob unknown to registry",
    "DIGEST_INVALID": "provided digest is not one",
    "NAME_INVALID": "invalid repository name or tag",
    "MANIFEST_INVALID": "what is stored under this digest is no manifest",
}


def _said(code: str) -> str:
    return _SAID[code]


def error_response(error: ApiError) -> web.Response:
    body = orjson.dumps({"errors": [{"code": error.code, "message": error.message}]})
    return web.Response(status=error.status, body=body, content_type=JSON, headers=error.headers)
