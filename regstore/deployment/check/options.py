"""Where a running registry is, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from regstore.deployment.check.place import Place, split_address
from regstore.errors import InputError
from regstore.storage.base import Storage


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """url: of the registry, as its clients have it: `https://host[:port]`, or `http://…` where it has no TLS.
    address: `HOST[:PORT]` to connect to, in place of what the name resolves to; the certificate must have the name all
    the same.
    ca: a file of PEM certificates, the only ones that are trusted; None: those that the system trusts.

    user, password: without them only what needs none is tried.
    timeout: seconds that any one request may take.

    store: of the registry, open; then it is looked at, too, and what was pushed is looked for in it.
    health_url: of the registry's debug server; where it can't be reached, the API tells. health_checked: its
    configuration has the storage health check on, as far as is known.
    serve_url: of `regstore serve` beside it, with the same users and the same authority.

    InputError: what is no address, a user without a password, a file that holds no certificate.
    """

    url: str
    address: str = ""
    ca: Path | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    timeout: float = 10.0
    store: Storage | None = None
    health_url: str | None = None
    health_checked: bool = True
    serve_url: str | None = None

    def __post_init__(self) -> None:
        Place.of(self.url)
        if self.address:
            split_address(self.address)
        for url in filter(None, (self.health_url, self.serve_url)):
            Place.of(url, with_path=True)
        if bool(self.user) != bool(self.password):
            raise InputError("a user and a password belong together: one is missing")
        if ":" in self.user:
            raise InputError("no user's name can have a colon: HTTP ends the name there")
        if not self.timeout > 0:
            raise InputError("a time-out must be more than nothing")
        if self.ca is not None:
            _must_hold_certificates(self.ca)


def _must_hold_certificates(path: Path) -> None:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError) as error:
        why = error.strerror if not isinstance(error, ssl.SSLError) else ""
        raise InputError(f"{path} can't be read as PEM certificates: {why or 'there are none in it'}") from error
