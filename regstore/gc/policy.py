"""Which tags may go: retention rules, from a TOML file or from options. Pure: they are applied by `gc.retention`.

    # policy.toml
    delete_untagged = true            # what no tag reaches any more goes too; otherwise only the tags go
    protect = ["latest", "/v[0-9.]+/"]

    [[rule]]
    name = "pull requests"
    repositories = ["team/**", "sandbox/*"]
    tags = ["pr-*"]
    keep_younger_than = "14d"

    [[rule]]
    name = "archive"                  # says nothing of what may go: all that it is about stays
    repositories = ["archive/**"]

    [[rule]]
    name = "everything else"
    keep_newest = 10
    keep_younger_than = "30d"
    keep = ["stable-*"]
    newest_by = "created"

The first rule that is about a tag decides, by its repository and by its name; a tag that no rule is about stays. Keys
of a rule:

    name                for the output; otherwise "rule 1", "rule 2" …
    repositories        globs of repository names: `*` within a component, `**` across them; default ["**"]
    tags                patterns of the tags that the rule is about; default ["*"]
    keep_newest         the newest so many of these tags stay, in each repository
    keep_younger_than   tags younger than this stay: 12h, 30d, 4w
    keep                patterns of tags that stay, and do not count in keep_newest
    drop                patterns of the tags that may go; otherwise any, where keep_newest or keep_younger_than stands
    protect             patterns of tags that never go in these repositories, whichever rule is about them
    newest_by           what "newest" and "younger" go by: "tag", when the tag was last set (default), or "created",
                        when its image was made

A tag goes only when its rule takes it (by `drop`, `keep_newest` or `keep_younger_than`) and nothing keeps it: each key
that keeps wins over `drop`. A pattern is a glob, or a regular expression between slashes (RE2's: no look-around, no
back-references), and stands for the whole name. `protect` and `delete_untagged` above the rules hold everywhere.

Whatever the rules say, these stay: tags younger than the grace, tags of a protected repository, tags whose link is
damaged, and tags that name a digest (`sha256-<hex>`, `.sig`, `.att`, `.sbom`), which count nowhere and go with the
manifest that they name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from regstore.digest import Digest
from regstore.errors import InputError, InvalidDigest
from regstore.reference import is_name

NewestBy = Literal["tag", "created"]

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)", re.ASCII)
_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
#: What Python's regular expressions have and RE2's have not.
_NOT_RE2: Final = re.compile(r"\(\?(?:[=!>(]|<[=!]|P=|#)|(?<!\\)(?:\\\\)*\\(?:[1-9]|Z)|[*+?}]\+")
#: What the module's docstring shows.
EXAMPLE: Final = """\
# policy.toml
delete_untagged = true            # what no tag reaches any more goes too; otherwise only the tags go
protect = ["latest", "/v[0-9.]+/"]

[[rule]]
name = "pull requests"
repositories = ["team/**", "sandbox/*"]
tags = ["pr-*"]
keep_younger_than = "14d"

[[rule]]
name = "archive"                  # says nothing of what may go: all that it is about stays
repositories = ["archive/**"]

[[rule]]
name = "everything else"
keep_newest = 10
keep_younger_than = "30d"
keep = ["stable-*"]
newest_by = "created"
"""
#: What it says of a rule's keys.
KEYS: Final = """\
name                for the output; otherwise "rule 1", "rule 2" …
repositories        globs of repository names: `*` within a component, `**` across them; default ["**"]
tags                patterns of the tags that the rule is about; default ["*"]
keep_newest         the newest so many of these tags stay, in each repository
keep_younger_than   tags younger than this stay: 12h, 30d, 4w
keep                patterns of tags that stay, and do not count in keep_newest
drop                patterns of the tags that may go; otherwise any, where keep_newest or keep_younger_than stands
protect             patterns of tags that never go in these repositories, whichever rule is about them
newest_by           what "newest" and "younger" go by: "tag", when the tag was last set (default), or "created",
                    when its image was made
"""
_FILE_KEYS: Final = ("delete_untagged", "protect", "rule")


def example() -> str:
    """A file to begin with, and its keys as comments."""
    keys = "".join(f"#   {line}\n" for line in KEYS.splitlines())
    heading = (
        "# The first rule that is about a tag decides; a tag that no rule is about stays. Keys of a rule:\n#\n"
    )
    return f"{EXAMPLE}\n{heading}{keys}"


def parse_duration(text: str) -> int:
    """`24h`, `90m`, `7d`, `0s`: microseconds. InputError where it is none."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise InputError(f"{text!r} is not a duration such as 24h, 90m, 7d or 0s")
    return int(float(match[1]) * _SECONDS[match[2]] * 1_000_000)


