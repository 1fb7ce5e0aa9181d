"""Plans of many millions of keys spill to disk instead of asking for more memory: what DuckDB would keep in memory as a
whole stands in no statement of a planner.

`not in`, and `in` or `exists` beneath an `or` or a `case`, become mark joins, whose table of all that is asked about
does not spill; joins and anti joins do. `python -m benchmarks.large_plans` is the proof with many keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from benchmarks.large_plans import PLANNERS, generate, plan
from regstore.gc.plan import GcOptions, plan_gc
from regstore.gc.policy import BrokenScope, Pattern, Policy, Rule
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import ScanOptions, scan
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW, example_registry

NOT_IN = re.compile(r"\bnot in \(\s*(?:select|from|with)\b")
#: What there is little of.
FEW = re.compile(r"not in \((?:select \w+ from (?:archived|archived_blob|repository)\)|select unnest\()")
#: Statements that ask an option for the few that it names.
OF_OPTIONS = ("unnest($patterns", "unnest($scope_names")


def test_no_statement_says_not_in() -> None:
    folder = Path(str(files("regstore")))
    texts = {
        str(file): FEW.sub("", file.read_text()) for kind in ("sql", "py") for file in folder.rglob(f"*.{kind}")
    }
    assert len(texts) > 300
    assert [file for file, text in texts.items() if NOT_IN.search(text)] == []


@pytest.fixture
def marks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements with a mark join, of those that run."""
    found: list[str] = []
    execute = Inventory.execute

    def explained(self: Inventory, sql: str, parameters: Any = None) -> Any:
        if not sql.lstrip().startswith(("drop", "attach")):
            [(_, said)] = self.connection.execute(f"explain {sql}", parameters).fetchall()
            if "Join Type: MARK" in said and not any(option in sql for option in OF_OPTIONS):
                found.append(sql)
        return execute(self, sql, parameters)

    monkeypatch.setattr(Inventory, "execute", explained)
    return found


def test_a_mark_join_is_seen(marks: list[str]) -> None:
    with Inventory() as inventory:
        inventory.execute("select * from tag where size > 5 or target in (select digest from blob)")
    assert len(marks) == 1


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    generate(folder, 450, "many")
    return folder


@pytest.mark.parametrize("planner", PLANNERS)
def test_plans_of_images(planner: str, images: Path, marks: list[str]) -> None:
    assert plan(planner, images, "128MB")["keys"] > 400
    assert marks == []


OPTIONS: dict[str, Callable[[], GcOptions]] = {
    "untagged": lambda: GcOptions(delete_untagged=True),
    "policy and broken": lambda: GcOptions(
        policy=Policy(
            rules=(Rule(name="newest", newest_by="created", keep_newest=1, drop=(Pattern.tag("*"),)),),
            protect=(Pattern.tag("latest"),),
            delete_untagged=True,
        ),
        drop_broken=(BrokenScope(),),
    ),
}


@pytest.mark.parametrize("options", OPTIONS)
async def test_gc_of_all_kinds_of_keys(options: str, marks: list[str]) -> None:
    storage = ModelStorage(example_registry(), now=NOW)
    async with scan(storage, ScanOptions.default()) as inventory:
        marks.clear()
        assert plan_gc(inventory, OPTIONS[options](), now=NOW + DAY).blobs.dead
    assert marks == []
