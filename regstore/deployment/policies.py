"""Least privilege on a bucket, as IAM policies: for the registry, for regstore's nightly job, for `serve`. Pure.

Each action is there because of a request that is made (the test asks a store that grants nothing else, and takes away
each action in turn), by the table of AWS, "Actions, resources, and condition keys for Amazon S3":

    ListBucket                   every listing, the health check, HEAD of the bucket. Besides, without it a missing
                                 object is "403 Forbidden" and not "404 Not Found", which a registry asks for all the
                                 time; with a condition on s3:prefix, too, for a GET has none. So there is none, and who
                                 lists sees the names of a whole bucket: give a registry a bucket of its own.
    GetObject                    GET and HEAD of an object, and the source of a copy
    PutObject                    PUT, and each request of a multipart upload but those below
    AbortMultipartUpload         DELETE of an upload
    ListMultipartUploadParts     GET of an upload: a registry goes on with it, regstore resumes it
    ListBucketMultipartUploads   the registry looks for the upload that it goes on with, regstore for abandoned ones
    DeleteObject                 DELETE, and each key of DeleteObjects
    GetObjectAcl, PutObjectAcl   only where the registry is told of an `objectacl` that is not private: to say one, and
                                 to keep it in a copy. gc asks for an access list anyway, and goes on without
    GetBucketOwnershipControls   whether copies have to keep access lists
    GetBucketVersioning          whether a delete leaves versions behind
    kms:...                      only with a KMS key of one's own: GenerateDataKey to write, Decrypt to read, and to go
                                 on with a multipart upload

The registry gets at its own tree only, `docker/registry/v2/`; regstore besides at what it keeps below `regstore/`, and
it reads the two objects beside these that say that a place is a backup or a pull-through cache.
Nobody may change the bucket: what makes it (`regstore init --create`, `regstore seed-bucket`) runs as somebody who may.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from regstore import layout
from regstore.backup.format import INTENTS, MARKER
from regstore.deployment.wanted import Deployment, WantedFile
from regstore.storage.location import normalize_root, parse_s3

FOLDER: Final = "policies"
REGISTRY_POLICY: Final = f"{FOLDER}/registry.json"
REGSTORE_POLICY: Final = f"{FOLDER}/regstore.json"
SERVE_POLICY: Final = f"{FOLDER}/serve.json"

_READ: Final = ("s3:GetObject",)
_WRITE: Final = ("s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "s3:PutObject")
_DELETE: Final = ("s3:DeleteObject",)
_LOOK: Final = ("s3:ListBucket",)
_LOOK_AT_UPLOADS: Final = ("s3:ListBucketMultipartUploads",)
_LOOK_AT_SETTINGS: Final = ("s3:GetBucketOwnershipControls", "s3:GetBucketVersioning")
_LISTS: Final = ("s3:GetObjectAcl", "s3:PutObjectAcl")

#: Of the region's name. AWS's own, where it is none of these.
_PARTITIONS: Final = (
    ("cn-", "aws-cn"),
    ("us-gov-", "aws-us-gov"),
    ("us-iso-", "aws-iso"),
    ("us-isob-", "aws-iso-b"),
)

Policy = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A root in a bucket. root: as keys begin, "" for the whole bucket, no slash at its end. key_id: of KMS, or "".
    has_lists: objects are put with an access list that is not the default."""

    bucket: str
    root: str = ""
    partition: str = "aws"
    region: str = ""
    key_id: str = ""
    has_lists: bool = False

    @property
    def of_bucket(self) -> str:
        return f"arn:{self.partition}:s3:::{self.bucket}"

    def below(self, prefix: str) -> str:
        """All keys that begin with the root and the prefix, which ends in a slash, or is empty."""
        return self.at(prefix) + "*"

    def at(self, key: str) -> str:
        """An asterisk, a question mark or a dollar sign in a root is said as what it is."""
        root = "".join({"*": "${*}", "?": "${?}", "$": "${$}"}.get(each, each) for each in self.root)
        return "/".join(each for each in (self.of_bucket, root) if each) + f"/{key}"

    @property
    def key(self) -> str:
        if self.key_id.startswith("arn:"):
            return self.key_id
        return f"arn:{self.partition}:kms:{self.region or '*'}:*:key/{self.key_id}"


def files(deployment: Deployment) -> list[WantedFile]:
    """None where the store is no bucket. A backup in a bucket is regstore's, too."""
    if deployment.on_disk:
        return []
    found = {
        REGISTRY_POLICY: registry_policy(place_of(deployment)),
        REGSTORE_POLICY: regstore_policy(place_of(deployment), backup_place(deployment)),
    }
    if deployment.with_serve:
        found[SERVE_POLICY] = serve_policy(place_of(deployment))
    return [WantedFile(path=path, content=render(policy).encode()) for path, policy in found.items()]


