"""What a plan costs in requests to S3: SQL over its tables, pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from regstore.inventory.inventory import Inventory
from regstore.migrate.options import MigrateOptions, Verify
from regstore.migrate.result import Estimate
from regstore.state import tag_record
from regstore.storage.sizes import COPY_PART, ONE_REQUEST, PART, RANGE

#: An upload in parts takes two requests more, and it is written down.
_PUTS: Final = f"case when size <= {ONE_REQUEST} then 1 else ceil(size / {PART}) + 3 end"
_COPIES: Final = f"case when size <= {{}} then 1 else ceil(size / {COPY_PART}) + 3 end"
_GETS: Final = f"case when size <= {RANGE} then 1 else ceil(size / {RANGE}) end"
_LINKS: Final = (
    *("layer_link", "revision_link", "signature_link", "tag", "tag_index", "upload_part"),
    *("litter", "unknown"),
)
#: Of unfinished uploads; at the target also of the record, and of locks and journals before, meanwhile and after.
_LISTS_MORE: Final = {"main": 2, "dst": 8}


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Which of the two are S3. copied_whole: up to so many bytes the server copies in one request from one to the
    other, None where it does not copy."""

    source_s3: bool
    target_s3: bool
    copied_whole: int | None


def estimate(inventory: Inventory, sides: Sides, options: MigrateOptions) -> Estimate:
    """Of a run that does the plan: both listed again, the manifests known already."""
    reads = writes = lists = 0
    whole = sides.copied_whole
    unseen = "false" if whole is None else "not suspect"
    if sides.source_s3:
        reads += _sum(inventory, _GETS, f"migrate_blob where not ({unseen})")
        lists += _lists(inventory, "main")
    if sides.target_s3:
        writes += _sum(inventory, _PUTS, f"migrate_blob where not ({unseen})")
        writes += _sum(inventory, _COPIES.format(whole or 0), f"migrate_blob where {unseen}")
        links = ("layer_link", "revision", "signature", "tag_index", "tag")
        writes += sum(inventory.count(f"migrate_{table}") for table in links)
        writes += 2 * -(-inventory.count("migrate_tag") // tag_record.LINES)
        # A HEAD of each copy, and of what is copied in parts.
        reads += _sum(inventory, f"1 + (size > {whole or 0})::int", f"migrate_blob where {unseen}")
        if not options.overwrite_tags:
            reads += _sum(inventory, "1", "migrate_tag where present")
        if options.verify is Verify.FULL:
            reads += _sum(inventory, _GETS, "live_blob")
        lists += _lists(inventory, "dst")
    return Estimate(writes=writes, reads=reads, lists=lists)


def _sum(inventory: Inventory, what: str, rows: str) -> int:
    return int(inventory.one(f"select coalesce(sum({what}), 0)::bigint from {rows}"))


def _lists(inventory: Inventory, side: str) -> int:
    keys = [inventory.count(f"{side}.blob"), sum(inventory.count(f"{side}.{table}") for table in _LINKS)]
    return sum(max(1, -(-number // 1000)) for number in keys) + _LISTS_MORE[side]
