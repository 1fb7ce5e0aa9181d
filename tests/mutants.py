"""Which one-line mistakes would the tests not notice? A tool to run by hand: it takes hours over everything.

    .venv/bin/python -m tests.mutants regstore/gc/apply/going.py -- tests/gc/test_races.py tests/gc/test_run.py
    .venv/bin/python -m tests.mutants regstore/state/lock.py --sample 20 --seed 3 -- tests/gc/test_lock.py
    .venv/bin/python -m tests.mutants regstore/gc/heal.py --list

Each mutant is one small change of one place: a condition turned round, a comparison by one, a call or a raise left out,
`and` for `or`, True for False; and in SQL an anti join made a join, a `not exists` an `exists`, a `max` a `min`. It is
made in a copy of the tree, and the tests are run there until one fails (after the very first run, on the tree as it is,
which must pass). What survives is printed as a diff: a test is missing, or the change changes nothing that counts.

Exit code 1 where one survived.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
}
_SQL = re.compile(r"\b(select|delete from|insert into|update)\b", re.IGNORECASE)
_SQL_CHANGES = (
    (r"\banti join\b", "join"),
    (r"\bsemi join\b", "anti join"),
    (r"\bnot exists\b", "exists"),
    (r"(?<!not )\bexists \(", "not exists ("),
    (r"\bnot in\b", "in"),
    (r"\bmax\(", "min("),
    (r"\bmin\(", "max("),
    (r"\barg_max\(", "arg_min("),
    (r"\bbool_or\(", "bool_and("),
    (r" < ", " <= "),
    (r" <= ", " < "),
    (r" > ", " >= "),
    (r" >= ", " > "),
    (r"\bis not null\b", "is null"),
    (r"(?<!is )\band not\b", "and"),
)


@dataclass(frozen=True)
class Mutant:
    """what: in a few words. source: the whole file with the change."""

    path: Path
    line: int
    what: str
    source: str


class _Finder(ast.NodeVisitor):
    def __init__(self, path: Path, source: str) -> None:
        self._path = path
        self._source = source
        starts = [0]
        for line in source.encode().splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        self._starts = starts
        self.found: list[Mutant] = []

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._starts[node.lineno - 1] + node.col_offset, (
            self._starts[node.end_lineno - 1] + node.end_col_offset
        )

    def _add(self, node: ast.expr | ast.stmt, text: str, what: str) -> None:
        start, end = self._span(node)
        data = self._source.encode()
        source = (data[:start] + text.encode() + data[end:]).decode()
        self.found.append(Mutant(self._path, node.lineno, what, source))

    def _text(self, node: ast.expr | ast.stmt) -> str:
        start, end = self._span(node)
        return self._source.encode()[start:end].decode()

    def visit_If(self, node: ast.If) -> None:
        self._add(node.test, f"not ({self._text(node.test)})", "condition turned round")
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        if not isinstance(node.test, ast.Constant):
            self._add(node.test, "False", "loop left out")
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._add(node.test, f"not ({self._text(node.test)})", "condition turned round")
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._add(test, "True", "filter left out")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        if len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
            other = _COMPARISONS[type(node.ops[0])]
            left, right = self._text(node.left), self._text(node.comparators[0])
            self._add(node, f"({left} {other} {right})", f"{other} there")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        word = "or" if isinstance(node.op, ast.And) else "and"
        self._add(
            node, "(" + f" {word} ".join(f"({self._text(value)})" for value in node.values) + ")", f"{word} there"
        )
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call | ast.Await):
            self._add(node, "pass", "call left out")
        self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        self._add(node, "pass", "raise left out")
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, bool):
            self._add(node.value, str(not node.value.value), "the other answer")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._add(node, "pass", "addition left out")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and _SQL.search(node.value):
            self._sql(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        if _SQL.search(self._text(node)):
            self._sql(node)

    def _sql(self, node: ast.expr) -> None:
        text = self._text(node)
        for pattern, replacement in _SQL_CHANGES:
            for match in re.finditer(pattern, text):
                changed = text[: match.start()] + replacement + text[match.end() :]
                self._add(node, changed, f"SQL: {match[0].strip()} to {replacement.strip()}")


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Those that are still Python."""
    source = path.read_text()
    if path.suffix == ".sql":
        for pattern, replacement in _SQL_CHANGES:
            for match in re.finditer(pattern, source):
                line = source.count("\n", 0, match.start()) + 1
                changed = source[: match.start()] + replacement + source[match.end() :]
                yield Mutant(path, line, f"SQL: {match[0].strip()} to {replacement.strip()}", changed)
        return
    finder = _Finder(path, source)
    finder.visit(ast.parse(source))
    for mutant in finder.found:
        try:
            compile(mutant.source, str(path), "exec")
        except SyntaxError:
            continue
        yield mutant


def _passes(tree: Path, tests: list[str], timeout: float) -> bool:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(command, cwd=tree, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return False  # it hangs: somebody notices
    return done.returncode == 0


def main() -> int:
    arguments = sys.argv[1:]
    tests = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--list", action="store_true", help="only show them")
    parser.add_argument("--sample", type=int, default=0, help="so many, chosen by chance")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for the tests of one")
    options = parser.parse_args(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    found = [mutant for path in options.paths for mutant in mutants_of(path)]
    if options.sample:
        found = sorted(
            random.Random(options.seed).sample(found, min(options.sample, len(found))),
            key=lambda mutant: (str(mutant.path), mutant.line),
        )
    if options.list:
        for mutant in found:
            print(f"{mutant.path}:{mutant.line}: {mutant.what}")
        return 0
    if not tests:
        parser.error("which tests? Name them behind --")
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(".", tree, ignore=shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache"))
        if not _passes(tree, tests, options.timeout * 3):
            print("the tests fail on the tree as it is")
            return 2
        for number, mutant in enumerate(found, start=1):
            target = tree / mutant.path
            before = target.read_text()
            target.write_text(mutant.source)
            try:
                alive = _passes(tree, tests, options.timeout)
            finally:
                target.write_text(before)
            survived += alive
            print(
                f"{number}/{len(found)} {'SURVIVED' if alive else 'killed'} {mutant.path}:{mutant.line}: {mutant.what}",
                flush=True,
            )
            if alive:
                diff = difflib.unified_diff(before.splitlines(), mutant.source.splitlines(), n=1, lineterm="")
                print("\n".join(list(diff)[2:]), flush=True)
    print(f"{survived} of {len(found)} survived")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
