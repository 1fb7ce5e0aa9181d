"""The lines of an htpasswd file, as registries take them: bcrypt and nothing else. Pure.

Distribution passes over a line with another hash without a word, and then that user can't log in; so such a line is an
error here.
"""

from __future__ import annotations

import re
from typing import Final

from regstore.errors import InputError

#: The most bytes of a password that bcrypt looks at.
LONGEST: Final = 72
_BCRYPT: Final = re.compile(r"\$2[aby]\$(?:0[4-9]|1\d|2\d|3[01])\$[./A-Za-z0-9]{53}")
_KINDS: Final = {"$apr1$": "MD5 (htpasswd -m)", "{SHA}": "SHA-1 (htpasswd -s)", "$5$": "SHA-256", "$6$": "SHA-512"}


def parse_htpasswd(text: str, where: str) -> dict[str, bytes]:
    """User and bcrypt hash of each line; empty lines and those that begin with `#` are passed over.

    InputError names the line that is no user's, or whose hash is another kind.
    """
    users: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        user, colon, hashed = entry.partition(":")
        if not colon or not user:
            raise InputError(f"{where}, line {number}: not `user:hash`")
        if not _BCRYPT.fullmatch(hashed):
            kind = next((name for sign, name in _KINDS.items() if hashed.startswith(sign)), "not bcrypt")
            raise InputError(
                f"{where}, line {number}: the hash of {user!r} is {kind}, and registries take bcrypt only: make it "
                "with htpasswd -B"
            )
        users[user] = hashed.encode()
    return users
