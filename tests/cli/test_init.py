"""`regstore init` as a user types it: new, again, changed, edited by hand, cut short, and in odd places."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import yaml

from regstore.deployment import applying, authority, users
from regstore.deployment.authority import Pair
from regstore.errors import StorageFull
from regstore.htpasswd import parse_htpasswd
from tests.cli.conftest import Run, Said, Start
from tests.cli.terminal import on_terminal
from tests.servers.fault_proxy import FaultProxy
from tests.servers.s3 import S3Server

ODD = "a:b $HOME 'x' ü"

Init = Callable[..., Said]


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "COST", 4)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def init(run: Run, place: Path, tmp_path: Path) -> Init:
    """`init()`: the least that makes a deployment; more words are added."""

    def init(*words: object) -> Said:
        return run(
            "init", place, "--host", "registry.example.org", "--store", tmp_path / "store", "--create", *words
        )

    return init


def type_in(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """On standard input. CliRunner puts its own in the place of ours."""
    monkeypatch.setattr("regstore.cli.init.passwords.read_input", lambda: text.encode())


def files(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    return {
        str(path.relative_to(folder)): (
            path.read_bytes(),
            stat.S_IMODE(path.stat().st_mode),
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def password_in(said: Said) -> str:
    return said.out.partition("shown this once: ")[2].split()[0]


def is_password(place: Path, user: str, password: str) -> bool:
    known = parse_htpasswd((place / "auth/htpasswd").read_text(), "it")
    return user in known and bcrypt.checkpw(password.encode(), known[user])


# -- once, and again


def test_a_first_run_writes_all_and_makes_up_a_password(init: Init, place: Path, tmp_path: Path) -> None:
    said = init()
    assert said.code == 0, said
    assert is_password(place, "admin", password_in(said))
    assert (tmp_path / "store/docker/registry/v2").is_dir()
    for path, (content, mode, _) in files(place).items():
        is_secret = path.startswith(("secrets/", "authority/", "auth/")) or path.endswith(".key")
        assert mode == (0o600 if is_secret else 0o644), path
        assert is_secret or b"PRIVATE" not in content
    assert stat.S_IMODE((place / "authority").stat().st_mode) == 0o700


def test_again_it_changes_nothing_and_says_nothing_twice(init: Init, run: Run, place: Path) -> None:
    first = init()
    before = files(place)
    for said in (init(), run("init", place), run("init", place, "--user", "admin"), run("init", place, "--yes")):
        assert (said.code, files(place)) == (0, before), said
        assert "nothing to change" in said.out
        assert password_in(first) not in said.out + said.err


def test_a_change_is_shown_and_asked_for(init: Init, run: Run, place: Path) -> None:
    init()
    before = files(place)
    refused = run("init", place, "--port", "5443")
    assert (refused.code, files(place)) == (4, before)
    assert "-  addr: :5000\n+  addr: :5443" in refused.out
    assert "docker push" not in refused.out
    assert "say --yes" in refused.err
    assert run("init", place, "--port", "5443", "--dry-run").code == 0
    assert files(place) == before
    assert run("init", place, "--port", "5443", "--yes").code == 0
    changed = {path for path, found in files(place).items() if found[0] != before[path][0]}
    assert {path for path in changed if not path.endswith((".service", ".txt", ".md"))} == {
        "config.yml",
        "deployment.json",
    }
    assert yaml.safe_load((place / "config.yml").read_text())["http"]["addr"] == ":5443"


def test_another_name_is_another_certificate_by_the_same_authority(init: Init, run: Run, place: Path) -> None:
    init()
    before = files(place)
    assert run("init", place, "--name", "2001:db8::1", "--yes").code == 0
    shown = authority.look_at((place / "tls/server.crt").read_bytes())
    assert shown.names == ("registry.example.org", "2001:db8::1")
    for kept in ("tls/ca.crt", "tls/server.key", "authority/ca.key", "auth/htpasswd", "secrets/registry.env"):
        assert files(place)[kept] == before[kept]


def test_another_form_takes_the_old_ones_files_away(init: Init, run: Run, place: Path) -> None:
    init()
    for form, folder in (("compose", ""), ("kubernetes", "kubernetes"), ("systemd", "systemd")):
        assert run("init", place, "--for", form, "--with-serve", "--registry", "v3", "--yes").code == 0
        folders = {path.name for path in place.iterdir() if path.is_dir()} - {"auth", "authority", "secrets", "tls"}
        assert folders == ({folder} if folder else set())
        assert (place / "compose.yaml").exists() == (form == "compose")
        where = place if form == "systemd" else Path("/etc/registry")
        assert f"{where}/tls/server.key" in (place / "config.yml").read_text()
        assert "nothing to change" in run("init", place).out


# -- what people did


def test_an_edited_file_is_kept_while_nothing_new_is_wanted_of_it(init: Init, run: Run, place: Path) -> None:
    init()
    config = place / "config.yml"
    edited = config.read_text() + "# ours\n"
    config.write_text(edited)
    said = run("init", place)
    assert (said.code, config.read_text()) == (0, edited)
    assert "kept" in said.out

    said = run("init", place, "--port", "5443", "--yes")
    assert (said.code, config.read_text()) == (3, edited)
    assert "say --overwrite config.yml" in said.err
    assert "-# ours" in said.out

    assert run("init", place, "--overwrite", "config.yml", "--yes").code == 0
    assert "addr: :5443" in config.read_text()
    assert run("init", place).code == 0


def test_what_only_its_owner_reads_is_not_shown(init: Init, run: Run, place: Path) -> None:
    init()
    config = place / "config.yml"
    config.write_text(config.read_text() + "# hunter2\n")
    config.chmod(0o600)
    said = run("init", place, "--port", "5443", "--yes")
    assert (said.code, "hunter2" in said.out + said.err) == (3, False)


def test_files_of_others_are_left_alone_or_refused(init: Init, place: Path) -> None:
    place.mkdir()
    (place / "notes").write_text("mine")
    (place / "config.yml").write_text("mine, too")
    before = files(place)
    init().failed(4, "config.yml", "--overwrite")
    assert files(place) == before
    assert init("--overwrite", "config.yml", "--yes").code == 0
    assert (place / "notes").read_text() == "mine"
    assert "storagedriver" in (place / "config.yml").read_text()


def test_certificates_of_others_are_not_replaced_by_a_yes(init: Init, place: Path) -> None:
    """A first run's: they may be the only copy."""
    key, ca_key = authority.new_key(), authority.new_key()
    now = datetime.now(UTC)
    ca = authority.make_authority(ca_key, "x", now)
    (place / "tls").mkdir(parents=True)
    (place / "tls/server.crt").write_bytes(
        authority.issue(Pair(cert=ca, key=ca_key), key, ["registry.example.org"], now)
    )
    before = files(place)
    init("--yes").failed(4, "tls/server.crt", "--overwrite")
    assert files(place) == before
    assert init("--yes", "--overwrite", "tls/server.crt").code == 0


