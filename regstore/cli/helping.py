"""What help looks like: commands and options in sections, the rarely used last, and two examples of each command."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args, get_origin

from typer.core import TyperCommand, TyperGroup
from typer.models import OptionInfo

if TYPE_CHECKING:
    import inspect

#: The program's commands by what one wants; what is in none of these stands under the last.
SECTIONS: Final = {
    "Look": ("ls", "tags", "inspect", "du", "serve", "report"),
    "Clean up": ("gc", "rm", "untag", "tag", "trash", "heal"),
    "Move and back up": ("backup", "restore", "migrate", "export", "import"),
    "Health": ("verify", "doctor", "locks"),
    "Set up": ("init", "seed-bucket", "config", "run", "schema", "demo", "help"),
    "Other": (),
}
#: How a group of options (a class of `command.command`) is headed, and the place of that in the help: 0 first. What is
#: rarely needed has 5 and more. Options of no group stand under "Options", with 1.
TITLES: Final = {
    "Garbage": ("What is garbage", 0),
    "TagsToGo": ("Tags that go", 0),
    "Scope": ("What of the registry", 0),
    "CopiedScope": ("What of the registry", 0),
    "RestoredScope": ("What of the registry", 0),
    "Pruning": ("What stays", 0),
    "RunsToEmpty": ("Whose trash", 0),
    "Reading": ("Reading blobs", 0),
    "VerifyReading": ("Reading blobs", 0),
    "Repairing": ("Repairs", 0),
    "Dropping": ("Repairs", 0),
    "How": ("Options", 1),
    "Passes": ("Options", 1),
    "Asked": ("The deployment", 0),
    "Checking": ("What --check looks at", 2),
    "Doing": ("What is done", 1),
    "Keys": ("Secrets, from elsewhere", 4),
    "InitStore": ("How the store is reached", 8),
    "Listening": ("Where it listens, and who may ask", 0),
    "Questions": ("Questions, which change nothing", 2),
    "AtTarget": ("What is there already", 2),
    "Consent": ("Consent: what a run goes on in spite of", 3),
    "Cluster": ("More than one machine", 6),
    "CacheWords": ("The registry's cache", 4),
    "CacheAndProcesses": ("The registry's cache", 4),
    "CacheForgotten": ("The registry's cache", 4),
    "GcCache": ("The registry's cache", 4),
    "Way": ("How it is done", 2),
    "NewObjects": ("New objects in S3", 6),
    "SecondStore": ("How the second place is reached", 7),
    "RepairStore": ("How the second place is reached", 7),
    "Scanning": ("Rarely needed", 9),
    "BlobsReported": ("Rarely needed", 9),
    "Telling": ("Options", 1),
    "StoreSettings": ("How the store is reached", 8),
    "FromLayout": ("How the store is reached", 8),
    "BackupSettings": ("How the backup is reached", 8),
}
_OPTIONS: Final = ("Options", 1)
_RANKS: Final = dict((*TITLES.values(), _OPTIONS))
#: Of these the docstring's own words would be as good: they stand between what is often used and what is rare.
_BETWEEN: Final = 3


def in_section(parameter: inspect.Parameter, group: type[Any]) -> inspect.Parameter:
    """A group's option, with its section."""
    annotation = parameter.annotation
    if get_origin(annotation) is not Annotated:
        return parameter
    kind, *marks = get_args(annotation)
    title = TITLES[group.__name__][0] if group.__name__ in TITLES else _first_words(group)
    marked = [_titled(mark, title) if isinstance(mark, OptionInfo) else mark for mark in marks]
    return parameter.replace(annotation=Annotated[kind, *marked])


def _titled(mark: OptionInfo, title: str) -> OptionInfo:
    titled = copy.copy(mark)
    titled.rich_help_panel = title
    return titled


def _first_words(group: type[Any]) -> str:
    return (group.__doc__ or "Options").strip().partition(".")[0]


def sections_of(command: Any, context: Any) -> list[tuple[str, list[tuple[str, str]]]]:
    """Of a command's arguments and options: each section's title, and names with their help, in the order of the
    help."""
    arguments: list[tuple[str, str]] = []
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None:
            continue
        if parameter.param_type_name == "argument":
            arguments.append(record)
        else:
            title = getattr(parameter, "rich_help_panel", None) or _OPTIONS[0]
            sections.setdefault(title, []).append(record)
    ordered = sorted(sections.items(), key=lambda item: _RANKS.get(item[0], _BETWEEN))
    return [*([("Arguments", arguments)] if arguments else []), *ordered]


class Sections(TyperCommand):
    """A command whose help has its options in sections, after examples."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        from regstore.cli.examples import EXAMPLES

        for title, records in sections_of(self, ctx):
            with formatter.section(title):
                formatter.write_dl(records)
        examples = EXAMPLES.get(" ".join(ctx.command_path.split()[1:]), ())
        if examples:
            with formatter.section("Examples"):
                for example in examples:
                    formatter.write(f"{'':{formatter.current_indent}}regstore {example}\n")


class Grouped(TyperGroup):
    """The program, whose help has its commands in sections."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        shown = {name: command for name, command in commands.items() if command is not None and not command.hidden}
        placed = {name for names in SECTIONS.values() for name in names}
        for title, names in SECTIONS.items():
            here = [name for name in names if name in shown] or [name for name in shown if name not in placed]
            if names and not any(name in shown for name in names):
                continue
            rows = [(name, (shown[name].help or "").partition("\n")[0]) for name in here]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=max(map(len, shown)))
