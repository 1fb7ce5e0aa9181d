"""Which certificates a deployment is to have, from those that stand in DIR and those that were given.

Makes keys, and does no other I/O. A key that is there is used again, so a run that was cut short between a key and its
certificate is completed; only `renew` makes a new one for the server, and nothing a new one for the authority.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from regstore.deployment import authority
from regstore.deployment.authority import Pair, Shown
from regstore.deployment.planning import Standing
from regstore.deployment.wanted import (
    CA_CERT,
    CA_KEY,
    PRIVATE,
    SERVER_CERT,
    SERVER_KEY,
    Deployment,
    Kind,
    Tls,
    WantedFile,
)
from regstore.errors import InputError

#: What must be looked at in DIR.
PATHS = (CA_CERT, CA_KEY, SERVER_CERT, SERVER_KEY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Certificates from elsewhere, as PEM. ca: whom clients trust them by, where that is no public authority."""

    pair: Pair
    ca: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """files: wanted; none where there is no TLS. unwanted: what must not stand there any more. shown: what the server's
    says."""

    files: tuple[WantedFile, ...] = ()
    unwanted: tuple[str, ...] = ()
    shown: Shown | None = None

    def ends_soon(self, now: datetime) -> bool:
        return self.shown is not None and self.shown.not_after - now < authority.RENEW_WITHIN


def certificates(
    deployment: Deployment,
    standing: Mapping[str, Standing],
    now: datetime,
    *,
    renew: bool = False,
    given: Given | None = None,
) -> Certificates:
    """InputError where given ones are wrong, or those that stand can neither be used nor made right."""
    if deployment.tls is Tls.NONE:
        return Certificates()
    if deployment.tls is Tls.FILES:
        return _from_files(deployment, standing, now, given)
    if given is not None:
        raise InputError(
            "certificates that are given go with --tls files, not with an authority of the deployment's own"
        )
    return _own(deployment, standing, now, renew=renew)


def _own(deployment: Deployment, standing: Mapping[str, Standing], now: datetime, *, renew: bool) -> Certificates:
    names = deployment.all_names
    ca_key, ca_cert, server_key, server_cert = (
        _content(standing, path) for path in (CA_KEY, CA_CERT, SERVER_KEY, SERVER_CERT)
    )
    is_fine = _is_fine(server_cert, server_key, ca_cert, names, now)
    if ca_key is None and ca_cert is not None:
        if renew or not is_fine:
            raise InputError(
                f"{CA_KEY} is gone, and without it no certificate can be made that clients trust by {CA_CERT}: put it "
                f"back from a backup, or move {CA_CERT} away for a new authority"
            )
    elif renew and ca_key is None:
        raise InputError(
            f"{CA_KEY} and {CA_CERT} are gone, and a new authority is one that no client trusts: put them back from a "
            "backup, or run init without --renew, which makes a new authority"
        )
    else:
        ca_key = ca_key or authority.new_key()
        ca_cert = ca_cert or authority.make_authority(ca_key, deployment.host, now)
        if not authority.belongs(ca_cert, ca_key):
            raise InputError(f"{CA_KEY} does not belong to {CA_CERT}: put the right one back, or move both away")
    if renew or not is_fine:
        assert ca_key is not None
        assert ca_cert is not None
        if renew or server_key is None:
            server_key = authority.new_key()
        server_cert = authority.issue(Pair(cert=ca_cert, key=ca_key), server_key, names, now)
    assert ca_cert is not None
    assert server_key is not None
    assert server_cert is not None
    files = [_cert(CA_CERT, ca_cert), _key(SERVER_KEY, server_key), _cert(SERVER_CERT, server_cert)]
    if ca_key is not None:
        files.insert(0, WantedFile(path=CA_KEY, content=ca_key, mode=PRIVATE, kind=Kind.SECRET))
    return Certificates(files=tuple(files), shown=authority.look_at(server_cert))


def _from_files(
    deployment: Deployment, standing: Mapping[str, Standing], now: datetime, given: Given | None
) -> Certificates:
    names = deployment.all_names
    if given is not None:
        shown = authority.check_given(given.pair, names, now, ca=given.ca)
        ca = given.ca
        if ca is None and authority.issued_by(given.pair.cert, given.pair.cert):
            ca = given.pair.cert  # its own authority
        files = [_key(SERVER_KEY, given.pair.key), _cert(SERVER_CERT, given.pair.cert)]
        if ca is None:
            return Certificates(files=tuple(files), unwanted=(CA_CERT,), shown=shown)
        return Certificates(files=(*files, _cert(CA_CERT, ca)), shown=shown)
    key, cert, ca = (_content(standing, path) for path in (SERVER_KEY, SERVER_CERT, CA_CERT))
    if key is None or cert is None:
        raise InputError("--tls files needs them: give --tls-cert and --tls-key")
    if not authority.belongs(cert, key):
        raise InputError(f"{SERVER_KEY} does not belong to {SERVER_CERT}: give --tls-cert and --tls-key again")
    shown = authority.look_at(cert, SERVER_CERT)
    missing = authority.uncovered(shown, names)
    if missing:
        raise InputError(
            f"{SERVER_CERT} is not for {', '.join(missing)}: give another with --tls-cert and --tls-key"
        )
    files = [_key(SERVER_KEY, key), _cert(SERVER_CERT, cert)]
    return Certificates(files=(*files, *([_cert(CA_CERT, ca)] if ca is not None else [])), shown=shown)


def _is_fine(
    cert: bytes | None, key: bytes | None, ca: bytes | None, names: tuple[str, ...], now: datetime
) -> bool:
    """Whether what stands can stay."""
    if cert is None or key is None or ca is None:
        return False
    shown = authority.look_at(cert, SERVER_CERT)
    if authority.uncovered(shown, names) or now >= shown.not_after:
        return False
    return authority.belongs(cert, key) and authority.issued_by(cert, ca)


def _content(standing: Mapping[str, Standing], path: str) -> bytes | None:
    found = standing.get(path)
    return found.content if found is not None else None


def _cert(path: str, content: bytes) -> WantedFile:
    return WantedFile(path=path, content=content, kind=Kind.CERTIFICATE)


def _key(path: str, content: bytes) -> WantedFile:
    return WantedFile(path=path, content=content, mode=PRIVATE, kind=Kind.CERTIFICATE)
