"""TLS, as a client of the registry sees it: the chain, the names, the dates.

Each is judged by itself, for a client's own error names the first only: the certificate is fetched without being
trusted, its chain is then verified whatever its names and dates, and in the end a client's own handshake must work.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regstore.deployment.check.place import Place
from regstore.deployment.check.reaching import Reached
from regstore.deployment.check.result import CheckLine, Red, fail, not_tried, ok, warn

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

NAMES: Final = ("TLS", "certificate", "host name", "dates")
#: X509_V_FLAG_NO_CHECK_TIME, which `ssl.VerifyFlags` lacks.
_ANY_TIME: Final = 0x200000
#: Of X509_V_ERR_…: signed by nobody who is trusted; by one of that name who has another key.
_UNTRUSTED: Final = frozenset({2, 18, 19, 20, 21, 27})
_OTHER_KEY: Final = frozenset({6, 7, 30, 31})
_SOON: Final = timedelta(days=30)
_RENEW: Final = "`regstore init DIR --renew`, then start the registry again"


@dataclass(frozen=True, slots=True)
class _Shown:
    """What a server showed: its certificate, and the version of TLS."""

    certificate: Certificate
    version: str


def client_context(ca: Path | None) -> ssl.SSLContext:
    """As clients verify: by these authorities alone, or by the system's."""
    return ssl.create_default_context(cafile=None if ca is None else str(ca))


async def look_at_tls(
    place: Place, reached: Reached, ca: Path | None, timeout: float, now: datetime
) -> list[CheckLine]:
    """A line for each of `NAMES`."""
    try:
        shown = await _fetch(place, reached, timeout)
    except Red as red:
        return [red.line(NAMES[0]), *(not_tried(name, "there is no TLS to look at") for name in NAMES[1:])]
    lines = [
        ok(NAMES[0], f"it speaks {shown.version.replace('v', ' ')}"),
        await _chain(place, reached, ca, timeout, shown.certificate),
        _names(place.host, shown.certificate),
        _dates(shown.certificate, _authority(ca, shown.certificate), now),
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


async def _fetch(place: Place, reached: Reached, timeout: float) -> _Shown:
    """What the server shows to who trusts anybody. Red where it does not speak TLS."""
    from cryptography.x509 import load_der_x509_certificate

    context = _trusting()
    found: list[_Shown] = []

    def note(connection: ssl.SSLObject) -> None:
        data = connection.getpeercert(binary_form=True)
        assert data is not None
        found.append(_Shown(load_der_x509_certificate(data), connection.version() or "TLS"))

    try:
        problem = await _handshake(place, reached, context, timeout, note)
    except ValueError as error:  # of cryptography
        raise Red(f"its certificate can't be read: {error}", "make it anew with `regstore init`") from error
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


async def _chain(
    place: Place, reached: Reached, ca: Path | None, timeout: float, certificate: Certificate
) -> CheckLine:
    context = client_context(ca)
    context.check_hostname = False
    context.verify_flags |= _ANY_TIME
    problem = await _handshake(place, reached, context, timeout)
    whom = f"the authorities in {ca}" if ca is not None else "the authorities that this computer trusts"
    issuer = _common_name(certificate)
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
        "give the ca.crt of the authority that signed it (--ca), or put the certificates between them into the "
        "registry's certificate file"
    )
    return fail("certificate", detail, cure)


def _names(host: str, certificate: Certificate) -> CheckLine:
    names = _alternatives(certificate)
    cure = "`regstore init DIR --host NAME` makes one that has it; or call the registry by a name that it has"
    if not names:
        return fail("host name", "the certificate has no name that clients look at (a SAN)", cure)
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    if not any(_covers(name, host) for name in names):
        return fail("host name", f"the certificate is for {shown}, not for {host}", cure)
    return ok("host name", f"the certificate is for {shown}")


def _dates(certificate: Certificate, authority: Certificate | None, now: datetime) -> CheckLine:
    until = _shown(certificate.not_valid_after_utc, now)
    detail = f"the certificate ends {until}"
    if authority is not None and authority != certificate:
        detail += f", its authority {_shown(authority.not_valid_after_utc, now)}"
    if certificate.not_valid_before_utc > now:
        begins = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        return fail(
            "dates",
            f"the certificate begins {begins}, and this computer's clock says {now:%Y-%m-%d %H:%M} UTC",
            "set the clocks right, here and where it was made; else make it anew",
        )
    if certificate.not_valid_after_utc < now:
        return fail("dates", f"the certificate ended {until}", _RENEW)
    if authority is not None and authority.not_valid_after_utc < now:
        cure = "make a new authority, and give its ca.crt to every client: `regstore init` in an empty folder"
        return fail(
            "dates", f"the certificate's authority ended {_shown(authority.not_valid_after_utc, now)}", cure
        )
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    if certificate.not_valid_after_utc - now < min(_SOON, life / 4):
        return warn("dates", detail, _RENEW)
    return ok("dates", detail)


def _shown(moment: datetime, now: datetime) -> str:
    days = (moment - now).days
    when = f"in {days} days" if days > 1 else f"{-days} days ago" if days < -1 else f"{moment:%H:%M} UTC"
    return f"{moment:%Y-%m-%d} ({when})"


def _authority(ca: Path | None, certificate: Certificate) -> Certificate | None:
    """The one in the file that issued it, by name."""
    from cryptography.x509 import load_pem_x509_certificates

    if ca is None:
        return None
    try:
        known = load_pem_x509_certificates(ca.read_bytes())
    except ValueError:  # OpenSSL could read it
        return None
    return next((each for each in known if each.subject == certificate.issuer), None)


def _common_name(certificate: Certificate) -> str:
    from cryptography.x509 import NameOID

    names = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(names[0].value) if names else certificate.issuer.rfc4514_string()
    return repr(name) if name else "nobody"


def _alternatives(certificate: Certificate) -> list[str]:
    """DNS names and IP addresses of the certificate."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def _covers(name: str, host: str) -> bool:
    """RFC 6125: a star stands for the first label, whole; an address for itself."""
    try:
        return ipaddress.ip_address(host) == ipaddress.ip_address(name)
    except ValueError:
        pass
    name, host = name.lower().rstrip("."), host.rstrip(".")
    if name.startswith("*."):
        return host.partition(".")[2] == name[2:] and "." in name[2:]
    return name == host


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
