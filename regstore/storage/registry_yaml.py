"""YAML that is written for others: for readers of 1.1 and of 1.2, and for Go's, which Distribution and compose have.

Pure; PyYAML is imported when it is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

#: What Go's YAML takes for a number or a truth, and PyYAML for text: a bucket may be called 1e5.
GO_READS_OTHERWISE: Final = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?0[xXoObB]?[0-9a-fA-F_]*|[-+]?[0-9][0-9_]*|[yYnN]"
)


def dump(documents: Iterable[object], *, width: int = 80) -> str:
    """Without anchors, which few expect in such files, and in the order given. What is not ASCII is escaped, for PyYAML
    takes a next-line character (U+0085) that stands for itself for the end of the line."""
    import yaml

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> Any:
        style = "'" if GO_READS_OTHERWISE.fullmatch(value) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Plain.add_representer(str, text)
    return str(yaml.dump_all(documents, Dumper=Plain, sort_keys=False, default_flow_style=False, width=width))
