"""What a server or a connection said, as one of regstore's errors with one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from regstore.errors import (
    AccessDenied,
    AlreadyExists,
    Archived,
    AuthenticationFailed,
    IntegrityError,
    NoConnection,
    NoSuchBucket,
    NotFound,
    RegstoreError,
    StorageError,
    StorageFull,
    Unreachable,
    Unsupported,
)
from regstore.storage.s3.http import NOT_TLS, NotConnected

_EXPIRED: Final = "the session token has expired; get a new one and run the command again"
_CREDENTIALS: Final = {
    "InvalidAccessKeyId": "the server does not know this access key",
    "InvalidClientTokenId": "the server does not know this access key",
    "SignatureDoesNotMatch": "the secret key does not fit the access key",
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidToken": "the session token is not valid",
    "InvalidSecurity": "the credentials are not valid",
    "NotSignedUp": "the account has no S3",
    "RequestTimeTooSkewed": "this machine's clock differs too much from the server's; set it",
    "RequestExpired": "this machine's clock differs too much from the server's; set it",
}
_DENIED: Final = {"AccessDenied", "AccessDeniedException", "AllAccessDisabled", "AccountProblem", "Forbidden"}
_REGION: Final = {
    "PermanentRedirect",
    "TemporaryRedirect",
    "Redirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}
_FULL: Final = {"QuotaExceeded", "StorageFull", "XMinioStorageFull", "InsufficientStorage", "EntityTooLarge"}
_UNSUPPORTED: Final = {"NotImplemented", "MethodNotAllowed", "UnsupportedOperation"}
_UNTRUSTED: Final = "the TLS certificate of {} was not accepted ({}); give its authority with a CA bundle"
_PLAIN_PORT: Final = "{} does not speak TLS: is it an http:// port?"
_WEB_PAGE: Final = (
    "{} answered {} with a web page, not with S3's XML: is this the S3 port, and not that of a console?"
)
_TRANSIENT_STATUS: Final = frozenset({408, 429, 500, 502, 503, 504, 509})
_TRANSIENT: Final = frozenset(
    {
        "InternalError",
        "SlowDown",
        "ServiceUnavailable",
        "RequestTimeout",
        "RequestTimeoutException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "OperationAborted",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "BadDigest",
        "XAmzContentSHA256Mismatch",
        "503 SlowDown",
    }
)
_TOO_FAST: Final = frozenset({"SlowDown", "503 SlowDown", "Throttling", "ThrottlingException", "TooManyRequests"})


@dataclass(frozen=True, slots=True)
class Place:
    """For messages. root: "" or with a slash at its end; keys are shown without it, after the url."""

    url: str
    bucket: str
    endpoint: str
    region: str
    root: str = ""

    def relative(self, key: str) -> str:
        return key.removeprefix(self.root)

    def name(self, key: str) -> str:
        return f"{self.url}/{self.relative(key)}"

    def pair(self, source: str, target: str) -> str:
        return f"{self.relative(source)} to {self.relative(target)}"


class Refusal(Exception):
    """An answer that is not what was asked for. status: of HTTP; code: S3's word, "" where there was none.

    is_page: the body is a web page. wants_tls: it says that this port wants https."""

    def __init__(
        self,
        status: int,
        code: str = "",
        message: str = "",
        region: str = "",
        wait: float = 0.0,
        body: bytes = b"",
    ) -> None:
        super().__init__(f"{status} {code}" + (f": {message}" if message else ""))
        self.is_page = is_web_page(body)
        #: As Go's servers, nginx and others put it, in a 400 that is no S3.
        self.wants_tls = status == 400 and not code and b"https" in body[:1024].lower()
        self.status = status
        self.code = code
        self.message = message
        self.region = region
        self.wait = wait

    @property
    def transient(self) -> bool:
        """The same request may succeed later. 501 does not, nor does a clock that is wrong."""
        return self.code in _TRANSIENT or (self.status in _TRANSIENT_STATUS and self.code not in _UNSUPPORTED)

    @property
    def asks_to_wait(self) -> bool:
        """It is the server as a whole that is busy: then its Retry-After counts. Not of an object that can't be had."""
        return self.status in (429, 503) or self.code in _TOO_FAST

    @property
    def certain(self) -> bool:
        """What was asked for was not done, and will not be. Of other errors of a server nobody knows."""
        return self.code in _TOO_FAST or (400 <= self.status < 500 and self.code != "InternalError")

    @property
    def expired(self) -> bool:
        """The credentials were good once."""
        return _CREDENTIALS.get(self.code) is _EXPIRED

    @property
    def lacks_operation(self) -> bool:
        return self.status in (405, 501) or self.code in _UNSUPPORTED


