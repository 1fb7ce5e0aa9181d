"""The users of a deployment: lines of its htpasswd file, added and taken away.

What else stands in the file stays as it is: comments, empty lines, other users. Needs the package bcrypt.
"""

from __future__ import annotations

import secrets
import string
from typing import Any, Final

from regstore.errors import InputError, Refused
from regstore.htpasswd import LONGEST, parse_htpasswd

#: Work factor: 2 to the power of this. A registry compares at each request, so it is not higher.
COST: Final = 10
_ALPHABET: Final = string.ascii_letters + string.digits
#: 143 bits.
_LENGTH: Final = 24
_LONGEST_NAME: Final = 255


def check_name(user: str) -> None:
    """InputError unless a name can stand in such a file and in a log-in."""
    if not user or len(user) > _LONGEST_NAME:
        raise InputError(f"a user's name has 1 to {_LONGEST_NAME} characters")
    if ":" in user:
        raise InputError(
            f"{user!r} can't be a user's name: a log-in is `name:password`, so no colon stands in a name"
        )
    if user.startswith("#") or user != user.strip() or not user.isprintable():
        raise InputError(f"{user!r} can't be a user's name: no # or space at its beginning, no control characters")


def check_password(password: str) -> None:
    """InputError unless all of a password counts. It is never part of the message."""
    if not password:
        raise InputError("an empty password lets everybody in: give one")
    if not password.isprintable():
        raise InputError("a password can't have control characters in it: no client can send them")
    try:
        size = len(password.encode())
    except UnicodeEncodeError as error:
        raise InputError("the password is not UTF-8, as clients send it") from error
    if size > LONGEST:
        raise InputError(f"the password is longer than {LONGEST} bytes, and what follows these would not count")


def new_password() -> str:
    """One to be shown once. Letters and digits only, so that no shell and no file reads it otherwise."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def users_of(content: bytes, where: str) -> list[str]:
    """InputError where the file has anything that a registry would pass over."""
    return list(parse_htpasswd(_text(content, where), where))


def with_user(content: bytes, user: str, password: str, where: str) -> bytes:
    """The file with the user's password; the line stays where it was, if there was one. InputError as above."""
    check_name(user)
    check_password(password)
    bcrypt = _bcrypt()
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(COST)).decode()
    return _with_line(content, user, f"{user}:{hashed}", where)


def has_password(content: bytes, user: str, password: str, where: str) -> bool:
    """Whether the file has this user with this password."""
    hashed = parse_htpasswd(_text(content, where), where).get(user)
    check_password(password)
    return hashed is not None and bool(_bcrypt().checkpw(password.encode(), hashed))


def without_user(content: bytes, user: str, where: str) -> bytes:
    """InputError where there is no such user. Refused where it is the last one: a registry whose file is empty lets
    nobody in, and one whose file is missing makes up a user."""
    known = users_of(content, where)
    if user not in known:
        raise InputError(f"{where} has no user {user!r}; it has {', '.join(known)}")
    if len(known) == 1:
        raise Refused(f"{user} is the only user: add another one first, with --add-user")
    return _with_line(content, user, None, where)


def _with_line(content: bytes, user: str, line: str | None, where: str) -> bytes:
    text = _text(content, where)
    parse_htpasswd(text, where)
    lines: list[str] = []
    for each in text.splitlines():
        if each.strip().partition(":")[0] != user:
            lines.append(each)
        elif line is not None:
            lines.append(line)
            line = None  # a second one of this name goes
    if line is not None:
        lines.append(line)
    return "".join(f"{each}\n" for each in lines).encode()


def _text(content: bytes, where: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8") from error


def _bcrypt() -> Any:
    try:
        import bcrypt
    except ImportError as error:
        raise InputError("passwords need a package more: pip install 'regstore[init]'") from error
    return bcrypt
