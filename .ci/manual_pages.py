"""Puts the manual pages into the wheel, made of the help of the commands that it has."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManualPages(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        os.environ["COLUMNS"] = "100"
        sys.path.insert(0, self.root)
        from regstore.cli.manual import write

        self._folder = tempfile.TemporaryDirectory()
        for page in write(Path(self._folder.name)):
            build_data["shared_data"][str(page)] = f"share/man/man1/{page.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self._folder.cleanup()
