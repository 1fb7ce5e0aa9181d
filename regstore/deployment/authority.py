"""A deployment's own certificate authority, the registry's certificate, and the check of ones that were given.

What is PEM here is bytes. Needs the package cryptography: InputError says so where it is missing. Whoever reads a time
gives `now`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from regstore.errors import InputError

if TYPE_CHECKING:
    from cryptography import x509

#: Of the authority: whom clients trust changes only once in a long while.
CA_LIFE: Final = timedelta(days=3652)
#: Of a certificate: some clients take none that lives longer than 398 days.
SERVER_LIFE: Final = timedelta(days=397)
#: From here on, one is told to renew.
RENEW_WITHIN: Final = timedelta(days=30)
#: Clocks of clients may be behind.
_BACKDATED: Final = timedelta(hours=1)
_LONGEST_COMMON_NAME: Final = 64
#: Of keys of every kind, and with a passphrase.
_PRIVATE_BLOCK: Final = b"PRIVATE KEY-----"
_CERTIFICATE_BLOCK: Final = re.compile(
    rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----.*?-----END (?:X509 |TRUSTED )?CERTIFICATE-----", re.DOTALL
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate with its chain, and its key, as PEM."""

    cert: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a certificate says. names: DNS names in lower case, and IP addresses. issuer: who signed it, by name."""

    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    fingerprint: str
    issuer: str


def need_cryptography() -> None:
    """InputError where it is not installed."""
    _cryptography()


def new_key() -> bytes:
    """ECDSA on P-256, as PKCS 8: every client has it."""
    _, serialization, ec = _cryptography()
    return bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def make_authority(key: bytes, host: str, now: datetime) -> bytes:
    """A certificate for the key, which signs others and no authorities. Its name tells one deployment from another."""
    x509, _, _ = _cryptography()
    secret = _key(key, "the authority's key")
    name = _name(f"regstore CA of {host}")
    usage = _usage(x509, signs_certificates=True)
    return _signed(
        _builder(name, name, secret.public_key(), now, CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(secret.public_key()), critical=False),
        secret,
    )


def issue(authority: Pair, key: bytes, names: Sequence[str], now: datetime) -> bytes:
    """A server's certificate for the key and all names, which ends no later than the authority's. The first is its
    common name. InputError where the authority's time is over."""
    x509, _, _ = _cryptography()
    ca, ca_key = _certificates(authority.cert, "the authority")[0], _key(authority.key, "the authority's key")
    if not _same_key(ca, ca_key):
        raise InputError("the authority's key does not belong to its certificate")
    left = ca.not_valid_after_utc - now
    if left <= timedelta(0):
        raise InputError(
            f"the authority's certificate ended on {ca.not_valid_after_utc:%Y-%m-%d}: move tls/ and authority/ away "
            "for a new one, which all clients must then trust"
        )
    public = _key(key, "the server's key").public_key()
    return _signed(
        _builder(_name(names[0]), ca.subject, public, now, min(SERVER_LIFE, left))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(x509, signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key()), critical=False),
        ca_key,
    )


def look_at(cert: bytes, where: str = "the certificate") -> Shown:
    """At the first certificate of a chain. InputError where it is none."""
    return _shown(_certificates(cert, where)[0])


def certificates_of(pem: bytes) -> bytes:
    """What is left of a file for all to read: one that has a private key, too, is left without it."""
    if _PRIVATE_BLOCK not in pem:
        return pem
    return b"".join(block + b"\n" for block in _CERTIFICATE_BLOCK.findall(pem))


def belongs(cert: bytes, key: bytes) -> bool:
    """Whether a key is that of a certificate. InputError where one is not what it should be."""
    return _same_key(_certificates(cert, "the certificate")[0], _key(key, "the key"))


def issued_by(cert: bytes, ca: bytes) -> bool:
    return _issued(_certificates(cert, "the certificate")[0], _certificates(ca, "the authority's certificate")[0])


def issuer_among(cert: bytes, authorities: bytes) -> Shown | None:
    """The one of them that issued the certificate. InputError where a file is not what it should be."""
    leaf = _certificates(cert, "the certificate")[0]
    known = _certificates(authorities, "the authorities' file")
    return next((_shown(each) for each in known if _issued(leaf, each)), None)


def uncovered(shown: Shown, names: Iterable[str]) -> list[str]:
    """The names that a certificate does not have."""
    return [name for name in names if not any(_covers(pattern, name) for pattern in shown.names)]


