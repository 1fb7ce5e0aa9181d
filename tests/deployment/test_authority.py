"""Certificates as clients check them: OpenSSL's own word for what is made, and the right word for what is given."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from regstore.deployment import authority
from regstore.deployment.authority import Pair
from regstore.errors import InputError

NOW = datetime.now(UTC)
NAMES = ("registry.example.org", "192.0.2.7", "2001:db8::1")


@pytest.fixture(scope="module")
def ca() -> Pair:
    key = authority.new_key()
    return Pair(cert=authority.make_authority(key, NAMES[0], NOW), key=key)


@pytest.fixture(scope="module")
def server(ca: Pair) -> Pair:
    key = authority.new_key()
    return Pair(cert=authority.issue(ca, key, NAMES, NOW), key=key)


def verify(ca: bytes, cert: bytes, folder: Path, *options: str) -> str:
    (folder / "ca").write_bytes(ca)
    (folder / "cert").write_bytes(cert)
    line = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", *options, "-CAfile", "ca", "cert"]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_openssl_takes_it_for_each_name_and_no_other(ca: Pair, server: Pair, tmp_path: Path) -> None:
    for option, name in (("-verify_hostname", NAMES[0]), ("-verify_ip", NAMES[1]), ("-verify_ip", NAMES[2])):
        assert verify(ca.cert, server.cert, tmp_path, option, name) == "cert: OK\n"
    assert verify(ca.cert, server.cert, tmp_path, "-verify_hostname", "other.example.org") == ""
    assert ssl.PEM_cert_to_DER_cert(ca.cert.decode())


def test_lives_are_bounded_and_the_server_ends_with_the_authority(ca: Pair, server: Pair) -> None:
    shown = authority.look_at(server.cert)
    assert shown.not_after - NOW <= timedelta(days=398)
    assert set(shown.names) == set(NAMES)
    late = NOW + authority.CA_LIFE - timedelta(days=10)
    assert authority.look_at(authority.issue(ca, server.key, NAMES, late)).not_after <= NOW + authority.CA_LIFE
    with pytest.raises(InputError, match="authority's certificate ended on"):
        authority.issue(ca, server.key, NAMES, NOW + authority.CA_LIFE)


def test_a_foreign_key_signs_nothing(ca: Pair) -> None:
    with pytest.raises(InputError, match="key does not belong"):
        authority.issue(replace(ca, key=authority.new_key()), authority.new_key(), NAMES, NOW)


def test_given_ones_that_are_right(ca: Pair, server: Pair) -> None:
    assert authority.check_given(server, NAMES, NOW, ca=ca.cert).fingerprint
    authority.check_given(replace(server, cert=server.cert + ca.cert), NAMES, NOW, ca=ca.cert)
    wild = authority.issue(ca, server.key, ["*.example.org"], NOW)
    authority.check_given(replace(server, cert=wild), ["a.example.org"], NOW)
    assert authority.uncovered(authority.look_at(wild), ["a.b.example.org", "example.org"]) == [
        "a.b.example.org",
        "example.org",
    ]


def test_given_ones_that_are_wrong(ca: Pair, server: Pair) -> None:
    other_key = authority.new_key()
    other_ca = authority.make_authority(other_key, "other", NOW)
    check = authority.check_given
    with pytest.raises(InputError, match="key does not belong to"):
        check(replace(server, key=other_key), NAMES, NOW)
    with pytest.raises(InputError, match=r"is not for other\.example: it has registry\.example\.org, 192"):
        check(server, ["other.example"], NOW)
    with pytest.raises(InputError, match=r"not for 192\.0\.2\.8"):
        check(server, ["192.0.2.8"], NOW)
    with pytest.raises(InputError, match=r"ended on .*: renew it"):
        check(server, NAMES, NOW + timedelta(days=400))
    with pytest.raises(InputError, match="is not good before"):
        check(server, NAMES, NOW - timedelta(days=1))
    with pytest.raises(InputError, match=r"chain .* is broken"):
        check(replace(server, cert=server.cert + other_ca), NAMES, NOW)
    with pytest.raises(InputError, match="does not lead to the authority"):
        check(server, NAMES, NOW, ca=other_ca)
    for wrong in (replace(server, cert=server.key), replace(server, key=server.cert), replace(server, cert=b"")):
        with pytest.raises(InputError, match=r"is no .* in PEM form"):
            check(wrong, NAMES, NOW)


def test_a_key_with_a_passphrase_is_refused(server: Pair, tmp_path: Path) -> None:
    line = ["openssl", "ec", "-aes128", "-passout", "pass:abcd"]
    locked = subprocess.run(line, input=server.key, capture_output=True, check=True).stdout
    with pytest.raises(InputError, match="passphrase"):
        authority.check_given(replace(server, key=locked), NAMES, NOW)


def test_no_key_is_shown(server: Pair) -> None:
    assert "PRIVATE" not in repr(server)
