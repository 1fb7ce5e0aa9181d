"""Where a blob's way changes with its size: every threshold and every part, once. All in bytes, unless it says how
many.

`storage.transfer` says how many blobs of which size are under way at a time.
"""

from __future__ import annotations

from typing import Final

MiB: Final = 1024 * 1024

# Reading

#: Up to this, one request whose answer is held whole.
WHOLE: Final = MiB
#: Above this, ranges, where the store serves several requests at a time; between the two, one stream.
RANGED: Final = 32 * MiB
#: Of a range, and how many of a blob are under way or waiting: 24 MiB a blob.
RANGE: Final = 8 * MiB
AHEAD: Final = 3

# Writing

#: A stream of unknown size, or that can be read once only, is gathered up to this and goes in one PUT.
SINGLE_PUT: Final = 16 * MiB
#: A blob of known digest of up to this goes in one PUT, as it is read. More goes in parts.
ONE_REQUEST: Final = 128 * MiB
#: Of a part, and how many of an upload are under way.
PART: Final = 8 * MiB
IN_FLIGHT: Final = 4

#: How many blobs at a time that are sent in parts, or read in ranges: several connections each, and 60 MiB.
LARGE_AT_ONCE: Final = 3

# Copies that the server makes

#: Up to this, one request; above it parts.
COPIED_WHOLE: Final = 256 * MiB
COPY_PART: Final = 128 * MiB

# S3's limits: parts of an upload (how many), a part, and what one CopyObject takes

MAX_PARTS: Final = 10_000
MAX_PART: Final = 5 * 1024 * MiB
MAX_COPY: Final = 5 * 1024 * MiB

# Hashing

#: So much is worth a thread: it is gathered, and hashed there at once.
HASHED: Final = MiB
