"""Verification: is all there that the links and manifests of a store promise, and are its bytes right.

    from regstore.storage import open_storage
    from regstore.verify import ReadData, RepairOptions, VerifyOptions, hold_lock, repair, verify

    options = VerifyOptions(read=ReadData.parse("all"))  # every blob is read and hashed; else only manifests are
    async with open_storage("/srv/registry") as storage:
        report = await verify(storage, options)
        for fault in report.findings.faults:
            print(fault.kind, fault.repository, fault.detail)
        async with hold_lock(storage, command="verify") as lock:
            before, repairs, after = await repair(storage, lock, options, RepairOptions())
        print(len(repairs.rewritten), "links written anew;", after.findings.tags_broken, "tags are broken")

verify      a VerifyReport, with Findings, each Fault of a FaultKind; VerifyOptions say what is read (ReadData,
            Checksums)
repair      mends what can be mended from the store itself, or from another copy (RepairOptions, Repairs); hold_lock
            gives the Lock that it needs
examine     how a store is, in lines: permissions, locks, unfinished runs, what is archived (Examination)
ScanOptions how a store is listed

Within: `run` scans, reads what is asked for, and plans; `links` looks at those of which a scan says too little; `plan`
is SQL, and `fault` what it finds. `repairing` mends, from what `copies` knows, and has `drop` remove tags (`work`: one
repair under way). `doctor` examines. `options` are what verify is asked to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from regstore.lazy import lazily

if TYPE_CHECKING:
    from regstore.inventory.scan import ScanOptions
    from regstore.proving.read_data import Checksums, ReadData
    from regstore.state.lock import Lock, hold_lock
    from regstore.verify.doctor import Examination, examine
    from regstore.verify.fault import Fault, FaultKind, Findings
    from regstore.verify.options import VerifyOptions
    from regstore.verify.repairing import repair
    from regstore.verify.run import VerifyReport, verify
    from regstore.verify.work import RepairOptions, Repairs
else:
    __getattr__, __dir__ = lazily(__name__)

__all__ = [
    "Checksums",
    "Examination",
    "Fault",
    "FaultKind",
    "Findings",
    "Lock",
    "ReadData",
    "RepairOptions",
    "Repairs",
    "ScanOptions",
    "VerifyOptions",
    "VerifyReport",
    "examine",
    "hold_lock",
    "repair",
    "verify",
]
