"""TLS, as a client of the registry sees it: the chain, the names, the dates.

Each is judged by itself, for a client's own error names the first only: the certificate is fetched without being
trusted, its chain is then verified whatever its names and dates, and in the end a client's own handshake must work.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from regstore.deployment.authority import RENEW_WITHIN, Shown, issuer_among, look_at, need_cryptography, uncovered
from regstore.deployment.check.place import Place
from regstore.deployment.check.reaching import Reached
from regstore.deployment.check.result import CheckLine, Red, fail, not_tried, ok, warn
from regstore.errors import InputError
from regstore.words import printable

NAMES: Final = ("TLS", "certificate", "host name", "dates")
#: X509_V_FLAG_NO_CHECK_TIME, which `ssl.VerifyFlags` lacks.
_ANY_TIME: Final = 0x200000
#: Of X509_V_ERR_…: signed by nobody who is trusted; by one of that name who has another key.
_UNTRUSTED: Final = frozenset({2, 18, 19, 20, 21, 27})
_OTHER_KEY: Final = frozenset({6, 7, 30, 31})
#: Names that are told.
_NAMED: Final = 8
#: Characters of one name.
_LONGEST: Final = 100
_RENEW: Final = "`regstore init DIR --renew`, then start the registry again"


@dataclass(frozen=True, slots=True)
class _Met:
    """What a server showed: its certificate (PEM), what that says, and the version of TLS."""

    certificate: bytes
    shown: Shown
    version: str


def client_context(ca: Path | None) -> ssl.SSLContext:
    """As clients verify: by these authorities alone, or by the system's."""
    return ssl.create_default_context(cafile=None if ca is None else str(ca))


async def look_at_tls(
    place: Place, reached: Reached, ca: Path | None, timeout: float, now: datetime
) -> list[CheckLine]:
    """A line for each of `NAMES`."""
    need_cryptography()
    try:
        met = await _fetch(place, reached, timeout)
    except Red as red:
        return [red.line(NAMES[0]), *(not_tried(name, "there is no TLS to look at") for name in NAMES[1:])]
    lines = [
        ok(NAMES[0], f"it speaks {met.version.replace('v', ' ')}"),
        await _chain(place, reached, ca, timeout, met.shown.issuer),
        _names(place.host, met.shown),
        _dates(met.shown, _authority(ca, met.certificate), now),
    ]
    if all(line.outcome in ("ok", "warn") for line in lines):
        problem = await _handshake(place, reached, client_context(ca), timeout)
        if isinstance(problem, ssl.SSLCertVerificationError) and problem.verify_code in (9, 10):
            lines[3] = fail(
                "dates",
                "a certificate between it and the authority has ended, or is not valid yet",
                "put the whole chain as it is now into the registry's certificate file",
            )
        elif problem is not None:
            lines[1] = fail(
                "certificate",
                f"clients refuse it: {_said(problem)}",
                "make it anew: `regstore init` makes one that they take",
            )
    return lines


async def look_at_plain(place: Place, reached: Reached, timeout: float) -> CheckLine:
    """The TLS line of a registry that is to have none."""
    if await _answers_http(place, reached, timeout):
        return ok("TLS", "none, as its address says: passwords and images can be read on the way")
    problem = await _handshake(place, reached, _trusting(), timeout)
    if problem is None:
        return fail("TLS", "it speaks TLS, and its address says http://", f"ask for https://{place.authority}")
    return fail("TLS", f"no answer in HTTP within {timeout:g} s", "see in the log what listens at this port")


async def _fetch(place: Place, reached: Reached, timeout: float) -> _Met:
    """What the server shows to who trusts anybody. Red where it does not speak TLS."""
    context = _trusting()
    found: list[_Met] = []

    def note(connection: ssl.SSLObject) -> None:
        data = connection.getpeercert(binary_form=True)
        assert data is not None
        pem = ssl.DER_cert_to_PEM_cert(data).encode()
        found.append(_Met(pem, look_at(pem), connection.version() or "TLS"))

    try:
        problem = await _handshake(place, reached, context, timeout, note)
    except InputError as error:
        raise Red(str(error), "make it anew with `regstore init`") from error
    if found:
        return found[0]
    if isinstance(problem, TimeoutError):
        raise Red(
            f"it takes the connection, but does not begin to speak TLS within {timeout:g} s",
            "see what listens at this port, and whether the registry hangs: its log tells",
        )
    if await _answers_http(place, reached, timeout):
        raise Red(
            "it speaks plain HTTP at this port, without TLS",
            "give the registry its certificate (http.tls in config.yml), or ask the port of what ends TLS before it",
        )
    assert problem is not None
    raise Red(
        f"no TLS can be agreed on: {_said(problem)}",
        "see what listens at this port: clients want TLS 1.2 or later, and show no certificate of their own",
    )