def test_an_address_of_this_computer_is_no_containers(init: Init) -> None:
    words = ("--run-as", "1000", "--cache", "redis", "--redis", "[::1]:6379", "--dry-run")
    assert "[::1]:6379 is this computer's own address" in init(*words, "--for", "compose").err
    assert "own address" not in init(*words).err


def test_a_unit_of_that_name_that_is_anothers_is_told_of(
    init: Init, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regstore.cli.init.gathering._UNITS", tmp_path)
    installed = tmp_path / "regstore-registry.service"
    init()
    shutil.copy(place / "systemd/regstore-registry.service", installed)
    assert "another folder" not in init().err
    installed.write_text("[Service]\nExecStart=/usr/bin/docker-registry serve /elsewhere/registry/config.yml\n")
    assert f"{installed} is of another folder" in init().err


def test_lines_of_secrets_and_users_are_the_operators(init: Init, run: Run, place: Path) -> None:
    init()
    for path in ("secrets/registry.env", "auth/htpasswd"):
        with (place / path).open("a") as file:
            file.write("# ours\n")
    (place / "secrets/registry.env").chmod(0o644)
    before = files(place)
    assert run("init", place).code == 0
    after = files(place)
    assert {path for path in before if before[path][0] != after[path][0]} == set()
    assert after["secrets/registry.env"][1] == 0o600


def test_a_cache_that_gc_would_not_see_is_told_of(init: Init, run: Run, place: Path) -> None:
    init()
    with (place / "secrets/registry.env").open("a") as file:
        file.write("REGISTRY_STORAGE_CACHE_BLOBDESCRIPTOR=inmemory\nREGISTRY_LOG_LEVEL=debug\n")
    said = run("init", place)
    assert said.code == 0
    assert "says REGISTRY_STORAGE_CACHE_BLOBDESCRIPTOR, and gc" in said.err


def test_paths_are_taken_from_here_and_a_folder_may_move(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run("init", "../registry", "--host", "a", "--store", "../store", "--create", "--backup", "b").code == 0
    assert f"rootdirectory: {tmp_path}/store\n" in (place / "config.yml").read_text()
    assert f'"{tmp_path}/here/b"' in (place / "deployment.json").read_text()
    monkeypatch.chdir(place)
    assert "nothing to change" in run("init", ".").out
    moved = place.rename(tmp_path / "moved")
    assert run("init", moved, "--yes").code == 0
    assert str(place) not in (moved / "config.yml").read_text()


def test_a_stricter_mode_stays(init: Init, run: Run, place: Path) -> None:
    init()
    (place / "config.yml").chmod(0o640)
    assert run("init", place).code == 0
    assert files(place)["config.yml"][1] == 0o640
    assert run("init", place, "--port", "5443", "--yes").code == 0
    assert files(place)["config.yml"][1] == 0o640


# -- users and certificates alone


def test_users_come_and_go(init: Init, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init()
    type_in(monkeypatch, f"{ODD}\n")
    before = files(place)
    said = run("init", place, "--add-user", "ann", "--password-stdin")
    assert (said.code, ODD in said.out + said.err) == (0, False)
    assert is_password(place, "ann", ODD)
    assert {path for path in before if files(place)[path] != before[path]} == {"auth/htpasswd"}
    made_up = password_in(run("init", place, "--add-user", "ann"))
    assert is_password(place, "ann", made_up)
    assert run("init", place, "--remove-user", "admin").code == 0
    run("init", place, "--remove-user", "ann").failed(4, "only user")
    assert users.users_of((place / "auth/htpasswd").read_bytes(), "") == ["ann"]


def test_given_passwords_of_users_that_are_there(init: Init, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    type_in(monkeypatch, f"{ODD}\nb\n")
    words = ("--user", "ann", "--user", "bob", "--password-stdin")
    assert init(*words).code == 0
    before = files(place)
    assert init(*words).code == 0
    assert files(place) == before
    type_in(monkeypatch, f"{ODD}\nother\n")
    assert init(*words, "--yes").code == 0
    assert is_password(place, "bob", "other")


def test_renewed_by_the_same_authority(init: Init, run: Run, place: Path) -> None:
    init()
    before = files(place)
    said = run("init", place, "--renew", "--json")
    assert said.code == 0
    assert {path for path in before if files(place)[path] != before[path]} == {"tls/server.crt", "tls/server.key"}
    cert, ca = ((place / "tls" / name).read_bytes() for name in ("server.crt", "ca.crt"))
    assert authority.issued_by(cert, ca)
    assert said.json["certificate"]["sha256"] == authority.look_at(cert).fingerprint


def test_a_certificate_that_ends_soon_is_told_of(init: Init, run: Run, place: Path) -> None:
    init()
    ca = Pair(cert=(place / "tls/ca.crt").read_bytes(), key=(place / "authority/ca.key").read_bytes())
    soon = datetime.now(UTC) - timedelta(days=380)
    old = authority.issue(ca, (place / "tls/server.key").read_bytes(), ["registry.example.org"], soon)
    (place / "tls/server.crt").write_bytes(old)
    said = run("init", place)
    assert (said.code, (place / "tls/server.crt").read_bytes()) == (0, old)
    assert "--renew" in said.err


def test_without_the_authoritys_key_what_stands_is_used_and_no_more(init: Init, run: Run, place: Path) -> None:
    init()
    (place / "authority/ca.key").unlink()
    assert run("init", place).code == 0
    run("init", place, "--renew").failed(2, "authority/ca.key is gone")


def test_without_any_authority_renew_makes_no_other(init: Init, run: Run, place: Path) -> None:
    init()
    (place / "authority/ca.key").unlink()
    (place / "tls/ca.crt").unlink()
    before = files(place)
    run("init", place, "--renew").failed(2, "a new authority is one that no client trusts")
    assert files(place) == before


def test_a_key_in_a_given_certificates_file_is_not_for_all_to_read(init: Init, place: Path, tmp_path: Path) -> None:
    key, ca_key = authority.new_key(), authority.new_key()
    now = datetime.now(UTC)
    ca = authority.make_authority(ca_key, "x", now)
    cert = authority.issue(Pair(cert=ca, key=ca_key), key, ["registry.example.org"], now)
    (tmp_path / "both.pem").write_bytes(key + cert + ca)
    (tmp_path / "ca.pem").write_bytes(ca + ca_key)
    given = (
        "--tls-cert",
        tmp_path / "both.pem",
        "--tls-key",
        tmp_path / "both.pem",
        "--tls-ca",
        tmp_path / "ca.pem",
    )
    assert init("--tls", "files", *given).code == 0
    assert (place / "tls/server.crt").read_bytes() == cert + ca
    assert (place / "tls/ca.crt").read_bytes() == ca


def test_a_record_names_no_file_elsewhere(init: Init, run: Run, place: Path, tmp_path: Path) -> None:
    """Whoever may write it is not always who runs init, who may be root."""
    init()
    (tmp_path / "theirs").write_bytes(b"x")
    record = json.loads((place / "deployment.json").read_bytes())
    record["written"]["../theirs"] = [hashlib.sha256(b"x").hexdigest()]
    (place / "deployment.json").write_text(json.dumps(record))
    run("init", place, "--yes").failed(2, "'../theirs'", "not in its folder")
    assert (tmp_path / "theirs").exists()


def test_given_certificates(init: Init, run: Run, place: Path, tmp_path: Path) -> None:
    key, ca_key = authority.new_key(), authority.new_key()
    now = datetime.now(UTC)
    ca = authority.make_authority(ca_key, "x", now)
    cert = authority.issue(Pair(cert=ca, key=ca_key), key, ["*.example.org"], now)
    for name, content in (("c", cert), ("k", key), ("a", ca), ("other", ca_key)):
        (tmp_path / name).write_bytes(content)
    given = ("--tls", "files", "--tls-cert", tmp_path / "c", "--tls-ca", tmp_path / "a", "--tls-key")
    init(*given, tmp_path / "other").failed(2, "key does not belong to")
    init(*given, tmp_path / "nothing").failed(2, "nothing", "no such file")
    init("--tls", "files").failed(2, "--tls-cert and --tls-key")
    assert not place.exists()
    assert init(*given, tmp_path / "k").code == 0
    assert (place / "tls/server.crt").read_bytes() == cert
    assert stat.S_IMODE((place / "tls/server.key").stat().st_mode) == 0o600
    assert run("init", place).code == 0
    assert (place / "tls/ca.crt").read_bytes() == ca
    assert init(*given[:4], "--tls-key", tmp_path / "k", "--yes").code == 0
    assert not (place / "tls/ca.crt").exists()
    run("init", place, "--host", "other.example").failed(2, "not for other.example", "--tls-cert")
    run("init", place, "--renew").failed(2, "own authority")


# -- what is wrong


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--host", "https://a.example"), "no https://"),
        (("--host", "a b"), "neither the name"),
        (("--port", "0"), "no port"),
        (("--port", "5001"), "one port"),
        (("--nightly", "25:00"), "time of a day"),
        (("--cache", "redis"), "address of Redis"),
        (("--store", "memory://x"), "no driver"),
        (("--store", "ftp://x/y"), "no location"),
        (("--run-as", "nobody-of-this-name"), "--run-as"),
        (("--user", "a:b"), "no colon"),
        (("--user", "a", "--user", "a"), "twice"),
        (("--renew", "--add-user", "x"), "one thing at a time"),
        (("--renew",), "changes nothing else"),
        (("--tls-ca", "x"), "--tls-ca goes with"),
        (("--password-stdin",), "--user"),
        (("--overwrite", "nothing.yml"), "no such file"),
        (("--backup", "store"), "in one another"),
    ],
)
def test_wrong_words_make_nothing(
    init: Init, place: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(place.parent)
    init(*words).failed(2, told)
    assert not place.exists()


@pytest.mark.parametrize("given", ["", "a\nb\n", "\n", "x" * 73])
def test_passwords_that_can_t_be(init: Init, place: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    type_in(monkeypatch, given)
    said = init("--user", "ann", "--password-stdin")
    said.failed(2, "password")
    assert "xxx" not in said.err
    assert not place.exists()


def test_what_is_missing_is_named_where_nobody_can_be_asked(run: Run, place: Path, tmp_path: Path) -> None:
    run("init", place).failed(2, "--host is missing")
    run("init", place, "--host", "a").failed(2, "--store is missing")
    run("init", place, "--host", "a", "--store", tmp_path / "store").failed(1, "no folder", "--create")
    run("init", place, "--renew").failed(2, "no ")
    place.mkdir()
    run("init", place, "--renew").failed(2, "no deployment yet")


def test_odd_places(init: Init, place: Path) -> None:
    place.write_text("a file")
    init().failed(2, "is no folder")
    place.unlink()
    place.mkdir()
    place.chmod(0o777)
    init().failed(2, "everybody may write")
    place.chmod(0o755)
    (place / "tls").symlink_to("/etc")
    init().failed(2, "symbolic link")
    (place / "tls").unlink()
    (place / "config.yml").symlink_to("/etc/passwd")
    init().failed(2, "config.yml is no file of its own")
    (place / "config.yml").unlink()
    (place / "deployment.json").write_text("{")
    init().failed(2, "deployment.json is damaged")
    (place / "deployment.json").write_text('{"format": 2, "deployment": {}, "written": {}}')
    init().failed(2, "use a newer one")


@pytest.mark.parametrize("name", ["cryptography", "bcrypt"])
def test_what_is_not_installed_is_named(
    init: Init, place: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    init().failed(2, "pip install 'regstore[init]'")
    assert not place.exists()


def test_a_bucket_that_may_not_be_written(
    run: Run, place: Path, moto: S3Server, moto_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto.environment().items():
        monkeypatch.setenv(name, value)
    with FaultProxy(moto.endpoint_url) as proxy:
        proxy.answer(403, "AccessDenied", method="PUT", times=None)
        said = run(
            "init", place, "--host", "a", "--store", f"s3://{moto_bucket}", "--endpoint-url", proxy.endpoint_url
        )
    assert (said.code, place.exists()) == (1, False)
    assert "is not ready for a registry: seed blobs" in said.err
    run("init", place, "--host", "a", "--store", "s3://not-there").failed(1, "no bucket not-there", "--create")


def test_keys_of_a_session_are_not_for_a_deployment(
    run: Run, place: Path, moto: S3Server, moto_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (moto.environment() | {"AWS_SESSION_TOKEN": "of-an-hour"}).items():
        monkeypatch.setenv(name, value)
    said = run("init", place, "--host", "a", "--store", f"s3://{moto_bucket}")
    assert said.code == 0
    assert "are for a session" in said.err
    assert "ACCESS" not in (place / "secrets/registry.env").read_text()


def test_a_bucket_in_the_place_of_a_folder_has_its_keys(
    init: Init, run: Run, place: Path, moto: S3Server, moto_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    init()
    for name, value in moto.environment().items():
        monkeypatch.setenv(name, value)
    bucket = ("--endpoint-url", moto.endpoint_url, "--store", f"s3://{moto_bucket}")
    assert run("init", place, *bucket, "--yes").code == 0
    before = {name: (place / f"secrets/{name}.env").read_text() for name in ("registry", "regstore")}
    access_key = moto.environment()["AWS_ACCESS_KEY_ID"]
    assert f"\nREGISTRY_STORAGE_S3_ACCESSKEY={access_key}\n" in before["registry"]
    assert f"\nAWS_ACCESS_KEY_ID={access_key}\n" in before["regstore"]

    # Lines that were taken out stay out, and others stay: the second is told.
    (place / "secrets/registry.env").write_text("REGISTRY_HTTP_SECRET=x\n")
    assert run("init", place).code == 0
    assert (place / "secrets/registry.env").read_text() == "REGISTRY_HTTP_SECRET=x\n"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOTHER")
    said = run("init", place, "--store", f"s3://{moto_bucket}-2", "--create", "--yes")
    assert said.code == 0, said
    assert "secrets/regstore.env keeps the S3 keys that it has" in said.err
    assert (place / "secrets/regstore.env").read_text() == before["regstore"]


def test_a_change_of_store_that_is_cut_short_brings_its_keys_later(
    init: Init, run: Run, place: Path, moto: S3Server, moto_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    init()
    for name, value in moto.environment().items():
        monkeypatch.setenv(name, value)
    bucket = ("--endpoint-url", moto.endpoint_url, "--store", f"s3://{moto_bucket}")
    write = applying._write

    def full(folder: Path, name: str, *rest: Any) -> None:
        if name.startswith("secrets/"):
            raise StorageFull("no space")
        write(folder, name, *rest)

    monkeypatch.setattr(applying, "_write", full)
    assert run("init", place, *bucket, "--yes").code == 1
    monkeypatch.setattr(applying, "_write", write)
    assert run("init", place, "--yes").code == 0
    assert "REGISTRY_STORAGE_S3_ACCESSKEY=" in (place / "secrets/registry.env").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_new_folder_is_whose_the_files_are(init: Init, place: Path, tmp_path: Path) -> None:
    assert init("--run-as", "65534").code == 0
    assert {path.stat().st_uid for path in (place, *place.rglob("*"))} == {65534}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_nothing_beyond_a_link_is_given_away(tmp_path: Path) -> None:
    (tmp_path / "theirs/below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("theirs")
    (tmp_path / "new/below").mkdir(parents=True)
    (tmp_path / "new/below/file").touch()
    (tmp_path / "new/link").symlink_to("../theirs")
    owner = applying.Owner(uid=65534, gid=65534)
    applying.give(tmp_path / "link", owner)
    applying.give(tmp_path / "new", owner)
    assert {path.stat().st_uid for path in (tmp_path / "theirs", tmp_path / "theirs/below")} == {0}
    assert {path.lstat().st_uid for path in (tmp_path / "new", *(tmp_path / "new").rglob("*"))} == {65534}


def test_a_named_store_with_keys_of_its_own(
    run: Run, place: Path, moto: S3Server, moto_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both go where what is deployed finds them."""
    config = tmp_path / "regstore.toml"
    config.write_text(
        f'[stores.prod]\nurl = "s3://{moto_bucket}/a"\nendpoint_url = "{moto.endpoint_url}"\nregion = "us-east-1"\n'
        'access_key_id = "AKIAOWN"\nsecret_access_key = { env = "OWN_SECRET" }\n'
    )
    monkeypatch.setenv("OWN_SECRET", "own+secret")
    said = run("--config", config, "init", place, "--host", "a", "--store", "prod")
    assert said.code == 0, said
    assert "REGISTRY_STORAGE_S3_SECRETKEY=own+secret\n" in (place / "secrets/registry.env").read_text()
    storage = yaml.safe_load((place / "config.yml").read_text())["storage"]["s3"]
    assert (storage["bucket"], storage["rootdirectory"]) == (moto_bucket, "/a")
    assert storage["regionendpoint"] == moto.endpoint_url


def test_another_store_is_warned_of(init: Init, run: Run, place: Path, tmp_path: Path) -> None:
    init()
    said = run("init", place, "--store", tmp_path / "other", "--create", "--yes")
    assert said.code == 0
    assert f"regstore migrate {tmp_path}/store {tmp_path}/other" in said.err


@pytest.mark.skipif(os.geteuid() != 0, reason="to become somebody else")
def test_no_permission(init: Init, run: Run) -> None:
    """In a folder that everybody may see into, as those of the tests are not."""
    assert init().code == 0  # what is imported then, a stranger may not be able to read

    def init_as(user: int, *words: object) -> Said:
        os.seteuid(user)
        try:
            return run(
                "init", home / "hub", "--host", "hub.example.org", "--store", home / "store", "--create", *words
            )
        finally:
            os.seteuid(0)

    with tempfile.TemporaryDirectory(prefix="regstore-init-") as name:
        home = Path(name)
        home.chmod(0o755)
        said = init_as(65534)
        assert not (home / "hub").exists()
        said.failed(1, "permission denied", "as the user who owns")
        assert init_as(0).code == 0
        said = init_as(65534, "--port", "5443", "--yes")
        said.failed(1, "root owns the files")


def test_two_at_once(init: Init, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.mkdir()
    with applying.locked(place, create=False):
        init().failed(5, "another `regstore init`")
    assert init().code == 0
    lock = fcntl.flock

    def after_the_other(handle: int, how: int) -> None:
        """The other one had it, failed, and took the folder away: there is another one now, or none."""
        lock(handle, how)
        shutil.rmtree(place)

    monkeypatch.setattr(fcntl, "flock", after_the_other)
    init().failed(5, "another `regstore init`")
    assert not place.exists()


@pytest.mark.long
def test_two_processes_at_once(start: Start, place: Path, tmp_path: Path) -> None:
    words = ("init", place, "--host", "a", "--store", tmp_path / "store", "--create", "--yes", "--json")
    both = [start(*words) for _ in range(2)]
    codes = {process.wait(60) for process in both}
    assert 0 in codes
    assert codes <= {0, 5}
    cert, key = ((place / "tls" / name).read_bytes() for name in ("server.crt", "server.key"))
    assert authority.belongs(cert, key)


# -- cut short


class _Killed(BaseException):
    pass


@pytest.mark.long
@pytest.mark.parametrize("words", [(), ("--port", "5443", "--name", "b.example"), ("--renew",)])
def test_cut_short_anywhere_the_next_run_ends_right(
    init: Init, run: Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """After any number of files: nothing looks edited by hand, no key is lost, and the next run completes it."""
    if words:
        assert init().code == 0
    whole = applying._write

    def again() -> Said:
        return run("init", place, *words, "--yes") if words else init("--yes")

    safe = tmp_path / "safe"
    place.mkdir(exist_ok=True)
    shutil.copytree(place, safe)
    for number in range(100):
        shutil.rmtree(place)
        shutil.copytree(safe, place)
        left = number

        def write(*arguments: Any) -> None:
            nonlocal left
            if not left:
                (place / "tls").mkdir(exist_ok=True)
                (place / "tls/.regstore-new-0123").write_bytes(b"half")
                raise _Killed
            left -= 1
            whole(*arguments)

        monkeypatch.setattr(applying, "_write", write)
        try:
            cut = again()
            is_cut = cut.code != 0
        except _Killed:
            is_cut = True
        monkeypatch.setattr(applying, "_write", whole)
        if not is_cut:
            assert number >= 2
            return
        keys = {path: found[0] for path, found in files(place).items() if path.startswith(("authority", "secrets"))}
        done = again()
        assert done.code == 0, (number, done)
        after = files(place)
        assert keys.items() <= {path: found[0] for path, found in after.items()}.items()
        assert not [path for path in after if "regstore-new" in path]
        assert authority.belongs(after["tls/server.crt"][0], after["tls/server.key"][0])
        checked = run("init", place, *(() if words == ("--renew",) else words))
        assert "nothing to change" in checked.out, (number, checked)
    raise AssertionError("it never came to its end")


def test_json_has_what_is_needed(init: Init, place: Path) -> None:
    document = init("--json").json
    assert document["url"] == "https://registry.example.org:5000"
    assert is_password(place, "admin", document["passwords"]["admin"])
    assert document["files"]["config.yml"] == "new"
    assert [each["outcome"] for each in document["checks"] if each["name"] == "seed blobs"] == ["done"]
    assert init("--json").json["passwords"] == {}


@pytest.mark.long
def test_a_terminal_is_asked_for_what_is_missing(place: Path, tmp_path: Path) -> None:
    shown = on_terminal(
        *("init", place),
        answers=[
            ("What do clients call the registry", "https://x"),
            ("no https://", "hub.example.org"),
            ("Where are its images to be", ""),
            ("this is needed", str(tmp_path / "store")),
            ("What is to run it (compose, systemd, kubernetes) [systemd]", ""),
            ("Where are backups to go", ""),
            ("Who is the first user [admin]", "ann"),
            ("Password of ann", ODD),
            ("Once more", "other"),
            ("Password of ann", ODD),
            ("Once more", ODD),
            ("Make it? [y/N]", "y"),
        ],
        columns=200,
        LC_ALL="C.UTF-8",
    )
    assert shown.code == 0, shown.text
    assert ODD not in shown.text
    assert is_password(place, "ann", ODD)
    changed = on_terminal("init", place, "--port", "5443", answer="n")
    assert changed.code == 4
    changed = on_terminal("init", place, "--port", "5443", answer="y")
    assert changed.code == 0
    assert "addr: :5443" in (place / "config.yml").read_text()


def test_the_folder_of_backups_is_made_here_or_not_at_all(
    init: Init, run: Run, place: Path, tmp_path: Path
) -> None:
    """The nightly job makes none: one that is missing then is a disk that is not mounted."""
    backup = tmp_path / "back up" / "of it"
    assert init("--yes", "--backup", backup).code == 0
    assert stat.S_IMODE(backup.stat().st_mode) == 0o700
    backup.rmdir()
    said = run("init", place, "--yes", "--with-serve")
    assert said.code == 0
    assert f"there is no folder {backup} for backups yet" in said.err
    assert not backup.exists()
