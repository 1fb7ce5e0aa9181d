"""`regstore/cli/schema.json`, what `--json` prints, is made of this and of the dataclasses that are printed:
`python -m tests.schema`. To add a command: its result in `RESULTS`."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import json
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import regstore
from regstore import errors
from regstore.cli.outcome import SCHEMA

FILE = Path(regstore.__file__).parent / "cli" / "schema.json"
Shape = dict[str, Any]

TEXT: Shape = {"type": "string"}
NUMBER: Shape = {"type": "integer"}
SECONDS: Shape = {"type": "number", "minimum": 0}
FLAG: Shape = {"type": "boolean"}
TIME: Shape = {"$ref": "#/$defs/time"}
ANY: Shape = {}


def ref(name: str) -> Shape:
    return {"$ref": f"#/$defs/{name}"}


def or_null(shape: Shape) -> Shape:
    return {"anyOf": [shape, {"type": "null"}]}


def many(shape: Shape) -> Shape:
    return {"type": "array", "items": shape}


def by_name(shape: Shape) -> Shape:
    return {"type": "object", "additionalProperties": shape}


def one_of(*words: str) -> Shape:
    return {"enum": list(words)}


def obj(optional: tuple[str, ...] = (), /, **fields: Shape) -> Shape:
    required = [name for name in fields if name not in optional]
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


def also(shape: Shape, /, **fields: Shape) -> Shape:
    """The same object with more fields, or with other types of them."""
    return obj(**(shape["properties"] | fields))


def of(place: str) -> Shape:
    """A dataclass, `module:Class`, as `output.plain` gives it."""
    module, name = place.split(":")
    return _of(getattr(importlib.import_module(f"regstore.{module}"), name))


def _of(kind: Any) -> Shape:
    """What a module imports for types only is found by its name in those that are loaded."""
    import sys

    known = {
        name: value
        for module in [each for key, each in sys.modules.items() if key.startswith("regstore.")]
        for name, value in vars(module).items()
        if isinstance(value, type)
    }
    hints = typing.get_type_hints(
        kind, globalns={**known, **vars(sys.modules[kind.__module__])}, include_extras=True
    )
    return obj(**{each.name: _typed(hints[each.name]) for each in dataclasses.fields(kind)})


def _typed(hint: Any) -> Shape:
    from regstore.digest import Digest
    from regstore.manifest import Platform

    simple = {
        int: NUMBER,
        float: SECONDS,
        str: TEXT,
        bool: FLAG,
        Path: TEXT,
        Digest: TEXT,
        Platform: TEXT,
        Any: ANY,
    }
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return TIME
    if origin in (Union, types.UnionType):
        shapes = [_typed(each) for each in arguments if each is not type(None)]
        shape = shapes[0] if len(shapes) == 1 else {"anyOf": shapes}
        return or_null(shape) if type(None) in arguments else shape
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple and arguments[-1] is not Ellipsis:
        return {"type": "array", "prefixItems": [_typed(each) for each in arguments], "items": False}
    if isinstance(origin, type) and issubclass(origin, dict | typing.Mapping):
        return by_name(_typed(arguments[1]))
    if origin is not None:
        return many(_typed(arguments[0]))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"enum": [each.value for each in hint]}
    return _of(hint) if dataclasses.is_dataclass(hint) else simple[hint]


def planned(plan: Shape, report: Shape, /, **others: Shape) -> Shape:
    return obj(**others, plan=or_null(plan), report=or_null(report))


DATABASE = or_null(TEXT)
BLOBS_FROM = or_null(of("inventory.inventory:ReportedAt"))
STEP = obj(command=TEXT, on_failure=one_of("stop", "continue"), options=by_name(ANY))
DESCRIPTION = obj(
    digest=TEXT,
    media_type=TEXT,
    size=NUMBER,
    total_size=NUMBER,
    platforms=many(TEXT),
    created=or_null(TIME),
    layers=NUMBER,
    subject=or_null(TEXT),
    artifact_type=TEXT,
    annotations=by_name(TEXT),
    missing=many(TEXT),
    referrers=many(obj(digest=TEXT, media_type=TEXT, artifact_type=TEXT, size=NUMBER, tag=or_null(TEXT))),
)
SNAPSHOT = obj(
    id=TEXT,
    time=TIME,
    source=TEXT,
    place=TEXT,
    repository_patterns=many(TEXT),
    tag_patterns=many(TEXT),
    repositories=by_name(of("backup.format:PackSummary")),
    tags=NUMBER,
    blobs=NUMBER,
    bytes=NUMBER,
    new_blobs=NUMBER,
    new_bytes=NUMBER,
    left_out=many(of("backup.format:LeftOut")),
)
CACHE = obj(
    kind=TEXT,
    source=or_null(TEXT),
    said=or_null(TIME),
    doubt=or_null(TEXT),
    restarted_after=or_null(TIME),
)
NOT_FREED = obj(blobs=NUMBER, bytes=NUMBER, parts=many(of("state.not_freed:Part")))
RUN = obj(
    run=TEXT,
    command=TEXT,
    started=TIME,
    ended=or_null(TIME),
    complete=FLAG,
    blobs=NUMBER,
    bytes=NUMBER,
)
CHECK = obj(("advice",), name=TEXT, outcome=TEXT, detail=TEXT, advice=or_null(TEXT))
COUNT = of("gc.plan.summary:Count")
GC_PLAN = obj(
    blobs=obj(total=NUMBER, live=NUMBER, dead=NUMBER, total_bytes=NUMBER, dead_bytes=NUMBER),
    revisions=COUNT,
    layer_links=COUNT,
    tags=COUNT,
    tag_index=COUNT,
    uploads=also(COUNT, dead_bytes=NUMBER),
    litter=COUNT,
    repositories=obj(total=NUMBER, protected=NUMBER, emptied=NUMBER),
    protected=many(obj(name=TEXT, reasons=many(TEXT))),
    emptied=many(TEXT),
    untagged=many(TEXT),
    by_repository=many(of("gc.plan.summary:RepositoryShare")),
    orphans=obj(blobs=NUMBER, bytes=NUMBER),
    unknown_keys=NUMBER,
    sweep_blocked=or_null(TEXT),
    uploads_blocked=or_null(TEXT),
    problems=many(TEXT),
    held_by_unknown_keys=of("gc.plan.summary:Held"),
    young=of("gc.plan.summary:Young"),
    unlinked=also(of("inventory.unlinked:Unlinked"), suspicious=FLAG),
    stops=many(TEXT),
    rules=many(of("gc.plan.summary:RuleShare")),
    dropped_tags=many(of("gc.explain:DroppedTag")),
    broken_revisions=many(of("gc.plan.summary:BrokenRevision")),
    unmatched_patterns=many(of("gc.plan.summary:Unmatched")),
    blobs_from=BLOBS_FROM,
)
REMOVAL = planned(
    obj(
        repositories=many(
            also(of("gc.removal.plan:RepositoryRemoval"), tags=many(obj(tag=TEXT, digest=or_null(TEXT))))
        )
    ),
    of("gc.removal.run:RemovalReport"),
)
HEALED = obj(blobs=many(TEXT), links=many(TEXT), damaged=many(TEXT))
VERIFIED = obj(
    pull_through=FLAG,
    damage=NUMBER,
    unreadable_manifests=NUMBER,
    unreadable_blobs=NUMBER,
    unreadable_links=NUMBER,
    archived=NUMBER,
    repositories=NUMBER,
    tags=obj(total=NUMBER, touched=NUMBER, broken=NUMBER),
    revisions=NUMBER,
    layer_links=NUMBER,
    blobs=obj(total=NUMBER, bytes=NUMBER),
    unknown_keys=NUMBER,
    absent=of("verify.fault:Absences"),
    counts=by_name(NUMBER),
    faults=many(
        obj(
            kind=TEXT,
            area=TEXT,
            what=TEXT,
            detail=TEXT,
            repository=or_null(TEXT),
            digest=or_null(TEXT),
            tag=or_null(TEXT),
            repositories=many(TEXT),
            tags=many(obj(repository=TEXT, tag=TEXT, broken=FLAG)),
            repairable=FLAG,
            remedy=TEXT,
        )
    ),
    read=or_null(of("proving.result:Reading")),
    blobs_from=BLOBS_FROM,
)
PUT_BACK = {"standing": NUMBER, "conflicts": many(obj(key=TEXT, reason=TEXT))}
RESTORE = planned(
    also(of("backup.restore:RestorePlan"), snapshot=TEXT, database=DATABASE),
    obj(
        snapshot=TEXT,
        blobs=NUMBER,
        bytes=NUMBER,
        links=NUMBER,
        tags=NUMBER,
        seeded=FLAG,
        seconds=SECONDS,
        conflicts=many(of("backup.restore:Conflict")),
        damaged=many(TEXT),
        left_out=many(TEXT),
        absent=many(TEXT),
        notes=many(TEXT),
    ),
)
EXPORTED = obj(
    images=many(obj(repository=TEXT, tag=or_null(TEXT), digest=TEXT, media_type=TEXT, size=NUMBER)),
    blobs=NUMBER,
    bytes=NUMBER,
    left_out=many(TEXT),
    notes=many(TEXT),
)
IMPORTED = obj(
    images=many(obj(repository=TEXT, tag=TEXT, digest=TEXT)),
    blobs=NUMBER,
    bytes=NUMBER,
    links=NUMBER,
    tags=NUMBER,
    left_out=many(TEXT),
    conflicts=many(obj(repository=TEXT, tag=TEXT, layout=TEXT, there=or_null(TEXT))),
)
OPTIONS = many(obj(option=TEXT, value=ANY, source=TEXT))
REFERENCE = obj(
    kind=TEXT,
    digest=TEXT,
    media_type=TEXT,
    size=or_null(NUMBER),
    platform=or_null(TEXT),
    artifact_type=TEXT,
)
CONFIG = obj(
    labels=by_name(TEXT),
    history=many(obj(line=TEXT, created=or_null(TIME), size=or_null(NUMBER))),
)

#: By the command's words.
RESULTS: dict[str, Shape] = {
    "ls": obj(
        database=DATABASE,
        repositories=many(obj(("tags", "revisions"), name=TEXT, tags=NUMBER, revisions=NUMBER)),
    ),
    "tags": obj(
        database=DATABASE,
        repository=TEXT,
        tags=many(
            obj(
                tuple(DESCRIPTION["properties"]),
                tag=TEXT,
                problem=or_null(TEXT),
                **DESCRIPTION["properties"],
            )
        ),
    ),
    "inspect": {
        "anyOf": [
            obj(
                ("config",),
                database=DATABASE,
                repository=TEXT,
                **DESCRIPTION["properties"],
                tags=many(TEXT),
                references=many(REFERENCE),
                config=or_null(CONFIG),
            ),
            obj(
                database=DATABASE,
                repository=TEXT,
                tags=many(obj(tag=TEXT, digest=or_null(TEXT))),
                revisions=obj(total=NUMBER, untagged=NUMBER),
                layer_links=NUMBER,
                uploads=many(obj(uuid=TEXT, size=NUMBER, newest=or_null(TIME))),
            ),
        ]
    },
    "du": also(
        of("inventory.usage:Usage"),
        database=DATABASE,
        blobs_from=BLOBS_FROM,
        repositories=many(also(of("inventory.usage:RepositoryUsage"), total=NUMBER)),
    ),
    "gc": {
        "anyOf": [
            planned(
                GC_PLAN,
                also(of("gc.report:GcReport"), cache=CACHE, not_freed=NOT_FREED, state=TEXT),
                database=DATABASE,
            ),
            obj(
                database=DATABASE,
                explain=by_name(many(of("gc.explain:TagReason"))),
                why=many(of("gc.why:Why")),
            ),
            obj(policy_example=TEXT),
        ]
    },
    "rm": REMOVAL,
    "untag": REMOVAL,
    "tag": planned(obj(tag=TEXT, digest=TEXT, was=or_null(TEXT), already=FLAG), obj(run=TEXT)),
    "heal": planned(HEALED, HEALED, database=DATABASE),
    "locks": obj(
        broken=FLAG,
        locks=many(
            obj(
                run=TEXT,
                command=TEXT,
                user=TEXT,
                host=TEXT,
                pid=NUMBER,
                written=or_null(TIME),
                expires=or_null(TIME),
                expired=FLAG,
            )
        ),
    ),
    "seed-bucket": obj(ready=FLAG, checks=many(CHECK), configuration=by_name(ANY), environment=by_name(TEXT)),
    "init": {
        "anyOf": [
            obj(
                folder=TEXT,
                url=TEXT,
                form=TEXT,
                store=or_null(TEXT),
                checks=many(CHECK),
                files=by_name(TEXT),
                certificate=or_null(obj(names=many(TEXT), not_after=TIME, sha256=TEXT)),
                passwords=by_name(TEXT),
                policies=by_name(ANY),
                warnings=many(TEXT),
            ),
            obj(url=TEXT, checks=many(CHECK), failed=NUMBER, warnings=NUMBER, not_tried=NUMBER),
        ]
    },
    "migrate": planned(
        also(
            of("migrate.result:MigrateSummary"),
            estimate=also(of("migrate.result:Estimate"), dollars=SECONDS, prices=TEXT),
        ),
        also(of("migrate.result:MigrateResult"), objects=NUMBER, partial=FLAG, configuration=by_name(ANY)),
    ),
    "verify": obj(
        database=DATABASE,
        found=VERIFIED,
        repaired=or_null(of("verify.work:Repairs")),
        left=or_null(VERIFIED),
    ),
    "restore": RESTORE,
    "serve": obj(urls=many(TEXT)),
    "report": obj(file=TEXT, size=NUMBER),
    "run": planned(
        obj(job=TEXT, steps=many(TEXT)),
        obj(
            job=TEXT,
            seconds=SECONDS,
            steps=many(
                obj(
                    step=NUMBER,
                    command=TEXT,
                    exit_code=or_null(NUMBER),
                    seconds=or_null(SECONDS),
                    error=or_null(ref("error")),
                    result=ANY,
                )
            ),
        ),
    ),
    "doctor": obj(database=DATABASE, checks=many(CHECK), failed=NUMBER, warnings=NUMBER),
    "backup create": obj(
        backup=TEXT,
        snapshot=SNAPSHOT,
        packs=NUMBER,
        unchanged=NUMBER,
        reread=NUMBER,
        begins=FLAG,
        damaged=many(TEXT),
        seconds=SECONDS,
    ),
    "backup list": obj(snapshots=many(SNAPSHOT), damaged=by_name(TEXT), doubtful=by_name(TEXT)),
    "backup show": also(
        SNAPSHOT, shown_tags=many(of("backup.compare:TagShown")), damaged=many(TEXT), notes=many(TEXT)
    ),
    "backup diff": obj(
        **{"from": TEXT},
        to=TEXT,
        damaged=many(TEXT),
        **of("backup.compare:Difference")["properties"],
    ),
    "backup restore": RESTORE,
    "backup check": also(of("backup.check:CheckResult"), damaged=FLAG),
    "backup prune": planned(
        obj(
            kept=many(obj(id=TEXT, time=TIME, why=many(TEXT))),
            forgotten=many(obj(id=TEXT, time=TIME)),
            forgotten_unreadable=many(TEXT),
            packs=NUMBER,
            blobs=NUMBER,
            bytes=NUMBER,
            kept_blobs=NUMBER,
            kept_bytes=NUMBER,
            young=NUMBER,
            blocked=or_null(TEXT),
            damaged=many(TEXT),
        ),
        obj(snapshots=NUMBER, packs=NUMBER, blobs=NUMBER, bytes=NUMBER, failures=many(TEXT)),
    ),
    "export": planned(EXPORTED, also(EXPORTED, there=NUMBER), target=TEXT),
    "import": planned(IMPORTED, also(IMPORTED, seeded=FLAG), target=TEXT),
    "trash list": obj(runs=many(also(RUN, links=NUMBER)), cache=CACHE, not_freed=NOT_FREED),
    "trash restore": planned(
        obj(
            run=TEXT,
            blobs=many(obj(digest=TEXT, size=NUMBER)),
            bytes=NUMBER,
            links=many(TEXT),
            **PUT_BACK,
        ),
        obj(run=TEXT, blobs=NUMBER, bytes=NUMBER, links=NUMBER, **PUT_BACK),
    ),
    "trash empty": planned(
        obj(runs=many(RUN), kept=many(of("gc.trash:Kept"))),
        also(of("gc.trash:Emptied"), versioned=or_null(FLAG)),
        cache=CACHE,
        not_freed=NOT_FREED,
    ),
    "config show": {
        "anyOf": [
            obj(
                file=or_null(TEXT),
                stores=by_name(by_name(ANY)),
                options=OPTIONS,
                policies=many(TEXT),
                jobs=by_name(also(STEP, steps=many(STEP))),
                environment=by_name(TEXT),
            ),
            obj(file=or_null(TEXT), command=TEXT, store=or_null(TEXT), options=OPTIONS),
        ]
    },
    "config check": obj(file=or_null(TEXT), problems=many(TEXT), notes=many(TEXT)),
    "schema": by_name(ANY),
}


def schema() -> dict[str, Any]:
    kinds = [name for name in errors.__all__ if issubclass(getattr(errors, name), Exception)]
    definitions: dict[str, Any] = {
        "time": {
            "description": "ISO 8601, UTC, to the second.",
            "type": "string",
            "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$",
        },
        "error": {
            "description": "What ended the command before it had a result.",
            **obj(
                kind=one_of(*kinds, "Interrupted", "OutOfMemory", "OSError", "Unexpected"),
                message=TEXT,
            ),
        },
        "results": {name: {"title": f"regstore {name}", **shape} for name, shape in RESULTS.items()},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What regstore prints with --json",
        **obj(
            schema={"const": SCHEMA},
            command={"description": "null where it is not known", **or_null(TEXT)},
            store=or_null(TEXT),
            exit_code={"description": "null while a server still runs", **or_null(NUMBER)},
            error=or_null(ref("error")),
            result={"description": "null where error is not, or where somebody who was asked said no"},
        ),
        "allOf": [
            {
                "if": {"properties": {"command": {"const": name}}},
                "then": {"properties": {"result": or_null(ref(f"results/{name.replace(' ', '%20')}"))}},
            }
            for name in RESULTS
        ],
        "$defs": definitions,
    }


def text() -> str:
    return json.dumps(schema(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