def may_act_yet(error: Exception) -> bool:
    """Whether a request that failed like this may have been done, or be done some time later."""
    return not (error.certain if isinstance(error, Refusal) else isinstance(error, NotConnected))


def is_too_large(error: BaseException) -> bool:
    """Whether a request was refused for the size of its body: by S3, or by a proxy before it."""
    refusal = error.__cause__
    return isinstance(refusal, Refusal) and (refusal.status == 413 or refusal.code == "EntityTooLarge")


def lacks_upload(error: BaseException) -> bool:
    """Whether a request was refused because there is no such multipart upload (any more)."""
    refusal = error.__cause__
    return isinstance(refusal, Refusal) and refusal.code == "NoSuchUpload"


class Malformed(Exception):
    """A body that is not the whole, valid answer: the request has failed and is sent again."""


class WebPage(Malformed):
    """A web page came where XML was to come: a console, a login, a proxy's own words."""


def is_web_page(body: bytes) -> bool:
    start = body[:512].lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html"))


def web_page(what: str, endpoint: str) -> Unreachable:
    """what: the operation and key."""
    return Unreachable(_WEB_PAGE.format(endpoint, what))


def refused(refusal: Refusal, operation: str, key: str, place: Place) -> RegstoreError:
    """The error for a refusal. operation: S3's name of it; key: full key or prefix, "" for the bucket."""
    code, status = refusal.code, refusal.status
    key = place.relative(key)
    what = f"{operation} of {key}" if key else operation
    detail = f" ({code or status}{': ' + refusal.message if refusal.message else ''})"
    if refusal.wants_tls:
        return Unreachable(f"{place.endpoint} speaks TLS only: is it an https:// port?")
    if refusal.is_page and not refusal.transient:
        return web_page(f"{what} ({status})", place.endpoint)
    if code == "NoSuchBucket":
        return NoSuchBucket(f"there is no bucket {place.bucket} at {place.endpoint}")
    if code in _CREDENTIALS:
        return AuthenticationFailed(f"{place.endpoint} refused the credentials: {_CREDENTIALS[code]} ({code})")
    if code in _REGION or status in (301, 307):
        there = f"is in region {refusal.region}" if refusal.region else "is in another region"
        return StorageError(f"the bucket {place.bucket} {there}, not {place.region}; give its region with --region")
    if code in _DENIED or (status in (401, 403) and not code):
        return AccessDenied(f"{place.url}: {what} is not permitted{detail}")
    # A 404 that does not say NoSuchKey may come from a proxy, or from something that is no S3 at all.
    if code in ("NoSuchKey", "NoSuchUpload"):
        return NotFound(key, place.url)
    if code in _FULL or status == 507:
        return StorageFull(f"{place.url}: {what} failed, the storage is full or the quota used up{detail}")
    if code == "InvalidObjectState":
        return Archived(f"{place.url}: {what} failed, the object is archived; restore it first{detail}")
    if code == "PreconditionFailed" or status == 412:
        return AlreadyExists(f"{place.url}: {what} found the key in another state than required{detail}")
    if code in ("BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch"):
        return IntegrityError(f"{place.url}: {what} failed, the server received other bytes than were sent{detail}")
    if refusal.lacks_operation:
        return Unsupported(f"{place.endpoint} does not have {operation}{detail}")
    if refusal.transient:
        return Unreachable(f"{place.endpoint} kept failing on {what} after all retries{detail}")
    return StorageError(f"{place.url}: {what} failed{detail}")


