"""What stands in `regstore.toml`. Pure: the text is given.

    [stores.prod]                       # regstore gc prod
    url = "s3://registry/prod"          # or registry_config = "/etc/docker/registry/config.yml"
    endpoint_url = "https://s3.example.org"

    [options]                           # of every run that has them
    concurrency = 64

    [options.gc]                        # of every gc; options.backup.create is of `backup create`
    settle = "90s"

    [policies.standard]                 # regstore gc prod --policy standard; as a file of rules (regstore.gc.policy)
    protect = ["latest"]

    [jobs.nightly]                      # regstore run nightly; also ping_url, metrics_file and the like
    on_failure = "continue"             # of its steps that say nothing themselves; otherwise "stop"

    [[jobs.nightly.step]]
    command = "gc"
    store = "prod"
    yes = true

Keys of options are the options' names with `_` for `-`; arguments are called as the help calls them, in lower case.
Relative paths are below the file's own folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal

from regstore.cli.config.ambient import NOT_OF_ALL, OF_THE_END, ONCE, SHARED
from regstore.cli.config.place import Place
from regstore.cli.config.reference import Reference, as_written, has_password, reference_of
from regstore.errors import InputError

STORE_TEXTS: Final = ("endpoint_url", "region", "profile", "registry_cache", "redis_url", "access_key_id")
STORE_PATHS: Final = ("registry_config", "ca_bundle")
#: Never in the file itself.
STORE_SECRETS: Final = ("secret_access_key", "session_token")
STORE_KEYS: Final = ("url", *STORE_PATHS, *STORE_TEXTS, *STORE_SECRETS, "path_style", "registry_debug_url")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
#: What does not end, asks, is about one moment, or about all this itself.
NO_STEPS: Final = frozenset({"run", "demo", "serve", "init", "import", "config show", "config check"})

#: Of `run`.
JOB_OPTIONS: Final = ("metrics_file", "ping_url", "log_format", "json", "quiet", "verbose")

OnFailure = Literal["stop", "continue"]


@dataclass(frozen=True, kw_only=True)
class NamedStore:
    """A store as its section has it. said: every key but url, in TOML's own values; paths are made absolute, and a
    reference is a Reference."""

    name: str
    url: str | None
    said: Mapping[str, Any]
    where: str

    @property
    def registry_config(self) -> Path | None:
        said = self.said.get("registry_config")
        return None if said is None else Path(said)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command of a job. options: as they stand in the file."""

    number: int
    command: str
    on_failure: OnFailure
    options: Mapping[str, Any]
    where: str


