"""Signatures are those of botocore."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from unittest import mock

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials

from regstore.storage.s3.sigv4 import Credentials, Signer, encode_path, encode_query

KEYS = ["a", "a//b/", "/lead", "é+ %41&<>~'()*!", "\x01\n", "日本/😀", "a/../b/./c"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("token", [None, "to/ken+=="])
def test_same_as_botocore(key: str, token: str | None) -> None:
    at = 1795428000.0
    path = "/bucket/" + encode_path(key)
    query = encode_query([("prefix", key), ("uploads", ""), ("list-type", "2")])
    body = b"body"
    headers = {"host": "s3.example.org:9000", "x-amz-storage-class": "STANDARD_IA", "content-md5": "abc="}

    request = AWSRequest("PUT", f"http://s3.example.org:9000{path}?{query}", headers=headers, data=body)
    request.context.update(payload_signing_enabled=True, timestamp="20261123T100000Z")
    auth = S3SigV4Auth(BotocoreCredentials("AKID", "secret/key", token), "s3", "eu-west-1")
    with mock.patch("botocore.auth.get_current_datetime", return_value=datetime(2026, 11, 23, 10, tzinfo=UTC)):
        auth.add_auth(request)

    ours = Signer("eu-west-1").headers(
        Credentials("AKID", "secret/key", token),
        "PUT",
        path,
        query,
        headers,
        hashlib.sha256(body).hexdigest(),
        at=at,
    )
    assert ours["x-amz-date"] == request.headers["X-Amz-Date"]
    assert ours["authorization"] == request.headers["Authorization"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("token", [None, "to/ken+=="])
def test_a_presigned_query_is_that_of_botocore(key: str, token: str | None) -> None:
    path = "/bucket/" + encode_path(key)
    request = AWSRequest("GET", f"http://s3.example.org:9000{path}")
    auth = S3SigV4QueryAuth(BotocoreCredentials("AKID", "secret/key", token), "s3", "eu-west-1", expires=300)
    with mock.patch("botocore.auth.get_current_datetime", return_value=datetime(2026, 11, 23, 10, tzinfo=UTC)):
        auth.add_auth(request)
    ours = Signer("eu-west-1").presigned(
        Credentials("AKID", "secret/key", token), "GET", path, "s3.example.org:9000", seconds=300, at=1795428000.0
    )
    assert sorted(ours.split("&")) == sorted(request.url.partition("?")[2].split("&"))


def test_another_day_or_secret_is_another_key() -> None:
    signer = Signer("us-east-1")

    def sign(secret: str, at: float) -> str:
        headers = signer.headers(Credentials("a", secret), "GET", "/", "", {"host": "h"}, "x", at=at)
        return headers["authorization"]

    assert sign("one", 0) != sign("two", 0)
    assert sign("one", 0) != sign("one", 86_400)
    assert sign("one", 0) == sign("one", 0)


def test_secrets_are_not_shown() -> None:
    assert "hidden" not in repr(Credentials("a", "hidden", "hidden"))
