"""What is said about the cluster."""

from __future__ import annotations

from dataclasses import dataclass

from regstore.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SparkOptions:
    """master: of the cluster, "" for that of spark-submit. work: a folder that all executors reach, by the name that
    Spark knows it by: s3a://…, or a path. shards: of repositories, and of blobs; 0: four for each core. request_rate:
    requests to the store a second, of all executors together; 0: no bound."""

    master: str = ""
    work: str
    shards: int = 0
    request_rate: int = 0

    def __post_init__(self) -> None:
        if self.shards < 0 or self.request_rate < 0:
            raise InputError("neither shards nor requests can be less than none")
        if not self.work:
            raise InputError("a cluster needs a folder that all its executors reach; name one with --work")
