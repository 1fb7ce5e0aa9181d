"""Passwords: HTTP Basic against an htpasswd file with bcrypt, as registries take it.

Other hashes are refused when the file is read: Distribution passes over such lines without a word, and then nobody can
log in. Comparing takes the same time whether or not the user is known. Guessing is slow: comparisons run one at a time
per core, a wrong password is answered only after `PENALTY`, and of one address `WAITING` may wait, the next gets 429. A
password that was right is remembered for a while by its keyed hash, so that a pull costs one comparison.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from aiohttp import hdrs, web

from regstore.errors import InputError
from regstore.events import Notice, OnEvent, ignore
from regstore.htpasswd import LONGEST, parse_htpasswd
from regstore.machine import usable_cores
from regstore.serve.answers import ApiError
from regstore.serve.proxies import NO_PROXIES, Proxies

#: Seconds that a wrong password waits for its answer.
PENALTY: Final = 1.0
#: Passwords that are being compared, or were wrong and wait: of one address, and of all.
WAITING: Final = 20
_WAITING_IN_ALL: Final = 500
#: Seconds for which a right password is remembered, and how many.
_REMEMBERED: Final = 300.0
_MOST: Final = 1000


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells a file from what it was."""

    mtime: int
    ctime: int
    size: int
    inode: int


def stamp_of(path: Path) -> Stamp | None:
    """None where there is no file, or none that can be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return Stamp(found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)


def read_htpasswd(path: Path) -> dict[str, bytes]:
    """User and bcrypt hash of each line. InputError where it can't be read, is wrong, or names nobody."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the password file {path} can't be read: {error}") from error
    users = parse_htpasswd(text, str(path))
    if not users:
        raise InputError(f"{path} names no user")
    return users


class Passwords:
    """The users of a file, which is read again when it has changed. A file that has become unreadable, or wrong, leaves
    those that were known, and the log says so."""

    def __init__(self, path: Path, *, proxies: Proxies = NO_PROXIES, on_event: OnEvent = ignore) -> None:
        """proxies: whose word counts for where a client is."""
        self._path = path
        self._proxies = proxies
        self._on_event = on_event
        self._users = read_htpasswd(path)
        self._stamp = stamp_of(path)
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, float] = OrderedDict()
        self._waiting: Counter[str] = Counter()
        self._trying: set[asyncio.Task[bool]] = set()
        cores = usable_cores()
        self._comparing = asyncio.Semaphore(cores)
        #: Threads of their own: whoever guesses does not take those that read the store.
        self._pool = ThreadPoolExecutor(cores, thread_name_prefix="passwords")
        self._nobody = _hash(secrets.token_bytes(16), next(iter(self._users.values())))

    async def check(self, request: web.Request) -> None:
        """ApiError 401 unless the request bears a user's password; 429 where too many are being tried."""
        self.look()
        user, password = _credentials(request.headers.get(hdrs.AUTHORIZATION, ""))
        if user is None:
            raise _unauthorized()
        proof = hmac.digest(self._key, f"{user}\0".encode() + password, hashlib.sha256)
        if self._right.get(proof, 0.0) > time.monotonic():
            return
        address = self._proxies.client(request)
        if self._waiting[address] >= WAITING or self._waiting.total() >= _WAITING_IN_ALL:
            raise ApiError(
                HTTPStatus.TOO_MANY_REQUESTS, "TOOMANYREQUESTS", "too many passwords at a time", Retry_After="10"
            )
        users = self._users
        # To its end even if the client goes away: or one who does so at once could try as many as he likes.
        self._waiting[address] += 1
        trying = asyncio.create_task(self._try(address, users.get(user), password))
        self._trying.add(trying)
        trying.add_done_callback(self._trying.discard)
        if not await asyncio.shield(trying):
            raise _unauthorized()
        if users is not self._users:  # the file changed meanwhile
            await self.check(request)
            return
        self._right[proof] = time.monotonic() + _REMEMBERED
        while len(self._right) > _MOST:
            self._right.popitem(last=False)

    async def _try(self, address: str, known: bytes | None, password: bytes) -> bool:
        """Whether a password is right; takes its time where it is not."""
        try:
            async with self._comparing:
                compared = known if known is not None else self._nobody
                right = await asyncio.get_running_loop().run_in_executor(self._pool, _matches, password, compared)
            if known is None or not right:
                await asyncio.sleep(PENALTY)
                return False
            return True
        finally:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]

    def look(self) -> None:
        """Take the file's users if it has changed."""
        stamp = stamp_of(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._users = read_htpasswd(self._path)
        except InputError as error:
            self._on_event(Notice(message=f"{error}; the passwords that were there are taken on"))
            return
        self._right.clear()


def _credentials(header: str) -> tuple[str | None, bytes]:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic" or len(encoded) > 4096:
        return None, b""
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (user.decode() if colon else None), password
    except (binascii.Error, UnicodeDecodeError):
        return None, b""


def _unauthorized() -> ApiError:
    return ApiError(
        HTTPStatus.UNAUTHORIZED,
        "UNAUTHORIZED",
        "authentication required",
        WWW_Authenticate='Basic realm="regstore", charset="UTF-8"',
    )


def _matches(password: bytes, hashed: bytes) -> bool:
    bcrypt = _bcrypt()
    if b"\0" in password or len(password) > LONGEST:  # bcrypt would look at what stands before only
        bcrypt.checkpw(b"x", hashed)
        return False
    return bool(bcrypt.checkpw(password, hashed))


def _hash(password: bytes, like: bytes) -> bytes:
    """Of the same cost as another hash."""
    bcrypt = _bcrypt()
    return bytes(bcrypt.hashpw(password.hex().encode(), bcrypt.gensalt(int(like[4:6]))))


def _bcrypt() -> Any:
    try:
        import bcrypt
    except ImportError as error:
        raise InputError("passwords need a package more: pip install 'regstore[serve]'") from error
    return bcrypt