async def _chain(place: Place, reached: Reached, ca: Path | None, timeout: float, issuer: str) -> CheckLine:
    context = client_context(ca)
    context.check_hostname = False
    context.verify_flags |= _ANY_TIME
    problem = await _handshake(place, reached, context, timeout)
    whom = f"the authorities in {ca}" if ca is not None else "the authorities that this computer trusts"
    issuer = repr(printable(issuer[:_LONGEST]))
    if problem is None:
        return ok("certificate", f"signed by {issuer}, which is among {whom}")
    code = problem.verify_code if isinstance(problem, ssl.SSLCertVerificationError) else None
    if code in _OTHER_KEY:
        detail = f"signed by another {issuer} than is among {whom}: the name is the same, the key is not"
    elif code in _UNTRUSTED:
        detail = f"signed by {issuer}, which is not among {whom}"
    else:
        return fail("certificate", f"it is refused: {_said(problem)}", "make it anew with `regstore init`")
    cure = (
        "give the ca.crt of the authority that signed it (--tls-ca), or put the certificates between them into the "
        "registry's certificate file"
    )
    return fail("certificate", detail, cure)


def _names(host: str, shown: Shown) -> CheckLine:
    cure = "`regstore init DIR --host NAME` makes one that has it; or call the registry by a name that it has"
    if not shown.names:
        return fail("host name", "the certificate has no name that clients look at (a SAN)", cure)
    more = f" and {len(shown.names) - _NAMED} more" if len(shown.names) > _NAMED else ""
    names = printable(", ".join(name[:_LONGEST] for name in shown.names[:_NAMED])) + more
    if uncovered(shown, [host]):
        return fail("host name", f"the certificate is for {names}, not for {host}", cure)
    return ok("host name", f"the certificate is for {names}")


def _dates(shown: Shown, authority: Shown | None, now: datetime) -> CheckLine:
    if shown.not_before > now:
        return fail(
            "dates",
            f"the certificate begins at {_minute(shown.not_before)}, and this computer's clock says {_minute(now)}",
            "set the clocks right, here and where it was made; else make it anew",
        )
    if shown.not_after <= now:
        return fail("dates", f"the certificate ended on {_day(shown.not_after, now)}", _RENEW)
    detail = f"the certificate ends on {_day(shown.not_after, now)}"
    if authority is not None and authority.fingerprint != shown.fingerprint:
        if authority.not_after <= now:
            cure = "make a new authority with `regstore init`, and give its ca.crt to every client"
            return fail("dates", f"the certificate's authority ended on {_day(authority.not_after, now)}", cure)
        detail += f", its authority on {_day(authority.not_after, now)}"
    if shown.not_after - now < min(RENEW_WITHIN, (shown.not_after - shown.not_before) / 4):
        return warn("dates", detail, _RENEW)
    return ok("dates", detail)


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _day(moment: datetime, now: datetime) -> str:
    when = f"in {(moment - now).days} days" if moment > now else f"{(now - moment).days} days ago"
    return f"{moment:%Y-%m-%d} ({when})"


def _authority(ca: Path | None, certificate: bytes) -> Shown | None:
    try:
        return issuer_among(certificate, ca.read_bytes()) if ca is not None else None
    except InputError:  # OpenSSL could read it: the handshakes judge
        return None


def _trusting() -> ssl.SSLContext:
    """Of a client that looks only, and sends nothing."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _handshake(
    place: Place,
    reached: Reached,
    context: ssl.SSLContext,
    timeout: float,
    look: Callable[[ssl.SSLObject], None] | None = None,
) -> OSError | None:
    """What went wrong, or None. look: is called with the connection's SSLObject."""
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(
                reached.host,
                reached.port,
                ssl=context,
                server_hostname=place.host,
                ssl_handshake_timeout=timeout + 60,
            )
    except OSError as error:  # ssl.SSLError and TimeoutError, too
        return error
    try:
        if look is not None:
            look(writer.get_extra_info("ssl_object"))
    finally:
        writer.transport.abort()
    return None


async def _answers_http(place: Place, reached: Reached, timeout: float) -> bool:
    """Whether it speaks HTTP without TLS. A server of TLS may say in HTTP that it wants TLS: that is none."""
    request = f"GET /v2/ HTTP/1.1\r\nHost: {place.authority}\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(reached.host, reached.port)
            try:
                writer.write(request.encode())
                answer = await reader.read(2048)
                if answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400")):
                    answer += await reader.read(2048)
                    return b"HTTPS" not in answer
            finally:
                writer.transport.abort()
    except OSError:
        return False
    return answer.startswith(b"HTTP/")


def _said(error: OSError) -> str:
    """In OpenSSL's words, without its file and line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return error.strerror or str(error) or type(error).__name__
