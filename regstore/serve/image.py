"""What a manifest and its config say of an image, as a person wants to read it. Parses bytes, fetches nothing.

Everything here was written by whoever pushed the image: it is cut to a length, and counted, before it is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from regstore.manifest import Descriptor, Manifest, Platform

#: A config larger than this is not read; real ones have some 10 KB.
CONFIG_MAX: Final = 4 * 1024 * 1024
#: Characters of one text, and entries of one list, that are shown.
TEXT: Final = 4000
ENTRIES: Final = 500
_SHELL: Final = re.compile(r"^(?:RUN )?(?:\|\d+ (?:\S+=.*? )*)?/bin/(?:ba)?sh -c ", re.DOTALL)
_NOP: Final = re.compile(r"^/bin/(?:ba)?sh -c #\(nop\)\s*", re.DOTALL)
_INSTRUCTIONS: Final = re.compile(
    r"(?:ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|HEALTHCHECK|LABEL|MAINTAINER|ONBUILD|RUN|SHELL|STOPSIGNAL|USER|VOLUME"
    r"|WORKDIR)\b"
)


@dataclass(frozen=True, slots=True)
class Step:
    """One line of an image's history. layer: the layer that it made, None where it made none. created: as the config
    has it."""

    line: str
    created: str
    layer: Descriptor | None


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """What a config says; "" and empty where it says nothing."""

    created: str = ""
    author: str = ""
    platform: Platform | None = None
    user: str = ""
    workdir: str = ""
    stop_signal: str = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    history: tuple[Step, ...] = ()


def parse_config(data: bytes, manifest: Manifest) -> ImageConfig:
    """Of an image's config (OCI and Docker alike). What is not of the expected kind is passed over; nothing raises."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return ImageConfig()
    if not isinstance(document, dict):
        return ImageConfig()
    run = document.get("config")
    run = run if isinstance(run, dict) else {}
    architecture = _text(document.get("architecture"))
    return ImageConfig(
        created=_text(document.get("created")),
        author=_text(document.get("author")),
        platform=Platform(_text(document.get("os")), architecture, _text(document.get("variant")))
        if architecture
        else None,
        user=_text(run.get("User")),
        workdir=_text(run.get("WorkingDir")),
        stop_signal=_text(run.get("StopSignal")),
        entrypoint=_texts(run.get("Entrypoint")),
        command=_texts(run.get("Cmd")),
        environment=_texts(run.get("Env")),
        ports=_texts(_keys(run.get("ExposedPorts"))),
        volumes=_texts(_keys(run.get("Volumes"))),
        labels=texts_by_name(run.get("Labels")),
        history=_history(document.get("history"), manifest),
    )


def texts_by_name(value: object) -> dict[str, str]:
    """Of an object whose values are texts: labels, annotations."""
    if not isinstance(value, dict):
        return {}
    return {_text(name): _text(each) for name, each in sorted(value.items())[:ENTRIES]}


def _history(entries: object, manifest: Manifest) -> tuple[Step, ...]:
    steps = []
    layers = iter(manifest.layers)
    for entry in entries[:ENTRIES] if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            layer = None if entry.get("empty_layer") is True else next(layers, None)
            steps.append(Step(dockerfile_line(_text(entry.get("created_by"))), _text(entry.get("created")), layer))
    return tuple(steps)


def dockerfile_line(created_by: str) -> str:
    """The line of a Dockerfile that a step of the history came from, as builders write it down: Docker's classic
    builder as `/bin/sh -c …`, with `#(nop)` where nothing was run; BuildKit with `# buildkit` at its end."""
    text = created_by.strip().removesuffix("# buildkit").strip()
    plain = _NOP.sub("", text)
    if plain != text:
        return plain
    command = _SHELL.sub("", text)
    if command != text:
        return f"RUN {command}"
    return text if not text or _INSTRUCTIONS.match(text) else f"RUN {text}"


def _keys(value: object) -> list[Any]:
    return sorted(map(str, value)) if isinstance(value, dict) else []


def _text(value: object) -> str:
    if not isinstance(value, str):
        return ""
    return value if len(value) <= TEXT else f"{value[:TEXT]} … ({len(value):,} characters)"


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (_text(value),)
    if not isinstance(value, Iterable) or isinstance(value, dict):
        return ()
    return tuple(_text(each) for each in list(value)[:ENTRIES])