@dataclass(frozen=True, kw_only=True)
class Job:
    """own: what `regstore run` takes from it, as a step without a number."""

    name: str
    steps: tuple[Step, ...]
    own: Step


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """options: by command, "" for those of all. policies: as tables. problems: what is wrong anywhere in it. digest: of
    its text."""

    place: Place
    digest: str = ""
    stores: Mapping[str, NamedStore] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    policies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    jobs: Mapping[str, Job] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?`, or what there is, where that is not much; or nothing."""
    names = sorted(known)
    close = get_close_matches(word.replace("-", "_").lower(), names, n=1) or get_close_matches(word, names, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are {', '.join(names)}" if 0 < len(names) <= 12 else ""


def parse(text: str, place: Place, commands: Iterable[str]) -> Configuration:
    """The whole of it, with all that is wrong. InputError only where it is no TOML. commands: that there are."""
    import hashlib
    import tomllib

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"the configuration {place.path} is not TOML: {error}") from error
    found = _Reader(place, frozenset(commands)).read(document)
    return replace(found, digest=hashlib.sha256(text.encode()).hexdigest()[:16])


class _Reader:
    """Takes a document apart, and notes what can't be understood."""

    def __init__(self, place: Place, commands: frozenset[str]) -> None:
        self._place = place
        self._commands = commands
        self._problems: list[str] = []

    def read(self, document: Mapping[str, Any]) -> Configuration:
        self._refuse_others(document, ("stores", "options", "policies", "jobs"), "")
        self._refuse_passwords(document, "")
        stores = self._tables(document, "stores", "")
        jobs = self._tables(document, "jobs", "")
        return Configuration(
            place=self._place,
            stores={name: self._store(name, table) for name, table in stores.items()},
            options=self._options(self._table(document, "options", "")),
            policies=self._tables(document, "policies", ""),
            jobs={name: self._job(name, table) for name, table in jobs.items()},
            problems=tuple(self._problems),
        )

    # -- sections

    def _store(self, name: str, table: Mapping[str, Any]) -> NamedStore:
        section = f"[stores.{name}]"
        self._refuse_others(table, STORE_KEYS, section)
        said = {key: self._store_value(key, value, section) for key, value in table.items() if key in STORE_KEYS}
        url = said.pop("url", None)
        if (url is None) == (said.get("registry_config") is None):
            self._problem(section, "a store has either a url or a registry_config, which says it")
        keys = {"access_key_id", *STORE_SECRETS} & said.keys()
        if keys and not {"access_key_id", "secret_access_key"} <= keys:
            self._problem(section, "access_key_id and secret_access_key belong together")
        if keys and "profile" in said:
            self._problem(section, "a profile has its own keys: say it, or access_key_id and secret_access_key")
        return NamedStore(
            name=name,
            url=url,
            said={key: value for key, value in said.items() if value is not None},
            where=f"{section} of {self._place.path}",
        )

    def _store_value(self, key: str, value: Any, section: str) -> Any:
        if key == "path_style":
            if isinstance(value, bool):
                return value
            return self._problem(section, f"{key} is true or false, not {as_written(value)}")
        if key == "registry_debug_url":
            texts = [value] if isinstance(value, str) else value
            if isinstance(texts, list) and texts and all(isinstance(each, str) and each for each in texts):
                return texts
            return self._problem(section, f"{key} is a list of addresses, not {as_written(value)}")
        if key in STORE_TEXTS + STORE_SECRETS and isinstance(value, dict):
            return self._reference(key, value, section)
        if key in STORE_SECRETS:
            return self._problem(
                section, f'{key} is a secret: say {{ env = "NAME" }} or {{ file = "path" }} instead'
            )
        if not isinstance(value, str) or not value:
            return self._problem(section, f"{key} is text, not {as_written(value)}")
        if key == "url":
            return value if "://" in value else str(self._place.folder / value)
        return str(self._place.folder / value) if key in STORE_PATHS else value

    def _reference(self, key: str, value: Any, section: str) -> Reference | None:
        try:
            return reference_of(value, self._place.folder, may_run=self._place.may_run_commands)
        except InputError as error:
            self._problem(section, f"{key} {error}")
            return None

    def _options(self, table: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {"": {}}
        groups = {command.partition(" ")[0] for command in self._commands if " " in command}
        general: dict[str, Any] = {}
        for key, value in table.items():
            command = key.replace("_", "-")
            if isinstance(value, dict) and command in self._commands:
                found[command] = value
            elif isinstance(value, dict) and key in groups:
                for word, options in value.items():
                    command = f"{key} {word.replace('_', '-')}"
                    if isinstance(options, dict) and command in self._commands:
                        found[command] = options
                    else:
                        words = [each.partition(" ")[2] for each in self._commands if each.startswith(f"{key} ")]
                        self._problem(f"[options.{key}]", f"no command {key} {word}{suggestion(word, words)}")
            elif key in OF_THE_END:
                self._problem("[options]", f"{key} {NOT_OF_ALL}")
            elif key in SHARED:
                general[key] = value
            elif isinstance(value, dict):
                known = {each.partition(" ")[0] for each in self._commands}
                self._problem("[options]", f"no command {key}{suggestion(key, known)}")
            else:
                self._problem("[options]", f"{key} is no option of all commands{suggestion(key, SHARED)}")
        found[""] = general
        return found

    def _job(self, name: str, table: Mapping[str, Any]) -> Job:
        section = f"[jobs.{name}]"
        self._refuse_others(table, ("on_failure", "step", *JOB_OPTIONS), section)
        usual = self._on_failure(table.get("on_failure", "stop"), section)
        steps = table.get("step")
        if not isinstance(steps, list) or not steps or not all(isinstance(each, dict) for each in steps):
            self._problem(section, f"a job has steps, each below its own [[jobs.{name}.step]]")
            steps = []
        own = {key: value for key, value in table.items() if key in JOB_OPTIONS}
        return Job(
            name=name,
            steps=tuple(self._step(name, n, step, usual) for n, step in enumerate(steps, 1)),
            own=Step(
                number=0, command="run", on_failure=usual, options=own, where=f"{section} of {self._place.path}"
            ),
        )

    def _step(self, job: str, number: int, table: Mapping[str, Any], usual: OnFailure) -> Step:
        section = f"[jobs.{job}], step {number}"
        command = table.get("command")
        possible = self._commands - NO_STEPS
        if not isinstance(command, str):
            self._problem(section, 'it needs a command, such as command = "gc"')
        elif command not in possible:
            self._problem(section, f"no command {command!r} for a job{suggestion(command, possible)}")
        for key in ONCE & table.keys():
            self._problem(section, f"{key} is for one moment, which somebody has looked at: not for a job")
        return Step(
            number=number,
            command=command if isinstance(command, str) else "",
            on_failure=self._on_failure(table.get("on_failure", usual), section),
            options={key: value for key, value in table.items() if key not in ("command", "on_failure", *ONCE)},
            where=f"{section} of {self._place.path}",
        )

    def _on_failure(self, value: Any, section: str) -> OnFailure:
        if value == "continue":
            return "continue"
        if value != "stop":
            self._problem(section, f'on_failure is "stop" or "continue", not {as_written(value)}')
        return "stop"

    # -- tables and what is wrong with them

    def _table(self, document: Mapping[str, Any], key: str, section: str) -> Mapping[str, Any]:
        value = document.get(key, {})
        if isinstance(value, dict):
            return value
        self._problem(section, f"{key} is a table, not {as_written(value)}")
        return {}

    def _tables(self, document: Mapping[str, Any], key: str, section: str) -> dict[str, Mapping[str, Any]]:
        """Those of names."""
        found: dict[str, Mapping[str, Any]] = {}
        for name, table in self._table(document, key, section).items():
            if not _NAME.fullmatch(name):
                self._problem(f"[{key}]", f"{name!r} is no name: letters, digits, and then also - _ and .")
            elif not isinstance(table, dict):
                self._problem(f"[{key}]", f"{name} is a table of its own, [{key}.{name}], not {table!r}")
            else:
                found[name] = table
        return found

    def _refuse_others(self, table: Mapping[str, Any], known: Iterable[str], section: str) -> None:
        for key in table:
            if key not in known:
                self._problem(section, f"no such key: {key}{suggestion(key, known)}")

    def _refuse_passwords(self, value: Any, path: str) -> None:
        """A secret in a file is soon in a backup of it, or in its history."""
        if isinstance(value, dict):
            for key, each in value.items():
                self._refuse_passwords(each, f"{path}.{key}" if path else key)
        elif isinstance(value, list):
            for each in value:
                self._refuse_passwords(each, path)
        elif isinstance(value, str) and has_password(value):
            self._problem("", f'{path} holds a password: say {{ env = "NAME" }} or {{ file = "path" }} instead')

    def _problem(self, section: str, text: str) -> None:
        self._problems.append(f"{self._place.path}: {section} {text}" if section else f"{self._place.path}: {text}")
