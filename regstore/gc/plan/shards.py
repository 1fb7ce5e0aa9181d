"""A store planned in shards: some repositories at a time, wherever there is room for them, by the same parts.

A shard is an inventory that holds some repositories, with all rows of theirs: links, tags, uploads; of litter what
stands in their own folders, and of the unknown keys what lies in them, also where that is all there is of a
repository (any shard takes what lies in none). Ids of repositories are the shard's own. It holds no blobs. These are
planned in shards of their own, by digest, one or many. The whole is an inventory with the unknown keys and the litter,
and no links. What crosses, in the order of the plan:

| what | from | to |
|---|---|---|
| `manifest` and `edge` of what it follows: `ask_for_manifests` | wherever manifests are known | the shard that asks |
| gc_reached_odd, after `plan_roots` | each shard | those that have such links, before `plan_links` |
| why no blob may go, the result of `plan_links`, and the newest link | each shard | the shards of blobs |
| BY_DIGEST, after `plan_links`: each row | each shard | the shard that has blobs of its digest, before `plan_blobs` |
| standing_repository, after `plan_links` | each shard | the whole, before `plan_whole` |
| `blob` and gc_dead_blob of what it asks for: `ask_for_blobs` | the shards of blobs | the whole, before `plan_whole` |
| `Facts`, of each at its end | all | `summarize` |

gc_reached_odd: a link by another algorithm than sha256 tells which blob such a reference means, in whatever repository
it stands; so it stays where any repository reaches its digest.

The plan of the store is then what the shards have in gc_unlink, gc_protected and the other relations, the shards of
blobs in gc_dead_blob, and the whole in gc_dead_litter: the same as `plan_gc` of one inventory.
"""

from __future__ import annotations

from typing import Final

from regstore.gc.plan.blobs import find_live, make_exchange, sweep
from regstore.gc.plan.facts import (
    Facts,
    find_blob_facts,
    find_shard_facts,
    find_whole_facts,
    make_freed,
)
from regstore.gc.plan.links import collect
from regstore.gc.plan.litter import (
    collect_outer_litter,
    find_places,
    find_standing,
    in_folders_of_blobs,
    make_standing,
)
from regstore.gc.plan.question import Question
from regstore.gc.plan.roots import mark
from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import Statements
from regstore.inventory.unlinked import LINKED, find_unlinked
from regstore.layout import DIGEST_PATH_RE, REPOSITORIES
from regstore.manifest import EdgeKind

_SQL: Final = Statements(
    "regstore.gc.plan",
    "shards.sql",
    manifest=str(int(EdgeKind.MANIFEST)),
    digest_path=DIGEST_PATH_RE,
    repositories=REPOSITORIES,
    linked=LINKED,
)
#: Relations with a column `digest`, which each shard has after `plan_links`: what its repositories keep; what unknown
#: keys do; the digests that links name; the dead links' digests, with the repository's `name`; those that the `key` of
#: an unknown key names.
BY_DIGEST: Final = ("live_blob", "unknown_reach", "linked_digest", "freed_blob", "named_by_unknown")


def ask_for_manifests(shard: Inventory, round: int) -> list[bytes]:
    """Digests whose rows of `manifest` and `edge` are to be put into the shard before the next round. Rounds count from
    1; the last one asks for none."""
    if round == 1:
        _SQL.run(shard, "asked")
    _SQL.run(shard, "ask", {"round": round})
    return [bytes(raw) for (raw,) in shard.all("select digest from asked_manifest where round = ?", [round])]


def plan_roots(question: Question) -> None:
    """What the shard's repositories keep; gc_reached_odd is what other shards have to know of it."""
    mark(question)


def plan_links(question: Question) -> str:
    """What goes of the shard's repositories; gc_reached_odd holds that of all shards. Why no blob of the store may go,
    "" where nothing here says so."""
    collect(question)
    if "litter" not in question.present:
        find_standing(question)  # litter of no repository may wait for it
    make_exchange(question)
    why = find_live(question)
    question.make_tables("blobs")
    return why


def facts_of_links(question: Question) -> Facts:
    """After `plan_links`; it makes what is left of BY_DIGEST."""
    facts = find_shard_facts(question)
    _SQL.run(question.inventory, "by_digest")
    return facts


def plan_look(question: Question) -> str:
    """Instead of these two, for a later look, when links are gone already (`gc.plan.plan_blobs`): live_blob and
    unknown_reach are what no candidate may be, and gc_protected the repositories of which nothing goes. Why no blob may
    go, "" where nothing here says so. The question's options are those of `keeping_all`."""
    make_exchange(question)
    mark(question)
    return find_live(question, links_go=False)


def open_blobs(question: Question) -> None:
    """A shard of blobs: BY_DIGEST, empty, for the shards to fill; and the relations of what goes."""
    question.make_tables("links")
    make_exchange(question)
    make_freed(question)
    _SQL.run(question.inventory, "no_by_digest")


def plan_blobs(question: Question, *, blocked: bool, newest_link: int | None) -> Facts:
    """The blobs that go, by what all shards keep. blocked: one of these says that no blob may go."""
    _SQL.run(question.inventory, "take_by_digest")
    held = sweep(question, blocked=blocked, any_held=True)
    unlinked = find_unlinked(question.inventory, since=newest_link, linked="select digest from linked_digest")
    return find_blob_facts(question, held, unlinked)


def open_whole(question: Question) -> None:
    """The whole's relations, empty: standing_repository, gc_dead_blob, for shards to fill; and those of what goes."""
    question.make_tables("links")
    question.make_tables("blobs")
    make_standing(question)


def ask_for_blobs(question: Question) -> list[bytes]:
    """Digests in whose blobs' folders litter stands that may go. What is there of these, and what goes, the whole has
    to know."""
    find_places(question)
    return in_folders_of_blobs(question)


def plan_whole(question: Question) -> Facts:
    """The litter that stands in no repository's own folders. `ask_for_blobs` was called."""
    collect_outer_litter(question)
    return find_whole_facts(question)
