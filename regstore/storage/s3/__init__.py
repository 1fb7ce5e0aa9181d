"""The S3 backend: `S3Settings` says where and as whom, `S3Storage` is the `Storage` over it.

Three clients, each for what it is best at:

    signed here, over `http`     every request for objects: a signature (`sigv4`), connections of our own, one set of
                                 retry rules, one count of requests, keys exactly as they are (`client`); through
                                 an HTTP proxy, or with REGSTORE_S3_TRANSPORT=aiohttp, aiohttp (`proxied`)
    boto3                        finds credentials wherever AWS tools find them, and renews them (`credentials`);
                                 its session reads profile, region and endpoint; not loaded where variables say it
                                 all (`aws_config`)
    aioboto3                     work on the bucket itself, a dozen requests in all, whose many shapes its models
                                 know: create, public access, encryption, lifecycle, versioning, object lock
                                 (`S3Storage.aioboto3_client`, used by `regstore.seed`)

Why objects are not left to an SDK, nor to a general HTTP client (processor time of the client a request of 71 bytes,
loopback, 64 workers, one run of `python -m benchmarks.small_requests --count 4000`):

                                   PUT       GET
    S3Storage, all of it           122 us    129 us
    its transport and signature     84 us     87 us
    aiohttp, signed likewise       277 us    285 us
    obstore 0.12, async            300 us    442 us

(botocore's own signer takes 80 us more; a listing costs 2.5 us a key.) obstore, which is Rust's object_store, also
cannot name a key with `//`, `/./` or a leading `/`, and hides its retries; so it is not used.
"""

from __future__ import annotations

from regstore.storage.s3.failures import translate
from regstore.storage.s3.retry import RetryPolicy
from regstore.storage.s3.settings import S3Settings
from regstore.storage.s3.storage import S3Storage

__all__ = ["RetryPolicy", "S3Settings", "S3Storage", "translate"]
