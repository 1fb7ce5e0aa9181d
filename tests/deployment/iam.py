"""IAM, as far as our policies go: a store that answers 403 where a policy does not allow what is asked.

By the table of AWS, "Actions, resources, and condition keys for Amazon S3". The keys of DeleteObjects stand in its body
and are not looked at: any key that may be deleted will do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from tests.servers.fault_proxy import FaultProxy, Request

_OF_OBJECT = {
    "GetObject": "GetObject",
    "HeadObject": "GetObject",
    "PutObject": "PutObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "AbortMultipartUpload": "AbortMultipartUpload",
    "ListParts": "ListMultipartUploadParts",
    "DeleteObject": "DeleteObject",
    "DeleteObjects": "DeleteObject",
}
_OF_BUCKET = {
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "HeadBucket": "ListBucket",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "GetBucketVersioning": "GetBucketVersioning",
}


def needs(request: Request) -> list[tuple[str, str]]:
    """Actions, with the ARN that each is asked for."""
    bucket = f"arn:aws:s3:::{request.bucket}"
    if request.operation == "DeleteObjects":
        return [("s3:DeleteObject", f"{bucket}/*")]
    if not request.key:
        if "ownershipControls" in request.query:
            return [("s3:GetBucketOwnershipControls", bucket)]
        return [(f"s3:{_OF_BUCKET.get(request.operation, request.operation)}", bucket)]
    this = f"{bucket}/{request.key}"
    if "acl" in request.query:
        return [("s3:GetObjectAcl", this)]
    found = [(f"s3:{_OF_OBJECT[request.operation]}", this)]
    source = request.headers.get("x-amz-copy-source")
    if source is not None:
        found.append(("s3:GetObject", f"arn:aws:s3:::{unquote(source).lstrip('/')}"))
    has_list = any(name.startswith("x-amz-grant-") for name in request.headers)
    if has_list or request.headers.get("x-amz-acl", "private") != "private":
        found.append(("s3:PutObjectAcl", this))
    return found


def allows(policy: dict[str, Any], action: str, resource: str) -> bool:
    return any(
        action in statement["Action"] and any(_covers(pattern, resource) for pattern in statement["Resource"])
        for statement in policy["Statement"]
    )


def _covers(pattern: str, resource: str) -> bool:
    if resource.endswith("/*"):  # any key
        return pattern.startswith(resource[:-1])
    parts = re.split(r"(\$\{[*?$]\}|\*|\?)", pattern)
    known = {"*": ".*", "?": "."}
    return (
        re.fullmatch("".join(known.get(part) or re.escape(_literal(part)) for part in parts), resource, re.S)
        is not None
    )


def _literal(part: str) -> str:
    return part[2:-1] if part.startswith("${") else part


@dataclass
class Guard:
    """Answers for the proxy's store. used: the actions that were allowed; denied: what was not."""

    proxy: FaultProxy
    policy: dict[str, Any]
    used: set[str] = field(default_factory=set)
    denied: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.proxy.clear()
        self.proxy.answer(403, "AccessDenied", when=self._refuses, times=None)

    def _refuses(self, request: Request) -> bool:
        asked = needs(request)
        refused = {each for each in asked if not allows(self.policy, *each)}
        self.denied |= refused
        if not refused:
            self.used |= {action for action, _ in asked}
        return bool(refused)

    @property
    def granted(self) -> set[str]:
        return {action for statement in self.policy["Statement"] for action in statement["Action"]}