def check_given(
    pair: Pair, names: Sequence[str], now: datetime, *, ca: bytes | None = None, where: str = "the certificate"
) -> Shown:
    """That given ones can serve: InputError says which of them is wrong and how.

    The key belongs to the certificate, which has all the names and is in date, as those of its chain are; each of the
    chain was issued by the next, and the last by `ca`, where that is given.
    """
    chain = _certificates(pair.cert, where)
    leaf = chain[0]
    if not _same_key(leaf, _key(pair.key, "the key")):
        raise InputError(f"the key does not belong to {where}: give the pair that was made together")
    shown = _shown(leaf)
    for each in chain:
        _check_dates(each, now, where)
    missing = uncovered(shown, names)
    if missing:
        has = ", ".join(shown.names) or "no name at all (clients do not look at its common name)"
        raise InputError(f"{where} is not for {', '.join(missing)}: it has {has}")
    for lower, upper in pairwise(chain):
        if not _issued(lower, upper):
            raise InputError(
                f"the chain of {where} is broken: {_called(lower)} was not issued by {_called(upper)}, which follows "
                "it; the server's own comes first, then each with who issued it"
            )
    if ca is not None:
        roots = _certificates(ca, "the authority's certificate")
        if not any(_issued(chain[-1], root) or chain[-1] == root for root in roots):
            raise InputError(
                f"{where} does not lead to the authority that was given: {_called(chain[-1])} was issued by "
                f"{chain[-1].issuer.rfc4514_string()}; is an intermediate certificate missing?"
            )
    return shown


# -- how it is done


def _cryptography() -> tuple[Any, Any, Any]:
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise InputError("certificates need a package more: pip install 'regstore[init]'") from error
    return x509, serialization, ec


def _certificates(pem: bytes, where: str) -> list[x509.Certificate]:
    loader, _, _ = _cryptography()
    try:
        found: list[x509.Certificate] = loader.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise InputError(f"{where} is no certificate in PEM form (-----BEGIN CERTIFICATE-----)") from error
    return found


def _key(pem: bytes, where: str) -> Any:
    _, serialization, _ = _cryptography()
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise InputError(
            f"{where} is protected by a passphrase, and no registry can ask for one: remove it"
        ) from error
    except Exception as error:  # cryptography has more errors of its own for odd keys
        raise InputError(f"{where} is no private key in PEM form (-----BEGIN PRIVATE KEY-----)") from error


def _public_bytes(key: Any) -> bytes:
    _, serialization, _ = _cryptography()
    return bytes(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def _same_key(cert: x509.Certificate, key: Any) -> bool:
    return _public_bytes(cert.public_key()) == _public_bytes(key.public_key())


def _issued(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        cert.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _check_dates(cert: x509.Certificate, now: datetime, where: str) -> None:
    if now < cert.not_valid_before_utc:
        raise InputError(
            f"{_called(cert)} in {where} is not good before {cert.not_valid_before_utc:%Y-%m-%d %H:%MZ}"
        )
    if now >= cert.not_valid_after_utc:
        raise InputError(
            f"{_called(cert)} in {where} ended on {cert.not_valid_after_utc:%Y-%m-%d %H:%MZ}: renew it"
        )


def _called(cert: x509.Certificate) -> str:
    return cert.subject.rfc4514_string() or "the one without a subject"


def _shown(cert: x509.Certificate) -> Shown:
    x509, _, _ = _cryptography()
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        named = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [name.lower() for name in named.get_values_for_type(x509.DNSName)]
        names += [str(address) for address in named.get_values_for_type(x509.IPAddress)]
    except (x509.ExtensionNotFound, ValueError):
        names = []
    return Shown(
        names=tuple(names),
        not_before=cert.not_valid_before_utc,
        not_after=cert.not_valid_after_utc,
        fingerprint=cert.fingerprint(SHA256()).hex(),
        issuer=_common_name(cert.issuer),
    )


def _common_name(name: x509.Name) -> str:
    loader, _, _ = _cryptography()
    found = name.get_attributes_for_oid(loader.NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()


def _covers(pattern: str, name: str) -> bool:
    """As clients compare: a `*` stands for the whole first label, and for no part of an address."""
    if pattern == name:
        return True
    first, dot, rest = name.partition(".")
    return bool(first and dot and rest) and pattern == f"*.{rest}" and not _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _general_name(name: str) -> Any:
    x509, _, _ = _cryptography()
    return x509.IPAddress(ipaddress.ip_address(name)) if _is_address(name) else x509.DNSName(name)


def _name(text: str) -> Any:
    x509, _, _ = _cryptography()
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text[:_LONGEST_COMMON_NAME])])


def _builder(subject: Any, issuer: Any, public_key: Any, now: datetime, life: timedelta) -> Any:
    x509, _, _ = _cryptography()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + life)
    )


def _signed(builder: Any, key: Any) -> bytes:
    _, serialization, _ = _cryptography()
    from cryptography.hazmat.primitives.hashes import SHA256

    return bytes(builder.sign(key, SHA256()).public_bytes(serialization.Encoding.PEM))


def _usage(x509: Any, *, signs_certificates: bool) -> Any:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
