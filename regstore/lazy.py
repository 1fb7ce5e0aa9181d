"""Public names that cost nothing before they are used.

A package imports its public names for type checkers only, and has them looked up when they are asked for:

    if TYPE_CHECKING:
        from regstore.gc.plan import GcOptions
    else:
        __getattr__, __dir__ = lazily(__name__)

    __all__ = ["GcOptions"]

So each name stands once with the place where it comes from, a misspelled one is an error of mypy's as well, and
`import regstore.gc` loads none of gc. No name may be that of a module of the package: whoever imports the module
would find that under the name.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import cache
from typing import Any


def lazily(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package: what it imports `if TYPE_CHECKING`, imported when it is asked for."""

    def load(name: str) -> Any:
        if name not in vars(sys.modules[package]).get("__all__", ()):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = _homes(package)[name]
        if home == package:
            return importlib.import_module(f"{package}.{name}")
        value = getattr(importlib.import_module(home), name)
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: sorted({*vars(sys.modules[package]), *_homes(package)})


@cache
def _homes(package: str) -> dict[str, str]:
    """The module of each name; the package itself, of its own modules."""
    import ast

    loader: Any = sys.modules[package].__loader__
    tree = ast.parse(loader.get_source(package))
    guarded = [
        statement
        for node in tree.body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for statement in node.body
    ]
    return {
        name.asname or name.name: node.module
        for node in guarded
        if isinstance(node, ast.ImportFrom) and node.module
        for name in node.names
    }
