"""What a reading of blobs has shown."""

from __future__ import annotations

from dataclasses import dataclass

from regstore.words import Moment


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What was read, and what that says of the whole store. Sizes in bytes; proofs are of all runs so far.

    manifests: read by the scan. known: proved within max_age, so not read. trusted: vouched for by the server only,
    as asked. checksums: blobs whose server-side checksum agreed, those where it did not, and those without one.
    left: chosen, but the time was over. unstable: read wrong once and right the second time.
    oldest: the time of the oldest proof that counts, in microseconds; None where some blob was never proved.
    """

    blobs: int = 0
    bytes: int = 0
    manifests: int = 0
    known: int = 0
    known_bytes: int = 0
    trusted: int = 0
    checksums_agree: int = 0
    checksums_differ: int = 0
    checksums_absent: int = 0
    left: int = 0
    left_bytes: int = 0
    unstable: tuple[str, ...] = ()
    never_proved: int = 0
    never_proved_bytes: int = 0
    oldest: Moment | None = None
    seconds: float = 0.0
