"""Seconds and memory of each planner on registries of many keys, and how both grow.

    python -m benchmarks.large_plans [--keys 1000000 10000000] [--shape many giant] [--only gc migrate]

The registries are generated straight as Parquet, without a store: images of a config and six layers (two of them of a
thousand common bases, one shared in the repository), a third of them in indexes of three, a tenth with a signature
that names its subject, six of ten tagged, and a blob for each that nothing refers to. `many`: fifteen images a
repository; `giant`: one repository holds them all. Each planner runs in a process of its own. DuckDB gets
`--bytes-a-key`, but no less than an inventory gets at first, or `--memory` whatever the keys; what does not fit is
spilled to TMPDIR. Loading the tables is not counted, memory is the largest resident set of the whole process. migrate
plans a copy to an empty store.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.measure import environment, machine, megabytes, run, seconds, table
from regstore.manifest import EdgeKind

if TYPE_CHECKING:
    from regstore.inventory.inventory import Inventory

#: Microseconds: of what is old, of what is young, and of the plan.
_OLD: Final = 1_700_000_000_000_000
_YOUNG: Final = 1_750_000_000_000_000
_NOW: Final = _YOUNG + 3_600_000_000
_KEYS_AN_IMAGE: Final = 14.5
#: Bytes; as an inventory gets.
_LEAST_MEMORY: Final = 192_000_000
_TABLES: Final = (
    "repository",
    "blob",
    "manifest",
    "edge",
    "revision_link",
    "layer_link",
    "tag",
    "tag_index",
)
_KEYS: Final = ("blob", "revision_link", "layer_link", "tag", "tag_index")
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_POLICY: Final = """
delete_untagged = true
[[rule]]
keep_newest = 3
"""

_GENERATE: Final = f"""
create macro digest(kind, number) as unhex(sha256(kind || number::varchar));
create macro age(young) as case when young then {_YOUNG} else {_OLD} end;
create table image as
    select i, i // 3 as g, ($of)::integer + 1 as repository, digest('image', i) as digest,
        hash('dice' || (i // 3)) % 100 as dice
    from range($images) each(i);
create table part as
    select i, repository, digest as image, dice, unhex(sha256(part)) as digest, part[1] = 'c' as config
    from (
        select *, unnest([
            'c' || i, 'base' || hash(g) % 1000, 'base' || (hash(g) + 1) % 1000,
            'r' || repository || '-' || hash(i) % 30, 'l1-' || i, 'l2-' || i, 'l3-' || i]) as part
        from image
    );
create table edge as
    select image as source, digest as target, if(config, {EdgeKind.CONFIG:d}, {EdgeKind.LAYER:d})::tinyint as kind,
        1000::bigint as size
    from part
    union all
    select digest('index', g), digest, {EdgeKind.MANIFEST:d}, 1000 from image where g % 3 = 0
    union all
    select digest('signature', i), digest, {EdgeKind.SUBJECT:d}, 1000 from image where i % 10 = 0
    union all
    select digest('signature', i), digest('signed', i), {EdgeKind.LAYER:d}, 1000 from image where i % 10 = 0;
create table manifest as
    select source as digest, 'ok' as state, null::varchar as reason, '{_MANIFEST}' as media_type, '' as artifact_type,
        1000::bigint as size
    from edge group by source;
create table repository as select repository as id, 'team/r' || repository as name from image group by repository;
create table revision as
    select repository, digest, dice from image
    union all
    select repository, digest('index', g), dice from image where g % 3 = 0 and i % 3 = 0
    union all
    select repository, digest('signature', i), dice from image where i % 10 = 0;
create table revision_link as
    select repository, digest, digest as target, null::blob as body, 71::bigint as size,
        age(dice = 99)::bigint as mtime, null::varchar as unread
    from revision;
create table layer_link as
    select repository, digest, digest as target, null::blob as body, 71::bigint as size,
        age(bool_or(dice = 99))::bigint as mtime, null::varchar as unread
    from (
        select repository, digest, dice from part
        union all
        select repository, digest, dice from revision
        union all
        select repository, digest('signed', i), dice from image where i % 10 = 0
    )
    group by repository, digest;
create table tag as
    select repository, 'v1.' || g as name, if(g % 3 = 0, digest('index', g), min(digest)) as target, null::blob as body,
        71::bigint as size, {_OLD} + g as mtime, null::varchar as unread
    from image where dice < 60 group by repository, g;
create table tag_index as select repository, name, target as digest, true as sound, size, mtime from tag;
create table blob as
    select digest, 1000::bigint as size, age(bool_or(dice = 99))::bigint as mtime
    from (
        select digest, dice from layer_link join (select 0 as dice) on true
        union all
        select digest('orphan', i), 0 from image
    )
    group by digest;
"""


def generate(folder: Path, keys: int, shape: str) -> None:
    """The tables as Parquet files in `folder`. It is not what is measured, and takes the memory that it wants."""
    import duckdb

    images = max(30, int(keys / _KEYS_AN_IMAGE))
    repositories = max(10, images // 15)
    of = "0" if shape == "giant" else f"hash('repository' || (i // 3)) % {repositories}"
    settings: dict[str, str | bool | int | float | list[str]] = {
        "temp_directory": str(folder / "spill"),
        "preserve_insertion_order": False,
    }
    connection = duckdb.connect(str(folder / "generate.duckdb"), config=settings)
    connection.execute(_GENERATE.replace("$of", of).replace("$images", str(images)))
    for name in _TABLES:
        connection.execute(f"copy {name} to '{folder / name}.parquet' (format parquet)")
    connection.close()
    (folder / "generate.duckdb").unlink()


def plan(name: str, folder: Path, memory: str) -> dict[str, float]:
    """Load the tables, and run one planner over them."""
    from regstore.inventory.inventory import Inventory

    with Inventory(memory_limit=memory) as inventory:
        for each in _TABLES:
            inventory.execute(f"insert into {each} by name select * from '{folder / each}.parquet'")
        keys = sum(inventory.counts(*_KEYS).values())
        before, began = _cpu(), time.perf_counter()
        found = PLANNERS[name](inventory, folder)
        wall, cpu = time.perf_counter() - began, _cpu() - before
        inventory.complete = False
    return {"keys": keys, "wall": wall, "cpu": cpu, "found": found}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _gc(inventory: Inventory, folder: Path, policy: str = "") -> int:
    from regstore.gc.plan import GcOptions, plan_gc
    from regstore.gc.policy import Policy

    options = GcOptions(delete_untagged=True, policy=Policy.parse(policy) if policy else None)
    return plan_gc(inventory, options, now=_NOW).blobs.dead


def _gc_by_policy(inventory: Inventory, folder: Path) -> int:
    return _gc(inventory, folder, _POLICY)


def _migrate(inventory: Inventory, folder: Path) -> int:
    from regstore.inventory.inventory import Inventory
    from regstore.inventory.tag_times import empty_record
    from regstore.migrate.estimate import Sides
    from regstore.migrate.options import MigrateOptions
    from regstore.migrate.plan import plan_migrate

    target = Inventory(folder / "target.duckdb")
    target.complete = True
    target.close()
    inventory.execute(f"attach '{folder / 'target.duckdb'}' as dst (read_only)")
    empty_record(inventory)
    empty_record(inventory, "source_record")
    summary = plan_migrate(
        inventory,
        MigrateOptions(),
        now=_NOW,
        source="here",
        place="here",
        target="there",
        pull_through=False,
        sides=Sides(source_s3=True, target_s3=True, copied_whole=None),
    )
    (folder / "target.duckdb").unlink()
    return summary.blobs.to_copy


def _verify(inventory: Inventory, folder: Path) -> int:
    from regstore.verify.plan import make_known, plan_verify

    make_known(inventory)
    return sum(plan_verify(inventory).counts.values())


def _backup(inventory: Inventory, folder: Path) -> int:
    from regstore.backup.packing import Packing

    packing = Packing(inventory)
    packing.plan([name for (name,) in inventory.all("select name from repository order by name")])
    return sum(summary.manifests for summary in packing.summaries.values())


#: Each returns the number of what it found: blobs that go, blobs to copy, faults, manifests that are packed.
PLANNERS: Final[dict[str, Callable[[Inventory, Path], int]]] = {
    "gc": _gc,
    "gc by policy": _gc_by_policy,
    "migrate": _migrate,
    "verify": _verify,
    "backup": _backup,
}


def _child(memory: str, *arguments: str) -> tuple[dict[str, float] | None, int, str]:
    """What a run in a process of its own printed, its largest resident set in bytes, and its last words."""
    command = [sys.executable, "-m", "benchmarks.large_plans", "--memory", memory, *arguments]
    done = run(command, environment())
    if done.exit_code:
        return None, done.memory, (done.stderr.strip().splitlines() or [f"exit code {done.exit_code}"])[-1]
    return (json.loads(done.stdout) if done.stdout.strip() else {}), done.memory, ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A planner on a registry. peak: bytes; failed: its last words."""

    shape: str
    planner: str
    keys: int
    peak: int
    wall: float = 0.0
    cpu: float = 0.0
    found: int = 0
    failed: str = ""

    def row(self) -> list[str]:
        times = [f"failed: {self.failed}", ""] if self.failed else [seconds(self.wall), seconds(self.cpu)]
        found = "" if self.failed else f"{self.found:,}"
        return [self.shape, f"{self.keys:,}", self.planner, *times, megabytes(self.peak), found]


def compare(keys: int, shape: str, planners: list[str], memory: str) -> Iterator[Measured]:
    with tempfile.TemporaryDirectory(prefix="large-plans-") as folder:
        made, _, words = _child(memory, "--generate", folder, "--keys", str(keys), "--shape", shape)
        if made is None:
            raise SystemExit(f"{keys:,} keys could not be generated: {words}")
        for name in planners:
            done, peak, words = _child(memory, "--plan", name, "--folder", folder)
            if done is None:
                yield Measured(shape=shape, planner=name, keys=keys, peak=peak, failed=words)
            else:
                yield Measured(
                    shape=shape,
                    planner=name,
                    keys=int(done["keys"]),
                    peak=peak,
                    wall=done["wall"],
                    cpu=done["cpu"],
                    found=int(done["found"]),
                )


def growth(measured: Sequence[Measured], sizes: Sequence[int]) -> str:
    """By planner and shape: microseconds of processor time a key, and the peak of memory, for each size."""
    cells: dict[tuple[str, str], list[str]] = {}
    for one in measured:
        said = "failed" if one.failed else f"{one.cpu / one.keys * 1e6:.1f} us, {megabytes(one.peak)}"
        cells.setdefault((one.planner, one.shape), []).append(said)
    header = ["planner", "shape", *(f"{size / 1e6:g} M" for size in sizes)]
    return table(header, [[*key, *row] for key, row in sorted(cells.items())])


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--bytes-a-key", type=int, default=30, help="DuckDB's limit grows with the keys")
    parser.add_argument("--memory", help="DuckDB's limit, the same for all")
    parser.add_argument("--shape", nargs="+", choices=("many", "giant"), default=["many", "giant"])
    parser.add_argument("--only", nargs="+", choices=PLANNERS, default=list(PLANNERS))
    parser.add_argument("--generate", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--plan", choices=PLANNERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.generate:
        generate(arguments.generate, arguments.keys[0], arguments.shape[0])
    elif arguments.plan:
        print(json.dumps(plan(arguments.plan, arguments.folder, arguments.memory)))
    else:
        described = machine()
        measured = []
        for shape in arguments.shape:
            for keys in arguments.keys:
                memory = arguments.memory or f"{max(_LEAST_MEMORY, keys * arguments.bytes_a_key)} B"
                for one in compare(keys, shape, arguments.only, memory):
                    measured.append(one)
                    print(" | ".join(one.row()), file=sys.stderr, flush=True)
        header = ["shape", "keys", "planner", "wall", "processor", "peak memory", "found"]
        print(table(header, [one.row() for one in measured]), end="\n\n")
        print(growth(measured, arguments.keys), end="\n\n")
        print(described)
        print("python -m benchmarks.large_plans " + " ".join(sys.argv[1:]))


if __name__ == "__main__":
    main()
