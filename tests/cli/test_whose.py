"""A registry that keeps tags and manifests in a database: what goes by links is refused, and who looks is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from regstore.digest import Digest
from regstore.layout import DATABASE_IN_USE, FILESYSTEM_IN_USE, BlobKey, encode
from tests.cli.conftest import Run
from tests.examples import crossed
from tests.migrate.stores import contents, open_place
from tests.model.builder import Builder
from tests.model.store import ModelStore
from tests.servers.s3 import S3Root

WORDS = "keeps tags and manifests in a database"
MARK = b'{"version":1}'
#: Pushed since the database is in use: a blob, and nothing that names it.
LIVE = encode(BlobKey(Digest.of(b"a layer that only the database knows")))


def registry(*marks: str) -> ModelStore:
    b = Builder()
    b.push("team/app", b.image(b.blob(b"config"), [b.blob(b"layer")]), "old")
    b.blob(b"a layer that only the database knows")
    for mark in marks:
        b.put(mark, MARK)
    return b.store


class Place:
    """A store, as commands name it and as it is looked at."""

    def __init__(self, place: Path | S3Root) -> None:
        self.place = place
        self.url = str(place) if isinstance(place, Path) else f"s3://{place.bucket}{place.rootdirectory}"

    def fill(self, *marks: str) -> None:
        async def fill() -> None:
            async with open_place(self.place) as storage:
                await registry(*marks).write_storage(storage)

        asyncio.run(fill())

    def contents(self) -> dict[str, bytes]:
        async def read() -> dict[str, bytes]:
            async with open_place(self.place) as storage:
                return await contents(storage)

        return asyncio.run(read())


PLACES = ["disk", "moto"]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    if request.param == "disk":
        yield Place(tmp_path / "registry")
        return
    server = request.getfixturevalue("moto")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    yield Place(S3Root(server, request.getfixturevalue("moto_bucket"), "/reg"))


REFUSED = {
    "gc": ["gc", "STORE", "--yes", "--grace", "0s", "--max-delete", "100%", "--settle", "0s"],
    "gc offline": ["gc", "STORE", "--yes", "--grace", "0s", "--max-delete", "100%", "--offline", "--no-trash"],
    "trash empty": ["trash", "empty", "STORE", "--yes", "--registry-cache", "none"],
    "repair": ["verify", "STORE", "--repair"],
    "drop": ["verify", "STORE", "--drop-broken-tags", "--yes"],
    "backup": ["backup", "create", "--create", "STORE", "BACKUP"],
    "migrate": ["migrate", "STORE", "OTHER", "--create"],
    "migrate a part": ["migrate", "STORE", "OTHER", "--create", "--all", "--repo", "team/*"],
    "migrate and delete": ["migrate", "STORE", "OTHER", "--create", "--all", "--delete", "--yes"],
    "migrate into it": ["migrate", "PLAIN", "STORE"],
    "restore into it": ["restore", "PLAINS_BACKUP", "STORE"],
}
LOOKING = {
    "ls": ["ls", "STORE"],
    "tags": ["tags", "STORE", "team/app"],
    "inspect": ["inspect", "STORE", "team/app"],
    "inspect a manifest": ["inspect", "STORE", "team/app:old"],
    "du": ["du", "STORE"],
    "doctor": ["doctor", "STORE"],
    "verify": ["verify", "STORE"],
    "heal": ["heal", "STORE", "--dry-run"],
    "gc": ["gc", "STORE", "--dry-run"],
    "why": ["gc", "STORE", "--why", str(Digest.of(b"layer"))],
    "restore": ["restore", "PLAINS_BACKUP", "STORE", "--dry-run"],
    "migrate": ["migrate", "STORE", "OTHER", "--create", "--dry-run"],
}


@pytest.fixture
def named(run: Run, tmp_path: Path, place: Place) -> Any:
    """A command's words with places for their names: a plain registry and its backup are made where they are named."""

    def named(words: list[str]) -> list[str]:
        plain = tmp_path / "plain"
        if {"PLAIN", "PLAINS_BACKUP"} & set(words):
            registry().write_folder(plain)
        if "PLAINS_BACKUP" in words:
            assert run("backup", "create", "--create", plain, tmp_path / "plains-backup").code == 0
        places = {
            "STORE": place.url,
            "PLAIN": str(plain),
            "PLAINS_BACKUP": str(tmp_path / "plains-backup"),
            "BACKUP": str(tmp_path / "backup"),
            "OTHER": str(tmp_path / "other"),
        }
        return [places.get(word, word) for word in words]

    return named


@crossed("place, name", PLACES, list(REFUSED), meeting=1, indirect=["place"])
def test_what_goes_by_links_is_refused(run: Run, tmp_path: Path, place: Place, named: Any, name: str) -> None:
    place.fill(DATABASE_IN_USE)
    before = place.contents()
    run(*named(REFUSED[name])).failed(4, "in a database", DATABASE_IN_USE)
    assert place.contents() == before
    assert not list((tmp_path / "backup").rglob("snapshots/*"))
    assert not (tmp_path / "other").exists()


@crossed("place, name", PLACES, list(LOOKING), meeting=1, indirect=["place"])
def test_who_looks_is_told_first(run: Run, place: Place, named: Any, name: str) -> None:
    place.fill(DATABASE_IN_USE, FILESYSTEM_IN_USE)  # both: invalid, and no reason to trust links
    words = named(LOOKING[name])
    said = run(*words)
    assert said.code in (0, 6), said
    first = said.out.partition("\n")[0] if WORDS in said.out else said.err.partition("\n")[0]
    assert WORDS in first and DATABASE_IN_USE in first
    document = run(*words, "--json").json
    assert DATABASE_IN_USE in (
        document.get("database") or document["plan"].get("database") or document["plan"]["notes"][0]
    )


