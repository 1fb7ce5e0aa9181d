"""What this computer's AWS environment says: variables, and where there are any, the shared files (over botocore).

botocore takes 0.1 s of processor time to load, a tenth of a small run, and has nothing to say that the variables don't
where no shared file is there and no profile is named.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, Protocol

from regstore.errors import InputError
from regstore.storage.s3.sigv4 import Credentials

if TYPE_CHECKING:
    from botocore.session import Session

_PROFILE: Final = ("AWS_DEFAULT_PROFILE", "AWS_PROFILE")
#: Variables that name a shared file, and where it is when they don't.
_FILES: Final = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}
_VARIABLES: Final = {"region": "AWS_DEFAULT_REGION", "ca_bundle": "AWS_CA_BUNDLE"}


class AwsConfig(Protocol):
    """The part of botocore's session that is asked for configuration."""

    @property
    def full_config(self) -> dict[str, Any]: ...

    def get_scoped_config(self) -> dict[str, Any]: ...

    def get_config_variable(self, logical_name: str) -> Any: ...


class Variables:
    """An AwsConfig of variables alone."""

    @property
    def full_config(self) -> dict[str, Any]:
        return {"profiles": {}}

    def get_scoped_config(self) -> dict[str, Any]:
        return {}

    def get_config_variable(self, logical_name: str) -> Any:
        return os.environ.get(_VARIABLES[logical_name])


def open_config(profile: str | None) -> AwsConfig:
    """For a profile, or for the one that the environment names. It reads files, no network. InputError on an unknown
    profile."""
    if profile is None and not any(name in os.environ for name in _PROFILE) and not _shared_files():
        return Variables()
    session: AwsConfig = open_session(profile)
    return session


def open_session(profile: str | None) -> Session:
    """botocore's own; the same errors."""
    import botocore.exceptions
    import botocore.session

    session = botocore.session.Session(profile=profile)
    try:
        session.get_scoped_config()
    except botocore.exceptions.ProfileNotFound as error:
        raise InputError(f"the AWS configuration has no profile {error.kwargs.get('profile')!r}") from error
    except botocore.exceptions.BotoCoreError as error:
        raise InputError(f"the AWS configuration cannot be read: {error}") from error
    return session


def variable_credentials(profile: str | None) -> Credentials | None:
    """Those that last and stand in variables, where botocore would take them: before all others, unless a profile is
    asked for."""
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if profile is not None or not key or not secret or os.environ.get("AWS_CREDENTIAL_EXPIRATION"):
        return None
    token = os.environ.get("AWS_SECURITY_TOKEN") or os.environ.get("AWS_SESSION_TOKEN")
    return Credentials(key, secret, token or None)


def _shared_files() -> list[str]:
    """Those that are there."""
    places = (os.environ.get(name, place) for name, place in _FILES.items())
    # As botocore looks: no home, or a folder that may not be entered, is no file.
    return [each for each in places if os.path.isfile(os.path.expanduser(os.path.expandvars(each)))]  # noqa: PTH111, PTH113
