"""What holds for the command under way: the file, and which options its command line says itself.

A named store is what its section says: of what that leaves out, and of what the command line says itself, the rest of
the usual order holds; but neither the environment nor `[options]` makes a name mean another place.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from regstore.errors import InputError

if TYPE_CHECKING:
    from regstore.cli.config.model import Configuration, NamedStore
    from regstore.gc.policy import Policy


@dataclass(frozen=True, kw_only=True)
class Current:
    """said: parameters that the command line has, or the step of a job. around: those that the environment says, and
    its variable."""

    configuration: Configuration | None = None
    said: frozenset[str] = field(default_factory=frozenset)
    around: Mapping[str, str] = field(default_factory=dict)


_PLACE: Final = "endpoint_url"
#: Keys of a store's section, and what OpenOptions calls them.
KEYS: Final = {"access_key_id": "access_key", "secret_access_key": "secret_key", "session_token": "session_token"}
_NOTHING: Final = Current()
_CURRENT: Final[ContextVar[Current]] = ContextVar("regstore_current", default=_NOTHING)


@contextlib.contextmanager
def holding(current: Current) -> Iterator[None]:
    """Let it hold within."""
    token = _CURRENT.set(current)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def load(
    named: str | os.PathLike[str] | None, environ: Mapping[str, str], *, look: bool = True
) -> Configuration | None:
    """The configuration that counts, with its problems; None where there is none. InputError where it can't be read."""
    from regstore.cli.config.place import find, read

    place = find(named, environ, look=look)
    if place is None:
        return None
    from regstore.cli.config.look import every_command
    from regstore.cli.config.model import parse

    return parse(read(place), place, every_command())


def refuse_problems(configuration: Configuration | None) -> None:
    """InputError where anything in the file is wrong: what else it says is then not to be relied on."""
    if configuration is not None and configuration.problems:
        first, *others = configuration.problems
        raise InputError(first + (f" (and {len(others)} more: regstore config check)" if others else ""))


def configuration() -> Configuration | None:
    """That of the command under way."""
    return _CURRENT.get().configuration


def said() -> frozenset[str]:
    """The parameters that the command line has itself, or the step of a job."""
    return _CURRENT.get().said


def of_the_file() -> str:
    """As a message names it."""
    found = configuration()
    return "regstore.toml, for there is none" if found is None else str(found.place.path)


# -- names


def named_store(word: str | None) -> NamedStore | None:
    """The store of this name. None: it is an address or a folder. InputError where that is not clear."""
    found = configuration()
    if word is None or (found is None and not word.startswith("@")):
        return None
    stores: Mapping[str, NamedStore] = {} if found is None else found.stores
    return stores.get(_name(word, "store", stores) or "")


def named_policy(path: Path) -> Policy | None:
    """The policy of this name in the file. None: it is a file of rules."""
    found = configuration()
    policies: Mapping[str, Any] = {} if found is None else found.policies
    name = _name(str(path), "policy", policies)
    if name is None or found is None:
        return None
    from regstore.gc.policy import Policy

    return Policy.of(policies[name], source=f"[policies.{name}] of {found.place.path}")


def _name(word: str, what: str, known: Mapping[str, Any]) -> str | None:
    from regstore.cli.config.model import suggestion

    where = of_the_file()
    if word.startswith("@") and "/" not in word:
        if word[1:] in known:
            return word[1:]
        raise InputError(f"no {what} {word[1:]!r} in {where}{suggestion(word[1:], known)}")
    if not known or "/" in word or "://" in word or word in (".", ".."):
        return None
    there = os.path.lexists(word)
    if word in known:
        if there:
            raise InputError(
                f"{word} is a {what} of {where}, and there is a ./{word} here: say @{word} for the one, ./{word} for "
                "the other"
            )
        return word
    if there:
        return None
    raise InputError(
        f"no {what} {word!r} in {where}, and nothing of that name here (./{word} says that it is to be)"
        f"{suggestion(word, known)}"
    )


# -- what is said of a named store


def reached(store: NamedStore, said_here: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """How it is reached: by what the command line says, then by its section, then by what holds for any store.
    said_here: the values of the options, from wherever. prefix: of the parameters that say them. InputError where the
    environment alone says on which server its bucket is."""
    current = _CURRENT.get()
    variable = current.around.get(prefix + _PLACE)
    if variable is not None and _PLACE not in store.said and (store.url or "").startswith("s3://"):
        raise InputError(
            f"{store.where} says no endpoint_url, and {variable} would make it a bucket of {said_here[_PLACE]}: say "
            "endpoint_url in that section, or --endpoint-url"
        )
    return {
        key: value if prefix + key in current.said or key not in store.said else _value(store, key)
        for key, value in said_here.items()
    }


def keys_of(store: NamedStore, prefix: str = "") -> dict[str, str]:
    """The keys to sign with, as OpenOptions has them; nothing where the section has none, or the command line says a
    profile."""
    if f"{prefix}profile" in _CURRENT.get().said:
        return {}
    return {mine: _value(store, key) for key, mine in KEYS.items() if key in store.said}


def of_store(store: NamedStore | None, key: str, parameter: str, value: Any) -> Any:
    """The value of an option that a store's section may say. parameter: of Click."""
    if store is None or key not in store.said or parameter in _CURRENT.get().said:
        return value
    return _value(store, key)


def _value(store: NamedStore, key: str) -> Any:
    from regstore.cli.config.reference import Reference

    value = store.said[key]
    if isinstance(value, Reference):
        try:
            value = value.get(os.environ)
        except InputError as error:
            raise InputError(f"{store.where}: {key}: {error}") from error
    return Path(value) if key in ("registry_config", "ca_bundle") else value
