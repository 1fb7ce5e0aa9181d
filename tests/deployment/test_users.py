"""Users are added and taken away, and nothing else of the file changes."""

from __future__ import annotations

import bcrypt
import pytest

from regstore.deployment import users
from regstore.errors import InputError, Refused
from regstore.htpasswd import parse_htpasswd

ODD = "a:b $HOME 'x' \"y\" ü\\"


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "COST", 4)


def test_a_user_is_added_changed_and_taken_away() -> None:
    one = users.with_user(b"# ours\n\n", "ann", ODD, "f")
    both = users.with_user(one, "bob", "b" * 72, "f")
    assert users.users_of(both, "f") == ["ann", "bob"]
    assert bcrypt.checkpw(ODD.encode(), parse_htpasswd(both.decode(), "f")["ann"])
    changed = users.with_user(both, "ann", "new", "f")
    assert changed.splitlines()[3] == both.splitlines()[3]
    assert bcrypt.checkpw(b"new", parse_htpasswd(changed.decode(), "f")["ann"])
    left = users.without_user(changed, "bob", "f")
    assert left.startswith(b"# ours\n\nann:$2b$04$")
    with pytest.raises(Refused, match="only user"):
        users.without_user(left, "ann", "f")
    with pytest.raises(InputError, match="no user 'bob'; it has ann"):
        users.without_user(left, "bob", "f")


def test_a_user_that_stands_there_twice_is_one_afterwards() -> None:
    one = users.with_user(b"", "ann", "x", "f")
    assert users.with_user(one + one, "ann", "y", "f").count(b"ann:") == 1


@pytest.mark.parametrize("name", ["", "a:b", "#a", " a", "a\n", "x" * 256])
def test_names_that_can_t_be(name: str) -> None:
    with pytest.raises(InputError):
        users.check_name(name)


@pytest.mark.parametrize("password", ["", "ü" * 37, "a\0b", "a\nb", "\ud800hunter2"])
def test_passwords_that_can_t_be_and_are_not_echoed(password: str) -> None:
    with pytest.raises(InputError) as caught:
        users.check_password(password)
    assert not password or password not in str(caught.value)


def test_a_file_with_lines_that_a_registry_passes_over_is_refused() -> None:
    with pytest.raises(InputError, match=r"f, line 1: the hash of 'bob' is MD5"):
        users.with_user(b"bob:$apr1$x$y\n", "ann", "x", "f")
    with pytest.raises(InputError, match="UTF-8"):
        users.with_user(b"\xff:x\n", "ann", "x", "f")


def test_generated_ones_differ() -> None:
    assert len({users.new_password() for _ in range(50)}) == 50
