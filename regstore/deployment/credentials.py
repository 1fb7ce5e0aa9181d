"""The S3 keys that this computer's AWS environment has, to be given to what is deployed (over botocore)."""

from __future__ import annotations

from dataclasses import dataclass

from regstore.deployment.environment_files import StoreKeys
from regstore.errors import AuthenticationFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """keys: None where there are none that last. why: then, in words; "" where a role of this computer gives them."""

    keys: StoreKeys | None = None
    why: str = ""


def lasting_keys(profile: str | None) -> Found:
    """Of a profile, or of the environment. AuthenticationFailed where there is no such profile."""
    import botocore.session
    from botocore.exceptions import BotoCoreError

    try:
        found = botocore.session.Session(profile=profile).get_credentials()
        if found is None:
            return Found(why="there are no S3 keys in the AWS environment")
        if found.method in ("iam-role", "container-role", "assume-role-with-web-identity"):
            return Found()  # as it is here, it is where the registry runs
        frozen = found.get_frozen_credentials()
    except BotoCoreError as error:
        raise AuthenticationFailed(f"the AWS environment has no usable keys: {error}") from error
    if frozen.token:
        return Found(why="the S3 keys of the AWS environment are for a session, and end with it")
    return Found(keys=StoreKeys(access_key=frozen.access_key, secret_key=frozen.secret_key))
