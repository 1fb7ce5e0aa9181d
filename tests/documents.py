"""FORMATS.md is made of the docstrings of the modules that read and write each file: `python -m tests.documents`."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import regstore

FORMATS = Path(regstore.__file__).parent / "FORMATS.md"

_HEAD = """# What regstore stores

Enough to read each without regstore. Made of the docstrings of the modules that read and write it, by
`python -m tests.documents`, and a test compares: change those. A file that a version does not know is left alone, and a
field that it does not know is passed over.
"""
_PARTS = (
    ("The registry's own tree", "regstore.layout"),
    ("Beside it: what runs leave in the store", "regstore.state"),
    ("Locks", "regstore.state.lock"),
    ("Journals", "regstore.state.journal"),
    ("What the last gc left", "regstore.state.counts"),
    ("What is remembered of the registry", "regstore.state.registry_state"),
    ("The times of tags", "regstore.state.tag_record"),
    ("Uploads that can be taken up again", "regstore.state.unfinished_uploads"),
    ("Which folder this is", "regstore.storage.identity"),
    ("A backup", "regstore.backup.format"),
    ("On the host of a registry: what was asked of `regstore init`", "regstore.deployment.record"),
    ("On this computer: manifests that were read", "regstore.inventory.cache"),
    ("On this computer: blobs that were proved", "regstore.proving.proofs"),
)


def formats() -> str:
    parts = [_HEAD]
    for title, name in _PARTS:
        text = inspect.getdoc(importlib.import_module(name))
        assert text
        parts.append(f"## {title}\n\n`{name}`: {text}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    FORMATS.write_text(formats())
