"""Options from a file and from the environment; names of stores; what is refused."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regstore.cli.config import ambient
from regstore.cli.config.current import Current, holding, load
from regstore.cli.config.lines import command_line
from regstore.cli.config.look import Look, every_command, looks_of, names_of, variable
from regstore.cli.config.model import _Reader, parse
from regstore.cli.config.place import Place, find
from regstore.cli.config.reference import Reference
from regstore.cli.config.sources import Elsewhere, given_elsewhere
from regstore.cli.config.stub import Told, context_of
from regstore.cli.options import SecondStore
from regstore.cli.settings import StoreSettings
from regstore.errors import InputError
from tests.cli.conftest import Run, Said
from tests.servers.s3 import S3Server

USAGE = 2
EVERY = {name: {look.word: look for look in looks_of(each.load())} for name, each in every_command().items()}
Write = Callable[[str], Path]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and a user without a configuration."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return folder


@pytest.fixture
def write(here: Path) -> Write:
    """`write(text)`: as ./regstore.toml."""

    def write(text: str) -> Path:
        path = here / "regstore.toml"
        path.write_text(text)
        path.chmod(0o644)
        return path

    return write


def refused(said: Said, *words: str) -> None:
    assert said.code == USAGE, said
    assert said.err.startswith(("regstore: ", "Usage: ")), said
    assert "Traceback" not in said.err
    for word in words:
        assert word in said.err, said.err


# -- names of options


def test_every_option_has_a_name_of_its_own() -> None:
    names: dict[str, tuple[str, str]] = {}
    for command, options in EVERY.items():
        if command == "restore":  # is `backup restore`
            continue
        assert len({look.name for look in options.values()}) == len(options), command
        for word in options:
            assert names.setdefault(variable(command, word), (command, word)) == (command, word)
    shared = {variable("", word) for word in ambient.SHARED}
    assert not shared & names.keys()
    assert not {variable("", word) for word in ambient.SHARED} & {"REGSTORE_CONFIG", "REGSTORE_S3_TRANSPORT"}


def test_an_option_is_called_as_the_help_calls_it() -> None:
    gc = EVERY["gc"]
    assert gc["keep_newest"].shown == "--keep-newest"
    assert (gc["json"].name, gc["json"].kind) == ("as_json", "flag")
    assert EVERY["migrate"]["all"].name == "everything"
    assert EVERY["migrate"]["dst"].name == "target"
    assert EVERY["backup check"]["backup"].name == "store"
    assert (gc["settle"].kind, gc["trash_days"].kind, gc["policy"].kind) == ("text", "number", "path")
    assert gc["keep_tag"].many
    assert variable("backup prune", "keep_last") == "REGSTORE_BACKUP_PRUNE_KEEP_LAST"


def test_lists_of_what_is_ambient_name_options_that_there_are() -> None:
    words = {word for options in EVERY.values() for word, look in options.items() if not look.argument}
    lists = ambient.OPEN | ambient.AT_LEAST | ambient.AT_MOST | ambient.ONCE | ambient.CHOICES.keys()
    # Those of the run's end come with the options that tell of it.
    assert lists - words <= ambient.OF_THE_END | {"log_format", "verbose"}
    groups = {name.partition(" ")[0].replace("-", "_") for name in EVERY}
    assert not ambient.SHARED & groups, "in [options] a command and an option would have one name"


DANGEROUS = {
    "acl", "sse", "sse_kms_key_id", "storage_class", "max_age", "time_limit",
    "allow_empty", "allow_gone", "apply_settings", "break_lock", "copied_times", "create", "delete",
    "delete_untagged", "drop_broken_revisions", "drop_broken_tags", "drop_tag", "follow", "force", "forget",
    "keep_daily", "keep_last", "keep_monthly", "keep_newest", "keep_weekly", "keep_within", "keep_younger_than",
    "no_trash", "offline", "overwrite_tags", "policy", "recursive", "registry_cache", "registry_config",
    "registry_debug_url", "repair", "repair_from", "restart_command", "restarted_after", "restore_links", "snapshot",
    "tags_are_complete", "unlinked_blobs", "unmatched", "untagged_repositories", "without_password", "yes",
}  # fmt: skip


def test_what_makes_a_run_dangerous_is_not_ambient() -> None:
    words = {word for options in EVERY.values() for word in options}
    assert words >= DANGEROUS
    assert not {word for word in DANGEROUS if ambient.is_ambient(word)}


@pytest.mark.parametrize("word", sorted(DANGEROUS))
def test_it_is_refused_from_the_environment_and_the_file(word: str, here: Path) -> None:
    command = next(name for name, options in EVERY.items() if word in options)
    look = EVERY[command][word]
    section = "options." + command.replace(" ", ".").replace("-", "_")
    text = {"flag": "true", "number": "1"}.get(look.kind, '"x"')
    told = Told(configuration=parse(f"[{section}]\n{word} = {text}", place(here), EVERY))
    with pytest.raises(InputError, match="on the command line, or in a step of a job"):
        context_of(command, told)
    with mock.patch.dict(os.environ, {variable(command, word): "1"}):
        with pytest.raises(InputError, match=f"{variable(command, word)}: .* on the command line"):
            context_of(command, Told(configuration=None))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("REGSTORE_GC_GRACE", "23h", ("23h is less careful than 24h",)),
        ("REGSTORE_GC_SETTLE", "0s", ("less careful",)),
        ("REGSTORE_GC_MAX_DELETE", "51%", ("less careful than 50%",)),
        ("REGSTORE_GC_TRASH_DAYS", "6", ("less careful than 7",)),
        ("REGSTORE_GC_GRACE", "soon", ("is no value of --grace",)),
        ("REGSTORE_VERIFY_SERVER_CHECKSUMS", "trust", ("only ignore or report",)),
        ("REGSTORE_GC_SETTEL", "2m", ("did you mean REGSTORE_GC_SETTLE?",)),
        ("REGSTORE_GC_DRY_RUN", "perhaps", ("1 or 0",)),
        ("REGSTORE_DRY_RUN", "1", ("REGSTORE_GC_DRY_RUN",)),
        ("REGSTORE_YES", "1", ("REGSTORE_YES: --yes says", "on the command line")),
        ("REGSTORE_CONCURRENCY", "many", ("--concurrency", "as REGSTORE_CONCURRENCY says")),
    ],
)
def test_wrong_variables(name: str, value: str, words: tuple[str, ...], run: Run, here: Path) -> None:
    with mock.patch.dict(os.environ, {name: value}):
        refused(run("verify" if "VERIFY" in name else "gc", here), *words)


def test_a_variable_that_makes_a_run_more_careful_is_taken(here: Path) -> None:
    careful = {"REGSTORE_GC_GRACE": "25h", "REGSTORE_GC_MAX_DELETE": "1%", "REGSTORE_GC_DRY_RUN": "yes"}
    services = {
        "REGSTORE_GC_SERVICE_HOST": "10.0.0.1",
        "REGSTORE_GC_PORT_80_TCP_ADDR": "10.0.0.1",
        "REGSTORE_X": "1",
    }
    with mock.patch.dict(os.environ, careful | services):
        params = context_of("gc", Told(configuration=None)).params
    assert (params["grace"], params["max_delete"], params["dry_run"]) == (25 * 3_600_000_000, 0.01, True)


# -- precedence

#: Texts that say the value of an option, from least to most careful where that counts.
VALUES = {"settle": ["60s", "61s", "62s", "63s", "64s"], "concurrency": ["1", "2", "3", "4", "5"]}
VALUES |= {"profile": list("abcde"), "inventory": [f"/x/{name}" for name in "abcde"]}
WHO = ("command line", "step", "variable", "shared variable", "section", "shared section")


@given(word=st.sampled_from(sorted(VALUES)), who=st.sets(st.sampled_from(WHO)), order=st.permutations(range(5)))
def test_the_first_that_says_it_counts(word: str, who: set[str], order: list[int]) -> None:
    if word not in ambient.SHARED:
        who -= {"shared variable", "shared section"}
    texts = {name: VALUES[word][order[index % 5]] for index, name in enumerate(WHO)}
    look = EVERY["gc"][word]

    def toml(name: str) -> str:
        return f"{word} = {texts[name] if look.kind == 'number' else repr(texts[name])}\n" if name in who else ""

    text = f"[options]\n{toml('shared section')}[options.gc]\n{toml('section')}"
    text += f"[[jobs.j.step]]\ncommand = 'gc'\nstore = '/x'\n{toml('step')}"
    found = parse(text, place(Path("/etc")), EVERY)
    assert not found.problems
    environ = {variable("gc", word): texts["variable"]} if "variable" in who else {}
    environ |= {variable("", word): texts["shared variable"]} if "shared variable" in who else {}
    said = {look.name} if "command line" in who else set()
    elsewhere = Elsewhere(environ=environ, configuration=found, step=found.jobs["j"].steps[0])
    got = given_elsewhere("gc", EVERY["gc"].values(), elsewhere, said).get(look.name)
    first = next((name for name in WHO if name in who), "command line")
    assert (got.value if got else texts["command line"]) == texts[first]
    assert (got is None) == (first == "command line")


def place(folder: Path) -> Place:
    return Place(path=folder / "regstore.toml", how="named")


# -- stores by name


def test_a_name_is_a_store(demo_registry: Path, run: Run, write: Write) -> None:
    write(f"[stores.prod]\nurl = '{demo_registry}'")
    assert run("ls", "prod").out == run("ls", "@prod").out == run("ls", demo_registry).out
    assert run("tags", "prod", "team/app").out == run("tags", demo_registry, "team/app").out


def test_what_is_not_clear_is_refused(demo_registry: Path, run: Run, write: Write, here: Path) -> None:
    write(f"[stores.prod]\nurl = '{demo_registry}'")
    refused(run("ls", "prdo"), "no store 'prdo'", "did you mean prod?")
    (here / "prod").mkdir()
    refused(run("ls", "prod"), "@prod", "./prod")
    assert run("ls", "@prod").code == 0
    assert run("ls", "./prod").code == 1  # an empty folder
    # Nothing is made where a name was meant.
    refused(run("backup", "create", "@prod", "bakcups"), "no store 'bakcups'")
    assert not (here / "bakcups").exists()
    refused(run("ls", "@other"), "no store 'other'")


def test_without_stores_a_word_is_a_folder_and_at_is_none(run: Run, here: Path, demo_copy: Path) -> None:
    demo_copy.rename(here / "prod")
    assert run("ls", "prod").code == 0
    refused(run("ls", "@prod"), "there is none")


def test_both_places_by_name(demo_copy: Path, run: Run, write: Write, here: Path) -> None:
    config = here / "config.yml"
    config.write_text(f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {demo_copy}\n")
    write("[stores.prod]\nregistry_config = 'config.yml'\n[stores.backups]\nurl = 'kept'\n")
    assert run("backup", "create", "prod", "backups", "--create").code == 0
    assert (here / "kept").is_dir()
    assert run("backup", "check", "backups").code == 0
    refused(run("backup", "create", "backups", "prod"), "registry's own store")
    refused(run("backup", "check", "prod"), "not a backup")
    for command in ("locks", "ls", "du"):
        refused(run(command, "prod", "--registry-config", config), "two stores")


def opened(words: list[str], environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, run: Run) -> list[Any]:
    """The places that a command opens, and how each is reached; nothing is asked."""
    from regstore.storage import opening

    seen: list[Any] = []

    def note(url: str, options: Any) -> Any:
        seen.append((url, options.endpoint_url, options.region, options.profile, options.path_style))
        raise InputError("enough")

    monkeypatch.setattr(opening, "open_storage", note)
    with mock.patch.dict(os.environ, environ):
        run(*words)
    return seen


S3 = """
[stores.prod]
url = "s3://one"
endpoint_url = "http://prod"
path_style = true
[stores.away]
url = "s3://two"
region = "r2"
[options]
region = "general"
endpoint_url = "http://general"
[options.migrate]
dst_profile = "p2"
"""


def test_a_name_is_one_place_whatever_is_around(monkeypatch: pytest.MonkeyPatch, run: Run, write: Write) -> None:
    write(S3)
    around = {"REGSTORE_ENDPOINT_URL": "http://around", "REGSTORE_PROFILE": "p"}
    assert opened(["ls", "prod"], around, monkeypatch, run) == [("s3://one", "http://prod", "general", "p", True)]
    said = ["ls", "prod", "--endpoint-url", "http://said"]
    assert opened(said, around, monkeypatch, run) == [("s3://one", "http://said", "general", "p", True)]
    assert opened(["ls", "s3://x"], around, monkeypatch, run) == [("s3://x", "http://around", "general", "p", None)]
    assert opened(["backup", "check", "away"], {}, monkeypatch, run) == [
        ("s3://two", "http://general", "r2", None, None)
    ]
    assert opened(["ls", "s3://x"], {}, monkeypatch, run) == [("s3://x", "http://general", "general", None, None)]


@pytest.mark.parametrize("name", ["REGSTORE_ENDPOINT_URL", "REGSTORE_LS_ENDPOINT_URL"])
def test_the_environment_says_of_no_named_bucket_where_it_is(
    name: str, monkeypatch: pytest.MonkeyPatch, run: Run, write: Write
) -> None:
    write("[stores.away]\nurl = 's3://two'\n")
    monkeypatch.setenv(name, "http://around")
    run("ls", "away").failed(2, f"says no endpoint_url, and {name} would make it a bucket of http://around")
    said = ["ls", "away", "--endpoint-url", "http://said"]
    assert opened(said, {}, monkeypatch, run) == [("s3://two", "http://said", None, None, None)]


# -- the file: where, whose, and what is wrong with it


def test_the_first_file_counts(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system, user = tmp_path / "etc.toml", tmp_path / "config/regstore/regstore.toml"
    monkeypatch.setattr("regstore.cli.config.place.SYSTEM", system)
    user.parent.mkdir(parents=True)

    def how(named: str | None = None, **environ: str) -> str:
        found = find(named, {"XDG_CONFIG_HOME": str(tmp_path / "config")} | environ)
        return "" if found is None else f"{found.how} {found.path.name}"

    assert how() == ""
    for path, expected in (
        (system, "system etc.toml"),
        (user, "user regstore.toml"),
        (here / "regstore.toml", "here regstore.toml"),
    ):
        path.touch()
        assert how() == expected
    (here / "regstore.toml").unlink()
    (here / ".config/regstore").mkdir(parents=True)
    (here / ".config/regstore/regstore.toml").touch()
    with mock.patch.dict(os.environ, {"HOME": ""}):
        assert how(XDG_CONFIG_HOME=".config") == "system etc.toml"
    assert how(REGSTORE_CONFIG="/a.toml") == "named a.toml"
    assert how("/b.toml", REGSTORE_CONFIG="/a.toml") == "named b.toml"


def test_a_file_may_be_named_before_and_after_the_command(demo_registry: Path, run: Run, here: Path) -> None:
    (here / "other.toml").write_text(f"[stores.prod]\nurl = '{demo_registry}'")
    expected = run("ls", demo_registry).out
    assert run("--config", "other.toml", "ls", "prod").out == expected
    assert run("ls", "prod", "--config", "other.toml").out == expected
    assert run("ls", "--config=other.toml", "prod").out == expected
    with mock.patch.dict(os.environ, {"REGSTORE_CONFIG": "other.toml"}):
        assert run("ls", "prod").out == expected
    # `inspect --config` is about an image.
    assert run("inspect", demo_registry, "team/app:1.1", "--config").code == 0
    refused(run("ls", "prod", "--config", "missing.toml"), "missing.toml", "No such file")
    assert run("--config", "/dev/null", "ls", demo_registry).code == 0


@pytest.mark.parametrize("mode", [0o666, 0o664])
def test_a_file_that_others_may_write_is_refused(mode: int, run: Run, write: Write, here: Path) -> None:
    write("").chmod(mode)
    for words in (("ls", here), ("--config", "regstore.toml", "ls", here)):
        refused(run(*words), "may be written by", "chmod go-w")


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_strangers_file_is_a_trap_unless_it_is_named(demo_registry: Path, run: Run, write: Write) -> None:
    path = write(f"[stores.prod]\nurl = '{demo_registry}'")
    os.chown(path, 4711, -1)
    refused(run("ls", demo_registry), "belongs to user 4711")
    refused(run("ls", "prod"), "belongs to user 4711")
    assert run("--config", path, "ls", "prod").code == 0
    # A link of theirs to a file of ours is theirs.
    other = path.with_name("ours.toml")
    other.write_text("")
    path.unlink()
    path.symlink_to(other)
    os.lchown(path, 4711, -1)
    refused(run("ls", demo_registry), "belongs to user 4711")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[stores", ("is not TOML",)),
        ("[store.prod]", ("no such key: store", "did you mean stores?")),
        ("[stores.prod]\nregoin = 'x'", ("[stores.prod]", "regoin", "did you mean region?")),
        ("[stores.prod]\nregion = 'x'", ("either a url or a registry_config",)),
        ("[stores.prod]\nurl = 7", ("url is text",)),
        ("[stores.'a b']\nurl = '/x'", ("is no name",)),
        ("[options]\nconcurrency = 'many'", ("concurrency is a whole number",)),
        ("[options]\nconcurrency = true", ("concurrency is a whole number",)),
        ("[options]\nconcurrency = 0", ("--concurrency", "[options]")),
        ("[options]\nping_url = 'https://x/y'", ("ping_url is of one run",)),
        ("[options.gc]\nmetrics_file = 'x'", ("metrics_file is of one run",)),
        ("[options]\nsettle = '2m'", ("no option of all commands",)),
        ("[options.verfiy]\nsettle = '2m'", ("no command verfiy", "did you mean verify?")),
        ("[options.backup.craete]\nsse = 'x'", ("did you mean create?",)),
        ("[options.gc]\nsettel = '2m'", ("did you mean settle?",)),
        ("[options.gc]\nsettle = 120", ("settle is text, such as '60s'",)),
        ("[options.gc]\ngrace = { env = 'HOME' }", ("grace",)),
        ("[options.gc]\ndry_run = 'yes'", ("dry_run is true or false",)),
        ("[stores.p]\nurl = '/x'\nredis_url = 'redis://:geheim@h/0'", ("stores.p.redis_url holds a password",)),
        ("[stores.p]\nurl = '/x'\nredis_url = 'redis://:ge@heim@h/0'", ("stores.p.redis_url holds a password",)),
        ("[stores.p]\nurl = '/x'\nredis_url = 'redis://h/0?password=geheim'", ("redis_url holds a password",)),
        ("[[jobs.n.step]]\ncommand = 'verfiy'", ("[jobs.n], step 1", "did you mean verify?")),
        ("[[jobs.n.step]]\ncommand = 'gc'\nbreak_lock = true", ("break_lock is for one moment",)),
        ("[jobs.n]\non_failure = 'go'\nstep = []", ("on_failure")),
        ("[jobs.n]", ("a job has steps",)),
    ],
)
def test_what_is_wrong_in_the_file(text: str, words: tuple[str, ...], run: Run, write: Write, here: Path) -> None:
    write(text)
    said = run("gc", here)
    refused(said, *words)
    assert "geheim" not in said.err
    refused(run("config", "check"), *words)


def test_a_file_that_cant_be_read_is_no_missing_one(run: Run, here: Path) -> None:
    (here / "regstore.toml").mkdir()
    refused(run("ls", here), "regstore.toml", "can't be read")
    (here / "regstore.toml").rmdir()
    (here / "regstore.toml").write_bytes(b"\xff")
    refused(run("ls", here), "not UTF-8")


def test_help_and_init_do_without_a_configuration(run: Run, write: Write) -> None:
    path = write("[stores")
    assert run("ls", "--help").code == 0
    assert "TOML" not in run("init", path.parent / "nowhere", "--check").err
    refused(run("--config", path, "init", path.parent / "nowhere", "--check"), "not TOML")


# -- references


def test_a_value_that_looks_like_help_is_none(run: Run, write: Write, here: Path) -> None:
    write("[stores")
    for words in (("--region", "--help"), ("--", "--help")):
        refused(run("ls", here, *words), "is not TOML")


def test_secrets_come_by_reference(write: Write, here: Path) -> None:
    (here / "secret").write_text("redis://:geheim@h/0\n")
    commands = {
        "env": "{ env = 'SECRET' }",
        "file": "{ file = 'secret' }",
        "command": f"{{ command = ['{sys.executable}', '-c', 'print(\"redis://:geheim@h/0\")'] }}",
    }
    for kind, reference in commands.items():
        path = write(f"[[jobs.n.step]]\ncommand = 'gc'\nstore = '/x'\nredis_url = {reference}")
        for named in (None, path):
            found = load(named, {})
            assert found is not None
            told = Told(configuration=found, step=found.jobs["n"].steps[0])
            with mock.patch.dict(os.environ, {"SECRET": "redis://:geheim@h/0"}):
                if kind == "command" and named is None:  # whoever made the folder would say what runs
                    with pytest.raises(InputError, match="only found in the current folder"):
                        context_of("gc", told)
                else:
                    assert context_of("gc", told).params["redis_url"] == "redis://:geheim@h/0"


def test_a_reference_to_nothing_is_told(write: Write, run: Run) -> None:
    path = write("[stores.p]\nurl = '/x'\nredis_url = { env = 'NOT_THERE' }")
    refused(run("--config", path, "gc", "p", "--yes"), "[stores.p]", "no NOT_THERE")
    refused(run("config", "check"), "no NOT_THERE")


# -- policies, and the two commands


def test_a_policy_can_stand_in_the_file(demo_registry: Path, run: Run, write: Write, tmp_path: Path) -> None:
    rules = "[[{0}rule]]\nname = 'few'\nkeep_newest = 1\n"
    (tmp_path / "rules.toml").write_text(rules.format(""))
    write(rules.format("policies.few."))
    by_file = run("gc", demo_registry, "--dry-run", "--policy", tmp_path / "rules.toml")
    assert "few" in by_file.out
    for name in ("few", "@few"):
        assert run("gc", demo_registry, "--dry-run", "--policy", name).out == by_file.out
    refused(run("gc", demo_registry, "--dry-run", "--policy", "fwe"), "no policy 'fwe'", "did you mean few?")
    write("[policies.few]\nkeep = 3")
    refused(run("config", "check"), "[policies.few]", "keep")


def test_the_policys_example_is_one(run: Run) -> None:
    from regstore.gc import policy

    said = run("gc", "--policy-example")
    assert said.code == 0
    assert len(policy.Policy.parse(said.out).rules) == 3
    # As the module has it; and README says what each key is for.
    for text in (policy.EXAMPLE, policy.KEYS):
        assert textwrap.indent(text.rstrip(), "    ") in (policy.__doc__ or "")
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for key in policy.Rule.__dataclass_fields__.keys() - {"name"}:
        assert f"#   {key} " in said.out
        assert f"`{key}" in readme


def test_a_list_of_nothing_is_not_all(run: Run, write: Write, here: Path) -> None:
    write("[[jobs.n.step]]\ncommand = 'gc'\nstore = '/x'\ndrop_tag = ['pr-*']\nrepo = []\n")
    refused(run("config", "check"), "[jobs.n], step 1 repo is an empty list")
    refused(run("run", "n"), "[jobs.n], step 1 repo is an empty list")


def test_show_says_where_each_value_is_from(run: Run, write: Write) -> None:
    write(S3)
    with mock.patch.dict(os.environ, {"REGSTORE_LS_LONG": "1", "REGSTORE_PROFILE": "p"}):
        options = {
            each["option"]: each
            for each in run("config", "show", "ls", "--store", "prod", "--json").json["options"]
        }
        assert run("config", "show", "ls").code == 0
    said = {name: (options[name]["value"], options[name]["source"]) for name in ("long", "profile", "region")}
    assert said == {
        "long": (True, "REGSTORE_LS_LONG"),
        "profile": ("p", "REGSTORE_PROFILE"),
        "region": ("general", "[options] of regstore.toml"),
    }
    assert options["endpoint_url"]["source"] == "[stores.prod] of regstore.toml"
    assert options["concurrency"]["source"] == "default"
    write("[[jobs.n.step]]\ncommand = 'ls'\nstore = '/x'\n")
    assert run("config", "show", "--json").json["jobs"]["n"]["steps"][0]["options"] == {"store": "/x"}


def test_show_and_check_hide_secrets(run: Run, write: Write) -> None:
    write(
        "[stores.p]\nurl = '/x'\nredis_url = { env = 'SECRET' }\n"
        "[[jobs.n.step]]\ncommand = 'gc'\nstore = 'p'\nredis_url = { env = 'SECRET' }\n"
    )
    with mock.patch.dict(os.environ, {"SECRET": "geheim", "REGSTORE_GC_PING_URL": "https://hc-ping.com/geheim"}):
        for words in (["show"], ["show", "--json"], ["show", "gc"], ["show", "gc", "--store", "p"], ["check"]):
            said = run("config", *words)
            assert said.code == 0, said
            assert "geheim" not in said.out + said.err
            assert words[0] == "check" or "the variable SECRET" in said.out or words == ["show", "gc"]
        said = run("run", "n", "--dry-run")
        assert "geheim" not in said.out
        assert "the variable SECRET" in said.out


def test_what_is_secret_is_shown_nowhere_also_where_it_should_not_be(run: Run, write: Write) -> None:
    write(
        "[stores.p]\nurl = 's3://me:ge@heim@bucket'\n"
        "[[jobs.n.step]]\ncommand = 'gc'\nstore = 'q'\nregistry_debug_url = ['http://me:geheim@h:5001']\n"
    )
    for words in (["config", "show"], ["config", "show", "--json"]):
        said = run(*words)
        assert (said.code, "heim" in said.out + said.err) == (0, False), said
    refused(run("config", "check"), "stores.p.url holds a password")
    write("[[jobs.n.step]]\ncommand = 'gc'\nstore = '/x'\nredis_url = ['redis://:geheim@h']\n")
    said = run("config", "check")
    assert "redis_url is text, not ['redis://:***@h']" in said.err and "geheim" not in said.err
    write("[[jobs.n.step]]\ncommand = 'ls'\nstore = '/x'\nping_url = 'https://hc-ping.com/geheim'\n")
    assert run("run", "n", "--dry-run").out == "regstore ls /x --ping-url 'https://hc-ping.com/***'\n"


def test_check_tells_of_variables_that_say_nothing(run: Run, here: Path) -> None:
    with mock.patch.dict(os.environ, {"REGSTORE_REGOIN": "x"}):
        refused(run("config", "check"), "REGSTORE_REGOIN", "did you mean REGSTORE_REGION?")
    assert run("config", "check").code == 0


def test_check_tells_of_steps_that_would_ask(run: Run, write: Write) -> None:
    steps = {
        "verify": "drop_broken_tags",
        "migrate": "overwrite_tags",
        "backup prune": "",
        "doctor": "",
    }
    text = "[stores.p]\nurl = '/x'\n"
    for command, option in steps.items():
        place = "backup" if command.startswith("backup") else "store"
        text += f"[[jobs.n.step]]\ncommand = '{command}'\n{place} = 'p'\n"
        text += f"{option} = true\n" if option else ""
        text += "dst = '/y'\n" if command == "migrate" else "keep_last = 1\n" if place == "backup" else ""
    write(text)
    said = run("config", "check")
    told = [command for command in steps if f"without yes = true {command} removes nothing" in said.err + said.out]
    assert told == ["verify", "migrate", "backup prune"], said


@pytest.mark.long
def test_nothing_of_it_is_loaded_without_a_file(tmp_path: Path) -> None:
    program = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    program += "from regstore.cli import main; main()"
    command = [sys.executable, "-c", program, "ls", str(tmp_path)]
    environ = {"PATH": "", "XDG_CONFIG_HOME": str(tmp_path)}
    loaded = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environ).stderr
    assert "regstore.cli.config.stub" in loaded
    for heavy in ("tomllib", "regstore.cli.config.model", "regstore.cli.config.sources"):
        assert heavy not in loaded.split()


def test_looks_are_of_every_kind() -> None:
    assert all(isinstance(look, Look) for options in EVERY.values() for look in options.values())
    assert names_of("restore") == ("restore", "backup restore")
    assert names_of("backup restore") == ("backup restore", "restore")


def test_a_second_place_by_name_says_all_itself(write: Write) -> None:
    path = write(S3)
    found = load(path, {})
    context = context_of("migrate", Told(configuration=found), ["prod", "away"])
    first = StoreSettings(store="prod", endpoint_url="http://general")
    second = SecondStore(dst_profile=context.params["dst_profile"])
    with holding(Current(configuration=found)):
        there = second.settings(first, "away")
        # What the command line says of it comes first; an address is as the first place, as ever.
        assert second.settings(first, "s3://x").endpoint_url == "http://prod"
        assert SecondStore().settings(first, "s3://x").path_style is True
    assert (there.store, there.region, there.endpoint_url, there.profile) == ("s3://two", "r2", None, "p2")
    with holding(Current(configuration=found, said=frozenset({"dst_region"}))):
        assert SecondStore(dst_region="said").settings(first, "away").region == "said"
        assert SecondStore(dst_region="said").settings(first, "@away").region == "said"


def test_a_store_may_have_keys_of_its_own(write: Write, run: Run) -> None:
    own = "access_key_id = 'AKIA'\nsecret_access_key = { env = 'SECRET' }"
    found = load(write(f"[stores.prod]\nurl = 's3://one'\n{own}\n[stores.away]\nurl = 's3://two'\n"), {})
    assert found is not None
    assert not found.problems
    keys = {"access_key": "AKIA", "secret_key": "geheim"}
    first = StoreSettings(store="prod")
    with holding(Current(configuration=found)), mock.patch.dict(os.environ, {"SECRET": "geheim"}):
        assert first.placed().keys_to_sign() == keys
        assert "geheim" not in repr(first.placed())
        assert SecondStore().settings(first, "s3://x").keys_to_sign() == keys
        assert SecondStore(dst_profile="p").settings(first, "s3://x").keys_to_sign() == {}
        assert SecondStore().settings(first, "away").keys_to_sign() == {}
        assert SecondStore().settings(StoreSettings(store="away"), "prod").keys_to_sign() == keys
        assert (
            run("config", "show", "--json").json["stores"]["prod"]["secret_access_key"]
            == "(from the variable SECRET)"
        )
    with holding(Current(configuration=found, said=frozenset({"profile"}))):
        assert first.placed().keys_to_sign() == {}
    for wrong, words in (
        ("access_key_id = 'AKIA'\nsecret_access_key = 'geheim'", "secret_access_key is a secret"),
        ("access_key_id = 'AKIA'", "belong together"),
        (own + "\nprofile = 'p'", "a profile has its own keys"),
    ):
        write(f"[stores.prod]\nurl = 's3://one'\n{wrong}")
        refused(run("ls", "prod"), words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("regstore gc p", ["prod", "prov"]),
        ("regstore gc @pro", ["@prod", "@prov"]),
        ("regstore backup create prod b", ["backups"]),
        ("regstore verify prod --repair-from pr", ["prod", "prov"]),
        ("regstore run n", ["nightly"]),
        ("regstore gc /srv/p", []),
    ],
)
def test_shells_complete_names(words: str, expected: list[str], write: Write, run: Run) -> None:
    stores = "".join(f"[stores.{name}]\nurl = '/x'\n" for name in ("prod", "prov", "backups"))
    write(f"{stores}[[jobs.nightly.step]]\ncommand = 'gc'\nstore = 'prod'\n")
    asked = {"_REGSTORE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    with mock.patch.dict(os.environ, asked):
        assert run().out.split() == expected


_WORDS = """stores options policies jobs prod gc backup create step command store url region settle policy redis_url env
file on_failure keep_tag trash_days rule yes"""
WORDS = st.sampled_from(sorted(_WORDS.split()))
VALUE = st.recursive(
    st.booleans()
    | st.integers()
    | st.floats()
    | st.dates()
    | st.sampled_from(["gc", "prod", "1s", "", "a\0b", "é"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "stores": st.dictionaries(WORDS, VALUE, max_size=2) | VALUE,
            "options": st.dictionaries(WORDS, VALUE, max_size=3) | VALUE,
            "jobs": st.dictionaries(
                WORDS, st.fixed_dictionaries({"step": st.lists(st.dictionaries(WORDS, VALUE))}), max_size=1
            ),
            "policies": VALUE,
        },
    )
)
def test_no_document_is_beyond_words(document: dict[str, Any]) -> None:
    """Whatever stands there is understood, or told of."""
    found = _Reader(place(Path("/etc")), frozenset(EVERY)).read(document)
    assert all(problem.startswith("/etc/regstore.toml: ") for problem in found.problems)
    steps = [step for job in found.jobs.values() for step in job.steps if step.command in EVERY]
    for command, step in [("gc", None), ("backup create", None), *((step.command, step) for step in steps)]:
        with contextlib.suppress(InputError):
            elsewhere = Elsewhere(environ={}, configuration=found, step=step)
            got = given_elsewhere(command, EVERY[command].values(), elsewhere)
            assert all(isinstance(each.value, str | bool | list | Reference) for each in got.values())
        if step is not None and not found.problems:
            with contextlib.suppress(InputError):
                command_line(step, found)


def test_on_s3_by_name_with_keys_by_reference(
    moto: S3Server, moto_bucket: str, demo_copy: Path, write: Write, run: Run, here: Path
) -> None:
    """Nothing of AWS is around."""
    reached = f"endpoint_url = '{moto.endpoint_url}'\nregion = 'us-east-1'\n"
    keys = "access_key_id = { env = 'OUR_KEY' }\nsecret_access_key = { file = 'secret' }\n"
    (here / "secret").write_text("geheim\n")
    write(
        f"[stores.disk]\nurl = '{demo_copy}'\n[stores.prod]\nurl = 's3://{moto_bucket}/prod'\n{reached}{keys}"
        f"[stores.kept]\nurl = 's3://{moto_bucket}/kept'\n{reached}{keys}[stores.bare]\nurl = 's3://{moto_bucket}/prod'\n{reached}"
    )
    with mock.patch.dict(os.environ, {"OUR_KEY": "AKIAOURS", "AWS_EC2_METADATA_DISABLED": "true"}):
        assert run("migrate", "disk", "prod", "--create", "--repo", "library/*").code == 0
        assert "library/base" in run("ls", "prod").out
        assert run("backup", "create", "prod", "kept", "--create").code == 0
        assert run("backup", "check", "kept", "--repair-from", "prod").code == 0
        run("ls", "bare").failed(1, "no AWS credentials")
        # A second place that has no name is as the first, keys too.
        assert run("backup", "create", "prod", f"s3://{moto_bucket}/other", "--create").code == 0
