"""The S3 backend: `S3Settings` says where and as whom, `S3Storage` is the `Storage` over it.

Three clients, each for what it is best at:

    signed here, over aiohttp    every request for objects: a signature (`sigv4`), one set of retry rules, one
                                 count of requests, keys exactly as they are (`client`)
    boto3                        finds credentials wherever AWS tools find them, and renews them (`credentials`);
                                 its session reads profile, region and endpoint (`settings`)
    aioboto3                     work on the bucket itself, a dozen requests in all, whose many shapes its models
                                 know: create, public access, encryption, lifecycle, versioning, object lock
                                 (`S3Storage.aioboto3_client`, used by `regstore.seed`)

Why objects are not left to an SDK (process CPU a GET of 71 bytes, loopback, 32 workers, alternating):

                                   quiet, bare request    busy machine, whole client, three rounds
    aiohttp, signed here           0.15, 0.16 ms          0.18, 0.20, 0.20 ms
    obstore, sync in 8 threads     0.19, 0.20 ms          0.11, 0.14, 0.21 ms
    obstore, async                 0.24, 0.29 ms          0.20, 0.23, 0.24 ms

(0.01 ms of ours is the signature, where botocore's own signer takes 0.08 ms; a listing costs 2.5 us a key.)
obstore 0.12, which is Rust's object_store, gains little or nothing, cannot name a key with `//`, `/./` or a
leading `/`, and hides its retries; so it is not used.
"""

from __future__ import annotations

from regstore.storage.s3.failures import translate
from regstore.storage.s3.retry import RetryPolicy
from regstore.storage.s3.settings import S3Settings
from regstore.storage.s3.storage import S3Storage

__all__ = ["RetryPolicy", "S3Settings", "S3Storage", "translate"]
