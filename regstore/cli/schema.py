"""`regstore schema`: what `--json` prints, as JSON Schema."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated, Any

import typer

from regstore.cli.command import command
from regstore.cli.outcome import Result
from regstore.cli.output import emit
from regstore.errors import InputError


@command(answers=True)
def schema(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMMAND...", show_default=False, help="Only of this command, such as `backup create`."
        ),
    ] = None,
) -> Result:
    """Print the JSON Schema of what commands print with --json, of all or of one."""
    import orjson

    document: dict[str, Any] = orjson.loads(files("regstore.cli").joinpath("schema.json").read_bytes())
    if words:
        document = _only(document, " ".join(words))
    emit(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    return Result(data=document)


def _only(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The envelope with the result of this command."""
    from regstore.cli.config.model import suggestion

    definitions = document["$defs"]
    results = definitions["results"]
    if name not in results:
        raise InputError(f"no command {name!r} that has --json{suggestion(name, results)}")
    own = {"const": name}
    return document | {
        "title": f"What regstore {name} prints with --json",
        "properties": document["properties"] | {"command": own},
        "allOf": [each for each in document["allOf"] if each["if"]["properties"]["command"] == own],
        "$defs": definitions | {"results": {name: results[name]}},
    }
