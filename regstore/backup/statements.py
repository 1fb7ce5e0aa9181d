"""The SQL of source.sql."""

from __future__ import annotations

from typing import Final

from regstore.inventory.statements import EDGE_KINDS, Statements

SQL: Final = Statements("regstore.backup", "source.sql", **EDGE_KINDS)
