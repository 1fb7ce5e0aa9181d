"""Credentials that last: found and renewed by boto3, without holding up requests while the old ones are good."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from regstore.errors import AuthenticationFailed
from regstore.storage.s3.aws_config import AwsConfig, Variables, open_config, open_session, variable_credentials
from regstore.storage.s3.settings import S3Settings
from regstore.storage.s3.sigv4 import Credentials

#: Seconds of validity below which a request waits for new credentials.
TOO_SHORT: Final = 60
#: Seconds between attempts to renew. A role's credentials are renewed from 15 minutes before their end.
PAUSE: Final = 10.0


class CredentialSource:
    """What to sign the next request with: given, or found by boto3 (environment, profile, SSO, process, web
    identity, assumed role, container, instance).

    Finding and renewing go over the network, so they run in a thread, one at a time. While the credentials at
    hand are good for another minute, requests go on with them; an attempt to renew that fails is an error only
    once they have expired.
    """

    def __init__(
        self, settings: S3Settings, config: AwsConfig, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._config = config
        self._clock = clock
        self._fixed = (
            Credentials(settings.access_key, settings.secret_key, settings.session_token)
            if settings.access_key and settings.secret_key
            else None
        )
        self._found: Any = None
        self._current: Credentials | None = None
        self._not_before = 0.0
        self._waiting = False
        self._failure: AuthenticationFailed | None = None
        self._lock = asyncio.Lock()
        self._renewing: asyncio.Task[Credentials] | None = None

    async def get(self) -> Credentials:
        """AuthenticationFailed when there are none, or when they have expired and cannot be renewed."""
        if self._fixed is not None:
            return self._fixed
        if self._current is None or self._waiting or self._ends_within(TOO_SHORT):
            # botocore's new end is seen a moment before its new credentials are here.
            self._waiting = True
            return await self._renew(TOO_SHORT)
        if self._renewing is not None and self._renewing.done():
            self._renewing = None
        if self._renewing is None and self._ends_within(None) and self._clock() >= self._not_before:
            self._renewing = asyncio.create_task(self._renew(None))
            # Whoever needs the outcome asks again, when nothing else is left.
            self._renewing.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._current

    async def replace(self, refused: Credentials) -> bool:
        """The server says that these have expired: whether there are others now, where they came from."""
        if self._fixed is not None:
            return False
        async with self._lock:
            if self._current is None or self._current == refused:
                try:
                    config = await asyncio.to_thread(open_config, self._settings.profile)
                    found, current = await _find(self._settings.profile, config)
                except AuthenticationFailed:
                    return False
                if current == refused:
                    return False
                self._config, self._found, self._current = config, found, current
        return True

    async def close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
            self._renewing = None

    def _ends_within(self, seconds: float | None) -> bool:
        """None: the time before the end at which botocore renews."""
        needed: Callable[[float | None], bool] | None = getattr(self._found, "refresh_needed", None)
        return needed is not None and needed(seconds)

    async def _renew(self, within: float | None) -> Credentials:
        async with self._lock:
            if self._current is not None and not self._ends_within(within):
                self._waiting = False
                return self._current  # somebody else has done it
            if self._clock() >= self._not_before:
                try:
                    self._found, self._current = await _find(self._settings.profile, self._config, self._found)
                    self._failure = None
                except AuthenticationFailed as error:
                    self._failure = error
                finally:
                    self._waiting = False
                self._not_before = self._clock() + PAUSE
            if self._current is None or (self._failure is not None and self._ends_within(0)):
                failure = self._failure
                assert failure is not None
                raise AuthenticationFailed(str(failure)) from failure
            return self._current


async def _find(profile: str | None, config: AwsConfig, found: Any = None) -> tuple[Any, Credentials]:
    """boto3's credentials, which may renew themselves, and what they are now; None and those of variables, which
    last."""
    if found is None and (lasting := variable_credentials(profile)) is not None:
        return None, lasting
    import boto3.session
    import botocore.exceptions

    def load() -> tuple[Any, Any]:
        known = found
        if known is None:
            session: Any = open_session(profile) if isinstance(config, Variables) else config
            known = boto3.session.Session(botocore_session=session).get_credentials()
        return known, known.get_frozen_credentials() if known is not None else None

    try:
        known, frozen = await asyncio.to_thread(load)
    except (
        botocore.exceptions.BotoCoreError,
        botocore.exceptions.ClientError,
        OSError,
        # What botocore says of new credentials that have expired, or that it can't read.
        RuntimeError,
        ValueError,
        KeyError,
    ) as error:
        raise AuthenticationFailed(f"the AWS credentials cannot be had: {error}") from error
    if frozen is None:
        raise AuthenticationFailed(
            "no AWS credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or choose a profile"
        )
    return known, Credentials(frozen.access_key, frozen.secret_key, frozen.token or None)