@dataclass(frozen=True, slots=True)
class Pattern:
    """text: as it was written. regex: matches the whole name; Python and RE2 understand it alike."""

    text: str
    regex: str

    @classmethod
    def tag(cls, text: str) -> Pattern:
        """A glob of tags, or `/a regular expression/`."""
        if len(text) > 2 and text.startswith("/") and text.endswith("/"):
            regex = text[1:-1]
            if _NOT_RE2.search(regex):
                raise InputError(f"{text!r} has look-around, a back-reference or the like, which is not supported")
            try:
                re.compile(regex, re.ASCII)
            except re.error as error:
                raise InputError(f"{text!r} is not a regular expression: {error}") from error
            return cls(text, regex)
        if not text or "/" in text:
            raise InputError(f"{text!r} is not a pattern of tags (a glob such as pr-*, or /a regular expression/)")
        return cls(text, _glob(text))

    @classmethod
    def repository(cls, text: str) -> Pattern:
        """A glob of repository names. `a/**` is all below `a`; `**/a` is `a` at any depth."""
        if not text or text.startswith("/") or text.endswith("/") or "//" in text:
            raise InputError(f"{text!r} is not a pattern of repositories (a glob such as team/* or team/**)")
        return cls(text, _glob(text))

    def matches(self, name: str) -> bool:
        return re.fullmatch(self.regex, name, re.ASCII) is not None

    def __str__(self) -> str:
        return self.text


