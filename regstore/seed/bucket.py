"""The bucket itself: whether it is there, making it, and its settings, read and merged (over aioboto3)."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from regstore import layout
from regstore.errors import AccessDenied, RegstoreError
from regstore.seed.result import Check, Outcome, SeedOptions
from regstore.storage.optional import HasBucket

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

RULE_ID: Final = "regstore-abort-uploads"
#: The first refuses public ACLs, the second makes them void.
_FLAGS: Final = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
_NOT_SET: Final = {
    "NoSuchPublicAccessBlockConfiguration",
    "ServerSideEncryptionConfigurationNotFoundError",
    "NoSuchLifecycleConfiguration",
    "ObjectLockConfigurationNotFoundError",
}
#: What servers say of a configuration that they have never heard of.
_UNKNOWN: Final = {
    "NotImplemented",
    "MethodNotAllowed",
    "UnsupportedOperation",
    "XNotImplemented",
    "MalformedXML",
    "InvalidRequest",
    "InvalidArgument",
    "NoSuchKey",
}
_LOCATION_REFUSED: Final = {
    "InvalidLocationConstraint",
    "IllegalLocationConstraintException",
    "InvalidRegion",
    "MalformedXML",
}


class _OtherAnswer(Exception):
    """A server that does not know a subresource may answer as if it had not been asked for: with a listing
    (seen: Ceph 16.2 and `?encryption`). Putting such a setting there could do anything, so it is not tried."""


@dataclass(frozen=True, slots=True)
class BucketAdmin:
    """client: an aioboto3 S3 client."""

    client: Any
    store: HasBucket

    @property
    def bucket(self) -> str:
        return self.store.bucket

    @property
    def root(self) -> str:
        return self.store.rootdirectory

    @property
    def region(self) -> str:
        return str(self.client.meta.region_name)

    @property
    def endpoint(self) -> str:
        return str(self.client.meta.endpoint_url)

    @property
    def path_style(self) -> bool:
        return (self.client.meta.config.s3 or {}).get("addressing_style") == "path"

    @property
    def is_aws(self) -> bool:
        host = self.endpoint.partition("://")[2].partition("/")[0].partition(":")[0]
        return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))

    async def list_objects(self, **parameters: Any) -> dict[str, Any]:
        """ListObjects, version 1, as it stands: the SDK does not add its `encoding-type=url`."""
        from botocore.handlers import set_list_objects_encoding_type_url

        events = self.client.meta.events
        events.unregister("before-parameter-build.s3.ListObjects", set_list_objects_encoding_type_url)
        try:
            answer: dict[str, Any] = await self.client.list_objects(Bucket=self.bucket, **parameters)
        except botocore_errors() as error:
            raise self._translated(error, "ListObjects") from error
        return answer

    # -- making it

    async def create(self) -> bool:
        """Whether it was made here; False when it has come to be meanwhile.

        A region is a LocationConstraint, except us-east-1, which is said by leaving it out. Servers other than AWS
        have names of their own for places (Ceph: `default`), so there a refused one is left out.
        """
        from botocore.exceptions import ClientError

        region = self.region
        wanted = [] if region in ("us-east-1", "aws-global", "") else [region]
        attempts: list[dict[str, Any]] = [
            {"CreateBucketConfiguration": {"LocationConstraint": each}} for each in wanted
        ]
        if not wanted or not self.is_aws:
            attempts.append({})
        for attempt, parameters in enumerate(attempts, 1):
            try:
                await self.client.create_bucket(Bucket=self.bucket, **parameters)
            except ClientError as error:
                code = _code(error)
                if code == "BucketAlreadyOwnedByYou":
                    return False
                if code == "BucketAlreadyExists":
                    raise AccessDenied(
                        f"the bucket name {self.bucket} is taken by another account at {self.endpoint}: choose another"
                    ) from error
                if code in _LOCATION_REFUSED and attempt < len(attempts):
                    continue
                raise self._translated(error, f"creating the bucket {self.bucket}") from error
            except botocore_errors() as error:
                raise self._translated(error, f"creating the bucket {self.bucket}") from error
            return True
        return False

    # -- settings

    async def settings(self, options: SeedOptions, *, apply: bool) -> list[Check]:
        """Look at each wanted setting; with `apply`, add what lacks. What is there is never taken away."""
        return [
            await self._setting("public access", options.block_public_access, self._public_access, apply),
            await self._setting("encryption", options.encryption, self._encryption, apply),
            await self._setting(
                "lifecycle", options.lifecycle, lambda yes: self._lifecycle(options.abort_uploads_after, yes), apply
            ),
        ]

    async def _setting(
        self, name: str, wanted: bool, work: Callable[[bool], Awaitable[Check]], apply: bool
    ) -> Check:
        from botocore.exceptions import ClientError

        if not wanted:
            return Check(name, Outcome.SKIPPED, "not wanted")
        try:
            return await work(apply)
        except _OtherAnswer as error:
            return Check(name, Outcome.UNSUPPORTED, f"{self.endpoint} does not know this setting: {error}")
        except ClientError as error:
            code, status = _code(error), _status(error)
            if code in _UNKNOWN or status in (405, 501) or (status == 404 and not code.startswith("NoSuchBucket")):
                return Check(name, Outcome.UNSUPPORTED, f"{self.endpoint} does not know this setting ({code})")
            translated = self._translated(error, f"the {name} setting")
            if isinstance(translated, AccessDenied):
                if not apply:
                    return Check(name, Outcome.UNKNOWN, f"the credentials may not see it ({code})")
                return Check(name, Outcome.DENIED, f"the credentials may not see or change it ({code})")
            return Check(name, Outcome.FAILED, str(translated))
        except botocore_errors() as error:
            raise self._translated(error, f"the {name} setting") from error

    async def _public_access(self, apply: bool) -> Check:
        name = "public access"
        try:
            found = _part(
                await self.client.get_public_access_block(Bucket=self.bucket),
                "PublicAccessBlockConfiguration",
            )
        except self._client_error() as error:
            if _code(error) not in _NOT_SET:
                raise
            found = {}
        if all(found.get(flag) for flag in _FLAGS[1:]):
            # Public ACLs that are ignored need not be refused as well.
            odd = found.get(_FLAGS[0]) and not self.is_aws
            return Check(
                name, Outcome.OK, "blocked (beware: Ceph 16.2 then denies every write)" if odd else "blocked"
            )
        if not apply:
            lacking = [flag for flag in _FLAGS if not found.get(flag)]
            return Check(name, Outcome.DIFFERS, f"not blocked: {', '.join(lacking)} not set")
        key = f"{self.root}/{layout.PROBE}{secrets.token_hex(8)}".lstrip("/")
        try:
            outcome, detail = await self._block_public_access(found, key)
        finally:
            left = await self._delete_probe(key)
        return Check(name, outcome, detail + left)

    async def _block_public_access(self, found: dict[str, bool], key: str) -> tuple[Outcome, str]:
        """Ceph 16.2 denies every PUT, public or not, once BlockPublicAcls is set (seen), so it is tried."""
        may_write = await self._may_write(key)
        for flags in (_FLAGS, _FLAGS[1:]):
            await self._put_public_access({flag: flag in flags or bool(found.get(flag)) for flag in _FLAGS})
            if not may_write or await self._may_write(key):
                return Outcome.DONE, "blocked"
        if found:
            await self._put_public_access(found)
        else:
            await self.client.delete_public_access_block(Bucket=self.bucket)
        return Outcome.UNSUPPORTED, f"{self.endpoint} then denied every write, so it is as it was"

    async def _put_public_access(self, flags: dict[str, bool]) -> None:
        await self.client.put_public_access_block(Bucket=self.bucket, PublicAccessBlockConfiguration=flags)

    async def _may_write(self, key: str) -> bool:
        """Whether a registry's PUT, which always says an ACL, passes."""
        try:
            await self.client.put_object(Bucket=self.bucket, Key=key, Body=b"", ACL="private")
        except self._client_error():
            return False
        return True

    async def _delete_probe(self, key: str) -> str:
        """Nothing, or that it stays."""
        try:
            await self.client.delete_object(Bucket=self.bucket, Key=key)
        except botocore_errors():
            return f"; {key} may stay, deleting it failed"
        return ""

    async def _encryption(self, apply: bool) -> Check:
        name = "encryption"
        try:
            answer = await self.client.get_bucket_encryption(Bucket=self.bucket)
            rules = _part(_part(answer, "ServerSideEncryptionConfiguration"), "Rules")
        except self._client_error() as error:
            if _code(error) not in _NOT_SET:
                raise
            rules = []
        defaults = [rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm") for rule in rules]
        if any(defaults):
            return Check(name, Outcome.OK, f"new objects are encrypted with {next(filter(None, defaults))}")
        if not apply:
            return Check(name, Outcome.DIFFERS, "the bucket has no default encryption")
        await self.client.put_bucket_encryption(
            Bucket=self.bucket,
            ServerSideEncryptionConfiguration={
                "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
            },
        )
        return Check(name, Outcome.DONE, "new objects are encrypted with AES256")

    async def _lifecycle(self, days: int, apply: bool) -> Check:
        name = "lifecycle"
        prefix = f"{self.root}/{layout.PREFIX}".lstrip("/")
        rules, other = await self._rules()
        for rule in rules:
            after = rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation")
            covered = _rule_prefix(rule)
            if after is None or covered is None or not prefix.startswith(covered):
                continue
            if rule.get("Status") == "Enabled":
                detail = f"the rule {rule.get('ID', '')!r} aborts unfinished uploads after {after} days"
                return Check(name, Outcome.OK, detail)
            if str(rule.get("ID", "")).startswith(RULE_ID):
                return Check(name, Outcome.DIFFERS, f"the rule {rule['ID']} is there, and somebody has disabled it")
        if not apply:
            return Check(name, Outcome.DIFFERS, f"no rule aborts unfinished uploads under {prefix}")
        identifier = _unused_id({str(rule.get("ID", "")) for rule in rules})
        # AWS refuses a configuration in which one rule has the old `Prefix` and another a `Filter`.
        old_style = any("Prefix" in rule and "Filter" not in rule for rule in rules)
        ours: dict[str, Any] = {
            "ID": identifier,
            "Status": "Enabled",
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": days},
        } | ({"Prefix": prefix} if old_style else {"Filter": {"Prefix": prefix}})
        await self.client.put_bucket_lifecycle_configuration(
            Bucket=self.bucket, LifecycleConfiguration={"Rules": [*rules, ours]}, **other
        )
        after_put = {str(rule.get("ID", "")) for rule in (await self._rules())[0]}
        lost = {str(rule.get("ID", "")) for rule in rules} - after_put
        if lost or identifier not in after_put:
            return Check(name, Outcome.FAILED, f"after adding {identifier} the server has only {sorted(after_put)}")
        return Check(name, Outcome.DONE, f"the rule {identifier} aborts unfinished uploads after {days} days")

    async def _rules(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The lifecycle rules, and what else must be said again when they are put back."""
        try:
            answer = await self.client.get_bucket_lifecycle_configuration(Bucket=self.bucket)
        except self._client_error() as error:
            if _code(error) not in _NOT_SET:
                raise
            return [], {}
        kept = "TransitionDefaultMinimumObjectSize"
        return list(_part(answer, "Rules")), {kept: answer[kept]} if answer.get(kept) else {}

    # -- what a delete leaves

    async def retention(self) -> Check:
        """Versioning and object lock: what stays of an object that is deleted."""
        from botocore.exceptions import ClientError

        kept = []
        try:
            status = (await self.client.get_bucket_versioning(Bucket=self.bucket)).get("Status")
            if status in ("Enabled", "Suspended"):
                kept.append(f"versioning is {status.lower()}: a deleted object stays as a noncurrent version")
        except ClientError as error:
            if _status(error) == 403:
                return Check(
                    "retention", Outcome.UNKNOWN, "the credentials may not see whether deletes leave versions"
                )
        try:
            answer = await self.client.get_object_lock_configuration(Bucket=self.bucket)
            lock = answer.get("ObjectLockConfiguration", {})
            default = lock.get("Rule", {}).get("DefaultRetention", {})
            if default:
                length = f"{default['Days']} days" if default.get("Days") else f"{default.get('Years')} years"
                kept.append(f"object lock keeps every version for {length} ({default.get('Mode', '').lower()})")
        except ClientError:
            pass  # not set, or the server has no such thing
        if kept:
            return Check("retention", Outcome.DIFFERS, "; ".join(kept))
        return Check("retention", Outcome.OK, "a deleted object is gone")

    def _translated(self, error: BaseException, what: str) -> RegstoreError:
        return self.store.translate(error, what)

    @staticmethod
    def _client_error() -> Any:
        from botocore.exceptions import ClientError

        return ClientError


def _part(answer: dict[str, Any], name: str) -> Any:
    if not answer.get(name):
        raise _OtherAnswer(f"its answer has no {name}")
    return answer[name]


def botocore_errors() -> tuple[type[Exception], ...]:
    """All that a call of boto3 or aioboto3 raises, also when the answer is no XML."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    return ClientError, BotoCoreError, ResponseParserError


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _rule_prefix(rule: dict[str, Any]) -> str | None:
    """The prefix that a lifecycle rule covers whole; None where tags or sizes narrow it."""
    if "Filter" not in rule:
        return str(rule.get("Prefix", ""))
    narrowed = rule["Filter"]
    if not narrowed:
        return ""
    return str(narrowed["Prefix"]) if set(narrowed) == {"Prefix"} else None


def _unused_id(taken: set[str]) -> str:
    number, identifier = 1, RULE_ID
    while identifier in taken:
        number += 1
        identifier = f"{RULE_ID}-{number}"
    return identifier
