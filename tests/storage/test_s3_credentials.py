"""Credentials that end while a run goes on."""

from __future__ import annotations

import asyncio
import datetime
import threading
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import CredentialRetrievalError

from regstore.errors import AuthenticationFailed
from regstore.storage.s3 import RetryPolicy, S3Settings, S3Storage
from regstore.storage.s3.aws_config import open_config
from regstore.storage.s3.credentials import PAUSE, CredentialSource
from regstore.storage.s3.sigv4 import Credentials
from tests.storage.fake_s3 import FakeS3, answer, error, fake_s3

pytestmark = pytest.mark.usefixtures("transport")

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
HOUR = 3600.0


class Role:
    """Gives credentials for an hour by a clock that only the test moves: a1, a2, ..."""

    def __init__(self) -> None:
        self.now = 0.0
        self.given = 0
        self.asked = 0
        self.lifetime = HOUR
        self.failure: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()
        self.session = botocore.session.Session()
        self.session._credentials = RefreshableCredentials.create_from_metadata(
            self.give(), refresh_using=self.give, method="test"
        )
        self.session._credentials._time_fetcher = lambda: START + datetime.timedelta(seconds=self.now)
        self.source = CredentialSource(S3Settings(bucket="bucket"), self.session, clock=lambda: self.now)

    def give(self) -> dict[str, str]:
        assert self.go_on.wait(30)
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        self.given += 1
        ends = START + datetime.timedelta(seconds=self.now + self.lifetime)
        return {
            "access_key": f"a{self.given}",
            "secret_key": "s",
            "token": f"t{self.given}",
            "expiry_time": ends.isoformat(),
        }

    async def renewal(self) -> None:
        """Until one that goes on beside the requests has ended."""
        if self.source._renewing is not None:
            await asyncio.gather(self.source._renewing, return_exceptions=True)


@pytest.fixture
def role() -> Role:
    return Role()


async def test_they_are_renewed_before_their_end(role: Role) -> None:
    first = await role.source.get()
    assert first == Credentials("a1", "s", "t1")
    role.now = HOUR / 2
    assert await role.source.get() == first
    role.now = HOUR - 600
    assert await role.source.get() is first, "a request does not wait for new ones while the old ones are good"
    await role.renewal()
    assert await role.source.get() == Credentials("a2", "s", "t2")
    assert role.asked == 2


async def test_many_requests_renew_them_once(role: Role) -> None:
    await role.source.get()
    role.now = HOUR + 1
    found = await asyncio.gather(*(role.source.get() for _ in range(50)))
    assert set(found) == {Credentials("a2", "s", "t2")}
    assert role.asked == 2


async def test_a_renewal_that_hangs_holds_nobody_up(role: Role) -> None:
    first = await role.source.get()
    role.now = HOUR - 600
    role.go_on.clear()
    try:
        for _ in range(10):
            assert await asyncio.wait_for(role.source.get(), 10) is first
            await asyncio.sleep(0)
    finally:
        role.go_on.set()
    await role.renewal()
    assert (await role.source.get()).access_key == "a2"


async def test_a_renewal_that_fails_is_tried_again(role: Role) -> None:
    first = await role.source.get()
    role.failure = CredentialRetrievalError(provider="test", error_msg="the metadata service is away")
    for left in (800.0, 300.0, 30.0):  # botocore puts up with the first only
        role.now = HOUR - left
        asked = role.asked
        assert await role.source.get() == first
        await role.renewal()
        assert role.asked == asked + 1
        assert await role.source.get() == first
        await role.renewal()
        assert role.asked == asked + 1, "not again at once"
    role.failure = None
    role.now += PAUSE
    assert (await role.source.get()).access_key == "a2"


async def test_the_end_without_new_ones_is_told(role: Role) -> None:
    await role.source.get()
    role.failure = CredentialRetrievalError(provider="test", error_msg="the metadata service is away")
    role.now = HOUR + 1
    outcomes = await asyncio.gather(*(role.source.get() for _ in range(50)), return_exceptions=True)
    assert {str(each) for each in outcomes if isinstance(each, AuthenticationFailed)} == {
        "the AWS credentials cannot be had: Error when retrieving credentials from test: the metadata service is away"
    }
    assert len([each for each in outcomes if isinstance(each, AuthenticationFailed)]) == 50
    assert role.asked == 2, "one failure is enough for all that wait"