def render(policy: Policy) -> str:
    return json.dumps(policy, indent=2, ensure_ascii=False) + "\n"


def place_of(deployment: Deployment) -> Place:
    driver = deployment.storage[deployment.driver]
    return _place(str(driver["bucket"]), normalize_root(str(driver.get("rootdirectory") or "")), driver)


def backup_place(deployment: Deployment) -> Place | None:
    """Where backups go to, where that is a bucket: reached as the store is."""
    backup = deployment.backup or ""
    location = parse_s3(backup) if backup.startswith("s3:") else None
    if location is None:
        return None
    driver = {} if deployment.on_disk else deployment.storage[deployment.driver]
    return _place(location.bucket, location.root, {"region": driver.get("region")})


def registry_policy(place: Place) -> Policy:
    objects = (*_READ, *_WRITE, *_DELETE, *_lists(place, _LISTS[1:]))
    return _policy(
        _allow("RegistryBucket", (*_LOOK, *_LOOK_AT_UPLOADS), [place.of_bucket]),
        _allow("RegistryObjects", objects, [place.below(layout.PREFIX)]),
        *_kms("RegistryKey", place, writes=True),
    )


def regstore_policy(place: Place, backup: Place | None = None) -> Policy:
    """For gc, verify and backup. backup: a place that snapshots are added to, and from which none can be deleted: only
    what a run says there while it runs goes with it."""
    objects = (*_READ, *_WRITE, *_DELETE, *_lists(place, _LISTS))
    statements = [
        _allow("StoreBucket", (*_LOOK, *_LOOK_AT_UPLOADS, *_LOOK_AT_SETTINGS), [place.of_bucket]),
        _allow("StoreObjects", objects, _trees(place)),
        _allow("StoreKinds", _READ, _kinds(place)),
        *_kms("StoreKey", place, writes=True),
    ]
    if backup is not None:
        statements += [
            _allow("BackupBucket", _LOOK, [backup.of_bucket]),
            _allow("BackupObjects", (*_READ, *_WRITE), [backup.below("")]),
            _allow("BackupIntents", _DELETE, [backup.below(INTENTS)]),
        ]
    return _policy(*statements)


def serve_policy(place: Place) -> Policy:
    return _policy(
        _allow("StoreBucket", (*_LOOK, *_LOOK_AT_UPLOADS, "s3:GetBucketVersioning"), [place.of_bucket]),
        _allow("StoreObjects", (*_READ, "s3:ListMultipartUploadParts"), _trees(place)),
        _allow("StoreKinds", _READ, _kinds(place)),
        *_kms("StoreKey", place, writes=False),
    )


def _trees(place: Place) -> list[str]:
    """The registry's, and regstore's own."""
    return [place.below(layout.PREFIX), place.below(layout.STATE)]


def _kinds(place: Place) -> list[str]:
    """Of what lies at the root, what says that it is a backup, or a pull-through cache."""
    return [place.at(MARKER), place.at(layout.SCHEDULER_STATE)]


def _place(bucket: str, root: str, driver: Mapping[str, Any]) -> Place:
    region = str(driver.get("region") or "")
    is_aws = not driver.get("regionendpoint")
    return Place(
        bucket=bucket,
        root=root,
        region=region,
        partition=next((name for start, name in _PARTITIONS if is_aws and region.startswith(start)), "aws"),
        key_id=str(driver.get("keyid") or "") if driver.get("encrypt") else "",
        has_lists=str(driver.get("objectacl") or "private") != "private",
    )


def _lists(place: Place, actions: tuple[str, ...]) -> tuple[str, ...]:
    return actions if place.has_lists else ()


def _kms(name: str, place: Place, *, writes: bool) -> list[dict[str, Any]]:
    if not place.key_id:
        return []
    if place.key_id.startswith("alias/"):
        # The name of a key is in no ARN of the key, so it is a condition.
        one = _allow(name, _kms_actions(writes), [f"arn:{place.partition}:kms:{place.region or '*'}:*:key/*"])
        return [{**one, "Condition": {"ForAnyValue:StringEquals": {"kms:ResourceAliases": place.key_id}}}]
    return [_allow(name, _kms_actions(writes), [place.key])]


def _kms_actions(writes: bool) -> tuple[str, ...]:
    return ("kms:Decrypt", "kms:GenerateDataKey") if writes else ("kms:Decrypt",)


def _allow(name: str, actions: tuple[str, ...], resources: list[str]) -> dict[str, Any]:
    return {"Sid": name, "Effect": "Allow", "Action": sorted(actions), "Resource": resources}


def _policy(*statements: dict[str, Any]) -> Policy:
    return {"Version": "2012-10-17", "Statement": list(statements)}
