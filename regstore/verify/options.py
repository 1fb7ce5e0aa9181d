"""What verify is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from regstore.errors import InputError
from regstore.inventory.scan import ScanOptions
from regstore.proving.read_data import Checksums, ReadData


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """read: which blobs to read and hash; None: none but manifests, which always are.

    max_age: microseconds; what was proved since is not read again. time_limit: seconds, for reading.
    proofs: the folder where what was proved is remembered; None: nowhere. store: under which name; "": its URL.
    pull_through: the store is a pull-through cache's; None: as scheduler-state.json says.
    """

    scan: ScanOptions = field(default_factory=ScanOptions)
    read: ReadData | None = None
    max_age: int | None = None
    time_limit: float | None = None
    checksums: Checksums = Checksums.IGNORE
    proofs: Path | None = None
    store: str = ""
    pull_through: bool | None = None

    def __post_init__(self) -> None:
        if self.scan.cache_dir is not None:
            raise InputError("verify reads every manifest: it can't use what others remember of them")
        if self.read is None and (self.max_age is not None or self.time_limit is not None):
            raise InputError("an age or a time limit means something only with --read-data")
        if self.read is None and self.checksums is not Checksums.IGNORE:
            raise InputError("checksums that the server keeps are looked at only with --read-data")
