"""What is said about the cluster."""

from __future__ import annotations

from dataclasses import dataclass

from regstore.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """master: of the cluster, "" for that of spark-submit. request_rate: requests to stores a second, of all executors
    together; 0: no bound. tasks: so many at a time, where each is handed out by itself; 0: as many as there are cores
    now."""

    master: str = ""
    request_rate: int = 0
    tasks: int = 0

    def __post_init__(self) -> None:
        if self.request_rate < 0 or self.tasks < 0:
            raise InputError("neither tasks nor requests can be less than none")


@dataclass(frozen=True, kw_only=True)
class SparkOptions(ClusterOptions):
    """work: a folder that all executors reach, by the name that Spark knows it by: s3a://…, or a path. shards: of
    repositories, and of blobs; 0: four for each core."""

    work: str
    shards: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shards < 0:
            raise InputError("there can't be less shards than none")
        if not self.work:
            raise InputError("a cluster needs a folder that all its executors reach; name one with --work")