async def test_new_ones_that_have_expired_are_told(role: Role) -> None:
    await role.source.get()
    role.now, role.lifetime = HOUR + 1, -1.0
    with pytest.raises(AuthenticationFailed, match="still expired"):
        await role.source.get()


async def test_closing_ends_a_renewal(role: Role) -> None:
    await role.source.get()
    role.now = HOUR - 600
    role.go_on.clear()
    await role.source.get()
    renewing = role.source._renewing
    assert renewing is not None
    try:
        await role.source.close()
    finally:
        role.go_on.set()
    assert renewing.done()


# -- what the server sees


def keys_of(fake: FakeS3) -> list[str]:
    return [asked.headers["authorization"].partition("Credential=")[2].partition("/")[0] for asked in fake.asked]


async def test_requests_are_signed_with_the_new_ones(role: Role) -> None:
    async with fake_s3() as fake:
        fake.otherwise = answer(body="x", last_modified="Mon, 23 Nov 2026 10:00:00 GMT")
        async with S3Storage(S3Settings(bucket="bucket", endpoint_url=fake.url)) as storage:
            storage._client.credentials = role.source
            await storage.get("key")
            role.now = HOUR + 1
            await storage.get("key")
        assert keys_of(fake) == ["a1", "a2"]
        assert [asked.headers["x-amz-security-token"] for asked in fake.asked] == ["t1", "t2"]


def write_credentials(path: Path, number: int) -> None:
    path.write_text(
        f"[default]\naws_access_key_id = a{number}\naws_secret_access_key = s\naws_session_token = t{number}\n"
    )


def settings_at(fake: FakeS3, **more: Any) -> S3Settings:
    return S3Settings(bucket="bucket", endpoint_url=fake.url, retries=RetryPolicy(base=0), **more)


@pytest.mark.parametrize("operation", ["get", "put", "stat", "open_read"])
async def test_a_file_that_has_new_ones_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """As `aws sso login` or a sidecar leaves them, which no expiry announces."""
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    write_credentials(path, 1)
    async with fake_s3() as fake, S3Storage(settings_at(fake)) as storage:
        fake.answers = [answer(body="x", last_modified="Mon, 23 Nov 2026 10:00:00 GMT")]
        await storage.get("key")
        write_credentials(path, 2)
        expired = error(400, "ExpiredToken")
        fake.answers = [answer(400), expired] if operation == "stat" else [expired]
        fake.otherwise = answer(body="x", last_modified="Mon, 23 Nov 2026 10:00:00 GMT")
        if operation == "get":
            assert await storage.get("key") == b"x"
        elif operation == "put":
            await storage.put("key", b"x")
        elif operation == "stat":
            assert (await storage.stat("key")).size == 1
        else:
            async with storage.open_read("key") as body:
                assert b"".join([chunk async for chunk in body]) == b"x"
        assert keys_of(fake)[-1] == "a2"
        assert storage.counters.retries == 1


async def test_many_requests_read_the_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    write_credentials(path, 1)
    settings = S3Settings(bucket="bucket")
    source = CredentialSource(settings, open_config(settings.profile))
    old = await source.get()
    write_credentials(path, 2)
    assert all(await asyncio.gather(*(source.replace(old) for _ in range(20))))
    new = await source.get()
    assert new.access_key == "a2"
    assert not await source.replace(new), "there are no newer ones"


@pytest.mark.parametrize("given", [True, False])
async def test_expired_for_good_is_one_sentence(monkeypatch: pytest.MonkeyPatch, given: bool) -> None:
    for name, value in (("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "s"), ("SESSION_TOKEN", "t")):
        monkeypatch.setenv(f"AWS_{name}", value)
    more = {"access_key": "a", "secret_key": "s", "session_token": "t"} if given else {}
    async with fake_s3() as fake, S3Storage(settings_at(fake, **more)) as storage:
        fake.answers = [error(400, "ExpiredToken")]
        with pytest.raises(AuthenticationFailed) as caught:
            await storage.get("key")
        assert len(fake.asked) == 1
    assert str(caught.value) == (
        f"{fake.url} refused the credentials: the session token has expired; get a new one and run the command "
        "again (ExpiredToken)"
    )