def unreachable(error: BaseException, what: str, endpoint: str) -> Unreachable:
    """For a connection that cannot be made, or that keeps breaking."""
    if isinstance(error, NotConnected):
        if error.untrusted:
            return NoConnection(_UNTRUSTED.format(endpoint, error))
        if error.plain:
            return NoConnection(_PLAIN_PORT.format(endpoint))
        if error.no_address:
            return NoConnection(f"the host of {endpoint} has no address: check the endpoint's name")
        return NoConnection(f"no connection to {endpoint} ({error}); is it the right endpoint?")
    if isinstance(error, TimeoutError):
        return Unreachable(f"{endpoint} gave no answer to {what} in time")
    return Unreachable(f"the connection to {endpoint} failed during {what} ({error or type(error).__name__})")


def translate(error: BaseException, what: str, *, bucket: str = "", endpoint: str = "") -> RegstoreError:
    """An exception of botocore (as boto3 and aioboto3 raise) or aiohttp as one of regstore's; its own are given back.

    what: the operation and key, for the sentence. Raise the result `from error`.
    """
    if isinstance(error, RegstoreError):
        return error
    endpoint = endpoint or "the S3 endpoint"
    place = Place(f"s3://{bucket}" if bucket else endpoint, bucket, endpoint, "the one asked for")
    if isinstance(error, Refusal):
        return refused(error, what, "", place)
    module = type(error).__module__
    if module.startswith(("botocore", "boto3")):
        return _from_botocore(error, what, place)
    if isinstance(error, OSError):
        return unreachable(error, what, place.endpoint)
    if module.startswith("aiohttp"):
        return Unreachable(f"the connection to {place.endpoint} failed during {what} ({error})")
    return StorageError(f"{place.url}: {what} failed ({type(error).__name__}: {error})")


def _from_botocore(error: BaseException, what: str, place: Place) -> RegstoreError:
    import botocore.exceptions as boto

    if isinstance(error, boto.ClientError):
        said = error.response.get("Error", {})
        meta = error.response.get("ResponseMetadata", {})
        code = str(said.get("Code", ""))
        status = int(meta.get("HTTPStatusCode", 0)) or (int(code) if code.isdigit() else 0)
        region = meta.get("HTTPHeaders", {}).get("x-amz-bucket-region", "") or said.get("Region", "")
        if code.isdigit():  # a HEAD's answer has no body
            code = {"HeadBucket": "NoSuchBucket", "HeadObject": "NoSuchKey"}.get(error.operation_name, "")
            code = code if status == 404 else ""
        refusal = Refusal(status, code, str(said.get("Message") or ""), str(region))
        return refused(refusal, what, "", place)
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)):
        return AuthenticationFailed(f"no AWS credentials for {place.endpoint}: {error}")
    if isinstance(error, (boto.TokenRetrievalError, boto.UnauthorizedSSOTokenError, boto.SSOTokenLoadError)):
        return AuthenticationFailed(f"the AWS credentials cannot be had: {error}")
    if isinstance(error, boto.SSLError) and any(reason in str(error) for reason in NOT_TLS):
        return Unreachable(_PLAIN_PORT.format(place.endpoint))
    if isinstance(error, boto.SSLError):
        return Unreachable(_UNTRUSTED.format(place.endpoint, error))
    if isinstance(error, (boto.HTTPClientError, boto.ConnectionError)):
        return Unreachable(f"no answer from {place.endpoint} to {what} ({error})")
    return StorageError(f"{place.url}: {what} failed ({error})")
