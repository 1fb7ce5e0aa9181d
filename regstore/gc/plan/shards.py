"""A store planned in shards: some repositories at a time, wherever there is room for them, by the same parts.

A shard is an inventory that holds some repositories, with all rows of theirs: links, tags, uploads; of litter what
stands in their own folders, and of the unknown keys what lies in them, also where that is all there is of a
repository (any shard takes what lies in none). Ids of repositories are the shard's own. It holds no blobs. The whole
is an inventory with the blobs, the unknown keys and the litter, and no links. What crosses, in the order of the plan:

| what | from | to |
|---|---|---|
| `manifest` and `edge` of what it follows: `ask_for_manifests` | wherever manifests are known | the shard that asks |
| gc_reached_odd, after `plan_roots` | each shard | all shards, before `plan_links` |
| why no blob may go, the result of `plan_links` | each shard | the whole, where one is enough |
| live_blob, unknown_reach, standing_repository, after `plan_links` | each shard | the whole, before `plan_whole` |

gc_reached_odd: a link by another algorithm than sha256 tells which blob such a reference means, in whatever repository
it stands; so it stays where any repository reaches its digest.

The plan of the store is then what the shards have in gc_unlink, gc_protected and the other relations, and the whole in
gc_dead_blob and gc_dead_litter: the same as `plan_gc` of one inventory.
"""

from __future__ import annotations

from typing import Final

from regstore.gc.plan.blobs import Held, find_live, make_exchange, sweep
from regstore.gc.plan.links import collect
from regstore.gc.plan.litter import collect_outer_litter, find_places, find_standing, make_standing
from regstore.gc.plan.question import Question
from regstore.gc.plan.roots import mark
from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import Statements
from regstore.manifest import EdgeKind

_SQL: Final = Statements("regstore.gc.plan", "shards.sql", manifest=str(int(EdgeKind.MANIFEST)))


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
    return find_live(question)


def open_whole(question: Question) -> None:
    """The whole's relations, empty: live_blob, unknown_reach and standing_repository, for the shards to fill; and those
    of what goes."""
    question.make_tables("links")
    make_exchange(question)
    make_standing(question)


def plan_whole(question: Question, *, blocked: bool) -> Held:
    """The blobs that go, by what all shards keep; and the litter that stands in no repository's own folders. blocked:
    one of the shards says that no blob may go."""
    find_places(question)
    held = sweep(question, blocked=blocked)
    collect_outer_litter(question)
    return held
