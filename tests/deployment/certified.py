"""Certificates and users of a registry under test, made with what `regstore init` makes them with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from regstore.deployment import authority
from regstore.deployment.authority import Pair

HOST = "registry.example.org"
USER, PASSWORD = "ann", "pässword: $x y"


@dataclass(frozen=True)
class Authority:
    """ca: the file that clients trust."""

    ca: Path
    pair: Pair

    @classmethod
    def make(cls, ca: Path, *, host: str = HOST, ago: timedelta = timedelta(0)) -> Authority:
        key = authority.new_key()
        cert = authority.make_authority(key, host, datetime.now(UTC) - ago)
        ca.write_bytes(cert)
        return cls(ca, Pair(cert=cert, key=key))

    def issue(
        self, folder: Path, *, names: tuple[str, ...] = (HOST, "127.0.0.1"), ago: timedelta = timedelta(0)
    ) -> tuple[Path, Path]:
        """A server's certificate and key, made so long ago."""
        folder.mkdir()
        key = authority.new_key()
        cert_file, key_file = folder / "server.crt", folder / "server.key"
        cert_file.write_bytes(authority.issue(self.pair, key, names, datetime.now(UTC) - ago))
        key_file.write_bytes(key)
        return cert_file, key_file


def make_htpasswd(path: Path) -> Path:
    """With `USER`, at the least cost."""
    import bcrypt

    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    path.write_text(f"{USER}:{hashed}\n")
    return path