def _glob(text: str) -> str:
    regex, position = "", 0
    while position < len(text):
        if text.startswith("**/", position) and (position == 0 or text[position - 1] == "/"):
            regex, position = regex + "(?:.*/)?", position + 3
        elif text.startswith("**", position):
            regex, position = regex + ".*", position + 2
        elif text[position] == "*":
            regex, position = regex + "[^/]*", position + 1
        elif text[position] == "?":
            regex, position = regex + "[^/]", position + 1
        elif text[position] == "[":
            end = text.find("]", position + 2)
            if end < 0:
                raise InputError(f"{text!r} opens a [ that it does not close")
            chosen = text[position + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            if chosen.startswith(("!", "^")):
                chosen = "^/" + chosen[1:]
            regex, position = f"{regex}[{chosen}]", end + 1
        else:
            regex, position = regex + re.escape(text[position]), position + 1
    try:
        re.compile(regex)
    except re.error as error:
        raise InputError(f"{text!r} is not a glob: {error}") from error
    return regex


ANY_REPOSITORY: Final = (Pattern.repository("**"),)
ANY_TAG: Final = (Pattern.tag("*"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """See the module. keep_younger_than in microseconds."""

    name: str
    repositories: tuple[Pattern, ...] = ANY_REPOSITORY
    tags: tuple[Pattern, ...] = ANY_TAG
    keep_newest: int | None = None
    keep_younger_than: int | None = None
    keep: tuple[Pattern, ...] = ()
    drop: tuple[Pattern, ...] = ()
    protect: tuple[Pattern, ...] = ()
    newest_by: NewestBy = "tag"

    def __post_init__(self) -> None:
        if not self.repositories or not self.tags:
            raise InputError(f"rule {self.name!r} is about nothing: it needs patterns of repositories and of tags")
        if self.keep_newest is not None and self.keep_newest < 1:
            raise InputError(f"rule {self.name!r}: the newest 0 tags are none; to let every tag go, drop '*'")

    @property
    def takes(self) -> bool:
        """Whether any tag can go by it."""
        return bool(self.drop) or self.keep_newest is not None or self.keep_younger_than is not None

    @property
    def needs_time(self) -> bool:
        return self.keep_newest is not None or self.keep_younger_than is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """source: the file, or "" when it came from options."""

    rules: tuple[Rule, ...] = ()
    protect: tuple[Pattern, ...] = ()
    delete_untagged: bool = False
    source: str = ""

    @property
    def needs_time(self) -> bool:
        return any(rule.needs_time for rule in self.rules)

    @property
    def needs_created(self) -> bool:
        return any(rule.newest_by == "created" and rule.needs_time for rule in self.rules)

    @classmethod
    def load(cls, path: Path) -> Policy:
        """InputError names file, rule and key of what can't be understood."""
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the policy {path} can't be read: {error}") from error
        return cls.parse(text, source=str(path))

    @classmethod
    def parse(cls, text: str, *, source: str = "policy") -> Policy:
        import tomllib

        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{source} is not TOML: {error}") from error
        return cls.of(document, source=source)

    @classmethod
    def of(cls, document: Mapping[str, Any], *, source: str) -> Policy:
        """Of a file's tables."""
        reader = _Reader(source, document)
        reader.refuse_others(_FILE_KEYS)
        rules = document.get("rule", [])
        if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
            raise InputError(f"{source}: rules are tables, each under its own [[rule]]")
        policy = cls(
            rules=tuple(_rule(source, number, rule) for number, rule in enumerate(rules, 1)),
            protect=reader.patterns("protect", Pattern.tag),
            delete_untagged=reader.flag("delete_untagged"),
            source=source,
        )
        names = [rule.name for rule in policy.rules]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InputError(f"{source}: two rules are named {twice!r}")
        return policy


class _Reader:
    """Values of one TOML table, with errors that say where they stand."""

    def __init__(self, where: str, table: Mapping[str, Any]) -> None:
        self._where = where
        self._table = table

    def error(self, key: str, problem: str) -> InputError:
        return InputError(f"{self._where}, key {key!r}: {problem}")

    def refuse_others(self, known: Sequence[str]) -> None:
        for key in self._table:
            if key not in known:
                raise self.error(key, f"there is no such key; there are {', '.join(known)}")

    def text(self, key: str) -> str | None:
        value = self._table.get(key)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise self.error(key, f"must be text, not {value!r}")
        return value

    def flag(self, key: str) -> bool:
        value = self._table.get(key, False)
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, not {value!r}")
        return value

    def number(self, key: str) -> int | None:
        value = self._table.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise self.error(key, f"must be a whole number from 1, not {value!r}")
        return value

    def duration(self, key: str) -> int | None:
        value = self.text(key)
        try:
            return None if value is None else parse_duration(value)
        except InputError as error:
            raise self.error(key, str(error)) from error

    def patterns(self, key: str, parse: Any, default: tuple[Pattern, ...] = ()) -> tuple[Pattern, ...]:
        value = self._table.get(key)
        if value is None:
            return default
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise self.error(key, f"must be a pattern or a list of patterns, not {value!r}")
        try:
            return tuple(parse(text) for text in texts)
        except InputError as error:
            raise self.error(key, str(error)) from error

    def newest_by(self) -> NewestBy:
        value = self._table.get("newest_by", "tag")
        if value not in ("tag", "created"):
            raise self.error("newest_by", f'must be "tag" or "created", not {value!r}')
        return cast(NewestBy, value)


def _rule(source: str, number: int, table: Mapping[str, Any]) -> Rule:
    plain = _Reader(f"{source}, rule {number}", table)
    name = plain.text("name")
    reader = _Reader(f"{source}, rule {number} ({name})" if name else f"{source}, rule {number}", table)
    reader.refuse_others(tuple(Rule.__dataclass_fields__))
    return Rule(
        name=name or f"rule {number}",
        repositories=reader.patterns("repositories", Pattern.repository, ANY_REPOSITORY),
        tags=reader.patterns("tags", Pattern.tag, ANY_TAG),
        keep_newest=reader.number("keep_newest"),
        keep_younger_than=reader.duration("keep_younger_than"),
        keep=reader.patterns("keep", Pattern.tag),
        drop=reader.patterns("drop", Pattern.tag),
        protect=reader.patterns("protect", Pattern.tag),
        newest_by=reader.newest_by(),
    )


@dataclass(frozen=True, slots=True)
class BrokenScope:
    """Where revisions that can't be read may go: everywhere, in one repository, or one revision of it."""

    name: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> BrokenScope:
        """`all`, `team/app` or `team/app@sha256:…`. A repository that is itself called `all` is `all@<digest>` only."""
        if text == "all":
            return cls()
        name, at, digest = text.partition("@")
        try:
            if not is_name(name):
                raise InvalidDigest(f"{name[:300]!r} is not a repository name")
            return cls(name, Digest.parse(digest) if at else None)
        except InvalidDigest as error:
            raise InputError(f"{text!r} is not all, a repository or repository@digest: {error}") from error

    def __str__(self) -> str:
        return "all" if self.name is None else f"{self.name}@{self.digest}" if self.digest else self.name
