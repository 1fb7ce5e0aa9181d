"""Options of the command line that have no effect in this run, each told: whoever typed one believes that it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from regstore.cli.config.current import named_store, said
from regstore.errors import InputError

#: How S3 is reached.
_OF_S3: Final = ("endpoint_url", "region", "profile", "path_style", "request_rate")
#: How S3 keeps what is written.
_OF_OBJECTS: Final = ("storage_class", "sse", "sse_kms_key_id", "acl")
#: What a command calls its second place.
_SECOND: Final = ("target", "backup", "repair_from")
_Given = Mapping[str, Any]
#: How a cluster is used.
_OF_CLUSTERS: Final[Mapping[str, tuple[str, ...]]] = {
    "gc": ("master", "request_rate", "work", "shards"),
    "verify": ("master", "request_rate", "tasks"),
    "migrate": ("master", "request_rate", "tasks"),
}

#: Of a command (or of "" for all), an option's parameter, when it counts for nothing, and why.
_NEEDS: Final[tuple[tuple[str, str, Callable[[_Given], bool], str], ...]] = (
    ("verify", "grace", lambda given: not given["drop_broken_tags"], "is about --drop-broken-tags"),
    ("gc", "settle", lambda given: given["offline"], "is no wait with --offline"),
    ("gc", "untagged_repositories", lambda given: not _takes_untagged(given), "is about --delete-untagged"),
    (
        "gc",
        "copied_times",
        lambda given: not given["keep_newest"] and not given["policy"],
        "is about --keep-newest",
    ),
    ("gc", "restart_command", lambda given: given["dry_run"], "is not run by --dry-run"),
    *(
        (command, name, lambda given: given["engine"] != "spark", "is about --engine spark")
        for command, names in _OF_CLUSTERS.items()
        for name in names
    ),
    ("verify", "workers", lambda given: given["engine"] == "spark", "is about processes of this machine"),
    ("gc", "cache_dir", lambda given: given["engine"] == "spark", "keeps manifests in --work with --engine spark"),
    ("migrate", "max_delete", lambda given: not given["delete"], "is about --delete"),
    ("migrate", "follow", lambda given: given["dry_run"], "is one pass with --dry-run"),
    ("", "break_lock", lambda given: bool(given.get("dry_run")), "is not needed by --dry-run, which takes no lock"),
)


def without_effect(command: str, given: _Given) -> Iterator[str]:
    """A sentence each. command: the name of its function; given: its parameters."""
    words = said()
    for about, name, useless, why in _NEEDS:
        if name in words and about in ("", command) and useless(given):
            yield f"{_option(name)} has no effect: it {why}"
    if words & {*_OF_S3, "ca_bundle", *_OF_OBJECTS} or any(name.startswith("dst_") for name in words):
        yield from _of_places(words, given)


def _takes_untagged(given: _Given) -> bool:
    return bool(given["delete_untagged"] or given["policy"])


def _of_places(words: frozenset[str], given: _Given) -> Iterator[str]:
    """Nothing where a place may be anything: as --registry-config says, or a name in the configuration."""
    first = None if given.get("registry_config") else given.get("store")
    second = next((given[name] for name in _SECOND if given.get(name)), None)
    places = [place for place in (first, second) if place]
    if not places or any(map(_is_named, places)):
        return
    if all(map(_is_folder, places)):
        told = {"request_rate"} if given.get("engine") != "spark" else set[str]()
        yield from (f"{_option(name)} has no effect on a folder" for name in _OF_S3 if name in words - told)
    if "ca_bundle" in words and not any(
        place.startswith("s3://") and not _is_plain(given, place, second) for place in places
    ):
        yield "--ca-bundle has no effect: nothing here is reached by TLS"
    written = second if second is not None and "repair_from" not in given else first
    if written is not None and _is_folder(written):
        yield from (f"{_option(name)} has no effect on a folder" for name in _OF_OBJECTS if name in words)
    if second is None or _is_folder(second):
        where = "there is no second place" if second is None else "the second place is a folder"
        names = sorted(name for name in words if name.startswith("dst_"))
        yield from (f"{_option(name)} has no effect: {where}" for name in names)


def _is_plain(given: _Given, place: str, second: str | None) -> bool:
    """Whether it is reached by HTTP, as the options say."""
    endpoint = (given.get("dst_endpoint_url") if place == second else None) or given.get("endpoint_url") or ""
    return endpoint.startswith("http://")


def _is_folder(place: str) -> bool:
    return place.startswith("file:") or "://" not in place


def _is_named(place: str) -> bool:
    try:
        return named_store(place) is not None
    except InputError:  # the command says so
        return True


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
