"""`regstore inspect --config`."""

from __future__ import annotations

from pathlib import Path

import orjson

from tests.cli.conftest import Run
from tests.model.builder import Builder


def test_history_and_labels(run: Run, tmp_path: Path) -> None:
    b = Builder()
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": {"org.example": "some\nthing\x1b[31m"}},
        "history": [
            {"created_by": "/bin/sh -c #(nop) ADD file:1 in / "},
            {"created_by": 'CMD ["sh"]\nFORGED', "empty_layer": True},
        ],
    }
    image = b.image(b.blob(orjson.dumps(document)), [b.blob(b"layer")])
    b.push("a", image, "1")
    b.push("a", b.index([image]), "multi")
    b.store.write_folder(tmp_path / "store")
    said = run("inspect", tmp_path / "store", "a:1", "--config")
    assert said.code == 0
    lines = [line.rstrip() for line in said.out.splitlines()]
    assert "  org.example: some thing\\x1b[31m" in lines
    assert "MADE BY" in said.out and any(line.endswith("ADD file:1 in /") for line in lines)
    assert any(line.strip() == 'CMD ["sh"] FORGED' for line in lines)
    assert "History" not in run("inspect", tmp_path / "store", "a:1").out
    facts = run("inspect", tmp_path / "store", "a:1", "--config", "--json").json
    assert [step["size"] for step in facts["config"]["history"]] == [1, None]
    assert run("inspect", tmp_path / "store", "a:multi", "--config", "--json").json["config"] is None