@pytest.mark.parametrize("marks", [(), (FILESYSTEM_IN_USE,)], ids=["no mark", "filesystem in use"])
def test_a_registry_without_a_database_is_as_ever(run: Run, place: Place, named: Any, marks: list[str]) -> None:
    place.fill(*marks)
    for name in ("ls", "gc", "verify"):
        said = run(*named(LOOKING[name]), "--json")
        assert said.code in (0, 6) and said.json["database"] is None  # sizes that are made up
    assert run(*named(REFUSED["backup"])).code == 0
    assert run(*named(REFUSED["migrate"])).code == 0
    said = run("gc", place.url, "--yes", "--json", "--max-delete", "100%", "--settle", "0s")
    assert said.code == 0


def test_everything_can_be_migrated_with_the_mark(run: Run, place: Place, tmp_path: Path) -> None:
    place.fill(DATABASE_IN_USE)
    other = tmp_path / "other"
    said = run("migrate", place.url, other, "--create", "--all")
    assert said.code == 0, said
    assert WORDS in said.out.partition("\n")[0]
    moved = Place(other).contents()
    assert moved == place.contents()
    assert LIVE in moved and moved[DATABASE_IN_USE] == MARK
    run("gc", other, "--yes").failed(4, DATABASE_IN_USE)
    assert run("migrate", place.url, other, "--all").code == 0, "again, for what was pushed meanwhile"


CONFIG = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {root}}}}}
database: {{enabled: {enabled}}}
"""


@pytest.mark.parametrize("told", ["true", "prefer", "by the environment"])
def test_the_registrys_configuration_says_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, told: str
) -> None:
    """Before the registry has started with it, and written the mark. Every command reads it in the same way."""
    every = told == "true" or request.config.getoption("--slow")
    store, config = tmp_path / "registry", tmp_path / "config.yml"
    registry().write_folder(store)
    config.write_text(CONFIG.format(root=store, enabled="false" if " " in told else told))
    if " " in told:
        monkeypatch.setenv("REGISTRY_DATABASE_ENABLED", "true")
    for name in ("gc", "gc offline", "trash empty", "repair", "drop") if every else ("gc",):
        words = [word for word in REFUSED[name] if word != "STORE"]
        run(*words, "--registry-config", config).failed(4, "in a database", "database.enabled", "configuration")
    for command in (
        ["backup", "create", "--create", tmp_path / "backup"],
        ["migrate", tmp_path / "other", "--create"],
    ):
        run(*command, "--registry-config", config).failed(4, "in a database", "database.enabled")
    for name in ("ls", "tags", "inspect", "du", "doctor", "verify", "heal", "gc", "why") if every else ("ls", "gc"):
        words = [word for word in LOOKING[name] if word != "STORE"]
        said = run(*words, "--registry-config", config)
        assert WORDS in (said.out + said.err).partition("\n")[0] or WORDS in said.err.partition("\n")[0], name
        assert "database.enabled" in run(*words, "--registry-config", config, "--json").json["database"]
    said = run("migrate", tmp_path / "other", "--dry-run", "--create", "--registry-config", config, "--json")
    assert "database.enabled" in said.plan["notes"][0]
    assert run("migrate", tmp_path / "other", "--create", "--all", "--registry-config", config).code == 0
    assert LIVE in ModelStore.from_folder(tmp_path / "other")


def test_a_dry_run_names_what_would_be_emptied(run: Run, tmp_path: Path) -> None:
    b = Builder()
    b.push("stream/app", b.image(b.blob(b"config"), [b.blob(b"layer")]))
    b.store.write_folder(tmp_path)
    words = ["gc", tmp_path, "--delete-untagged", "--max-delete", "100%"]
    said = run(*words, "--dry-run")
    assert said.code == 0
    (line,) = [line for line in said.out.splitlines() if line.startswith("refused without --dry-run: ")]
    run_for_real = run(*words, "--yes")
    assert run_for_real.code == 4 and line.partition(": ")[2] in run_for_real.err
    document = run(*words, "--dry-run", "--json").plan
    assert document["untagged"] == ["stream/app"] and document["stops"] == [line.partition(": ")[2]]
    assert run(*words, "--yes", "--untagged-repositories", "--settle", "0s").code == 0
    assert not [key for key in ModelStore.from_folder(tmp_path) if key.endswith("/link")]


def test_harbors_configuration_stops_what_goes_by_tags(run: Run, tmp_path: Path) -> None:
    store, config = tmp_path / "registry", tmp_path / "config.yml"
    registry().write_folder(store)
    config.write_text(
        f"storage: {{filesystem: {{rootdirectory: {store}}}}}\n"
        "auth: {htpasswd: {realm: harbor-registry-basic-realm, path: /etc/registry/passwd}}\n"
    )
    words = ["gc", "--registry-config", config, "--max-delete", "100%", "--settle", "0s"]
    for by in (["--delete-untagged"], ["--keep-newest", "1"]):
        said = run(*words, *by, "--yes")
        assert said.code == 4 and "Harbor" in said.err and "--tags-are-complete" in said.err
        assert "Harbor" in run(*words, *by, "--dry-run").out
        assert run(*words, *by, "--yes", "--tags-are-complete").code == 0
    assert run(*words, "--yes").code == 0, "links are all there"
