"""Errors on their way between processes. Pickle makes an exception anew from its arguments, which those with a
constructor of their own (`NotFound`) do not stand."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

from regstore.errors import RegstoreError, StorageError


@dataclass(frozen=True, slots=True)
class PackedError:
    kind: type[BaseException]
    arguments: tuple[Any, ...]
    facts: dict[str, Any]
    cause: PackedError | None


def pack(error: BaseException) -> PackedError:
    """What can't be pickled of it is left out; of its causes, those that regstore raised."""
    cause = error.__cause__
    return PackedError(
        type(error),
        tuple(each if _travels(each) else str(each) for each in error.args),
        {name: value for name, value in vars(error).items() if _travels(value)},
        pack(cause) if isinstance(cause, RegstoreError) else None,
    )


def unpack(packed: PackedError) -> BaseException:
    error = packed.kind.__new__(packed.kind, *packed.arguments)
    error.args = packed.arguments
    vars(error).update(packed.facts)
    if packed.cause is not None:
        error.__cause__ = unpack(packed.cause)
    return error


def unpack_of_store(packed: PackedError) -> StorageError:
    """Where tasks tell of none but a storage's."""
    error = unpack(packed)
    assert isinstance(error, StorageError)
    return error


def _travels(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001 - whatever its own methods raise
        return False
    return True
