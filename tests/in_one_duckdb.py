"""Temporary inventories as databases of one DuckDB in memory: to start a DuckDB and to make an inventory's tables takes
some 30 ms of processor time, which is longer than most tests need for the rest; a copy of made ones takes 3."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

_ATTACH = re.compile(r"\s*attach\s.*\sas\s+(\w+)", re.IGNORECASE | re.DOTALL)
_MAKING = "begin;"
_numbers = itertools.count(1)


class OneDuckDb:
    """Connections that each see a database of their own, as if it were alone. May be used from several threads.
    optimizes: statements, before it runs them."""

    def __init__(self, config: Mapping[str, Any], *, optimizes: bool = True) -> None:
        self._connection = duckdb.connect(":memory:", config=dict(config))
        if not optimizes:
            names = self._connection.execute("select string_agg(name, ',') from duckdb_optimizers()").fetchone()
            assert names is not None
            self._connection.execute(f"set global disabled_optimizers = '{names[0]}'")
        self._lock = threading.RLock()
        self._made: dict[str, str] = {}

    def connect(self) -> _Database:
        name = self._new()
        return _Database(self, self.use(name), name)

    def use(self, name: str) -> duckdb.DuckDBPyConnection:
        with self._lock:
            cursor = self._connection.cursor()
        cursor.execute(f"use {name}")
        return cursor

    def make(self, name: str, sql: str) -> None:
        """What the SQL makes in an empty database."""
        with self._lock:
            if sql not in self._made:
                first = self._new()
                with self.use(first) as cursor:
                    cursor.execute(sql)
                self._made[sql] = first
            self._execute(f"copy from database {self._made[sql]} to {name}")

    def detach(self, name: str) -> None:
        self._execute(f"detach {name}")

    def _new(self) -> str:
        name = f"database_{next(_numbers)}"
        self._execute(f"attach ':memory:' as {name}")
        return name

    def _execute(self, sql: str) -> None:
        with self._lock:
            self._connection.execute(sql)


class _Database:
    """As a connection of its own. Cursors of it see the same database; the first one takes it away with it."""

    def __init__(
        self, one: OneDuckDb, connection: duckdb.DuckDBPyConnection, name: str, *, first: bool = True
    ) -> None:
        self._one = one
        self._connection = connection
        self._name = name
        self._attached: list[str] = [name] if first else []
        self._empty = first

    def execute(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> duckdb.DuckDBPyConnection:
        empty, self._empty = self._empty, self._empty and sql.startswith("set ")
        if empty and sql.startswith(_MAKING):
            self._one.make(self._name, sql)
            return self._connection
        result = self._connection.execute(sql, parameters)
        if attached := _ATTACH.match(sql):
            self._attached.append(attached[1])
        return result

    def cursor(self) -> _Database:
        return _Database(self._one, self._one.use(self._name), self._name, first=False)

    def close(self) -> None:
        self._connection.close()
        while self._attached:
            self._one.detach(self._attached.pop())

    def __del__(self) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)
