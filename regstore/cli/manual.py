"""Manual pages of the program and of each command, made of the same help: `python -m regstore.cli.manual FOLDER`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from regstore import __version__
from regstore.cli.examples import EXAMPLES
from regstore.cli.helping import sections_of


def pages() -> Iterator[tuple[str, str]]:
    """File name and text of each page: `regstore.1`, `regstore-backup-create.1`."""
    from regstore.cli.app import EPILOG, app

    program: Any = typer.main.get_command(app)
    context = program.context_class(program, info_name="regstore")
    yield "regstore.1", _program(program, context, EPILOG)
    yield from _of_group(program, context)


def _of_group(group: Any, context: Any) -> Iterator[tuple[str, str]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command.hidden:
            continue
        if hasattr(command, "list_commands"):
            below = command.context_class(command, info_name=name, parent=context)
            yield f"{below.command_path.replace(' ', '-')}.1", _page(command, below, _list(command, below))
            yield from _of_group(command, below)
            continue
        real = command.make_context(name, [], parent=context, resilient_parsing=True)
        yield f"{real.command_path.replace(' ', '-')}.1", _page(real.command, real, _options(real.command, real))


def _program(program: Any, context: Any, epilog: str) -> str:
    parts = [_options(program, context), _list(program, context)]
    codes = [".SH EXIT STATUS", _text(epilog.removeprefix("Exit codes: "))]
    return _page(program, context, "\n".join([*parts, *codes]))


def _page(command: Any, context: Any, body: str) -> str:
    words = context.command_path
    line, _, more = (command.help or "").partition("\n")
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [
        f'.TH "{words.replace(" ", "-").upper()}" "1" "" "regstore {__version__}" "User Commands"',
        ".SH NAME",
        f"{_escaped(words.replace(' ', '-'))} \\- {_escaped(line.rstrip('.'))}",
        ".SH SYNOPSIS",
        f"\\fB{_escaped(words)}\\fR {_escaped(usage)}",
        ".SH DESCRIPTION",
        _text(line),
        *(f".PP\n{_text(part)}" for part in re.split(r"\n\s*\n", more.strip()) if part.strip()),
        body,
        *_examples(words),
        ".SH SEE ALSO",
        "\\fBregstore\\fR(1)",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _options(command: Any, context: Any) -> str:
    lines = []
    for title, records in sections_of(command, context):
        lines.append(f'.SH "{_escaped(title.upper())}"')
        for name, text in records:
            lines += [".TP", f"\\fB{_escaped(name)}\\fR", _text(text)]
    return "\n".join(lines)


def _list(group: Any, context: Any) -> str:
    lines = [".SH COMMANDS"]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if not command.hidden:
            page = f"{context.command_path} {name}".replace(" ", "-")
            line = (command.help or "").partition("\n")[0]
            lines += [".TP", f"\\fB{_escaped(page)}\\fR(1)", _text(line)]
    return "\n".join(lines)


def _examples(words: str) -> list[str]:
    found = EXAMPLES.get(words.partition(" ")[2], ())
    return [".SH EXAMPLES", *(f".PP\n.EX\nregstore {_escaped(each)}\n.EE" for each in found)] if found else []


def _text(text: str) -> str:
    """One paragraph. No line of it is taken for a request."""
    return "\\&" + _escaped(" ".join(text.split())) if text.strip() else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("…", "...")


def write(folder: Path) -> list[Path]:
    """Every page into the folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in pages():
        (folder / name).write_text(text, "utf-8")
        written.append(folder / name)
    return written


if __name__ == "__main__":
    write(Path(sys.argv[1]))
