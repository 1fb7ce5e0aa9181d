"""Whose registry a store is, as commands ask and say it (`inventory.whose`).

Who changes things refuses for what the registry's configuration says before it opens anything; the library refuses for
what the store says. Who only looks says it in the first line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regstore.cli.output import emit, emit_error
from regstore.errors import AccessDenied

if TYPE_CHECKING:
    from regstore.inventory.whose import Use
    from regstore.storage.base import Storage
    from regstore.storage.registry_config import RegistryConfig


def refuse_told(url: str, config: RegistryConfig | None, use: Use) -> None:
    """Refused where the registry's configuration says that its metadata is in a database."""
    from regstore.inventory.whose import database_told, refuse_database

    refuse_database(url, database_told(config), use)


async def database_of(storage: Storage, config: RegistryConfig | None) -> str:
    """For who only looks and scans nothing: what says that the metadata is in a database. One LIST at most."""
    from regstore.inventory.whose import database_in_use, database_told

    try:
        return database_told(config) or await database_in_use(storage)
    except AccessDenied as error:
        emit_error(f"whether all tags are in the store is not known: {error}")
        return ""


def whose_json(database: str) -> dict[str, Any]:
    """How the result of every command begins that looks at a registry's tags."""
    return {"database": database or None}


def say_whose(url: str, database: str, *, to_stderr: bool = False) -> None:
    """The first line. to_stderr: beside a plain list, which programs read."""
    if database:
        from regstore.inventory.whose import notice

        (emit_error if to_stderr else emit)(notice(url, database))
