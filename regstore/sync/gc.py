"""`regstore.gc` without `await`."""

from __future__ import annotations

from regstore import gc as asynchronous
from regstore.gc import GcSummary, Healed, RepositoryRemoval, TrashedRun
from regstore.gc.removal.run import open_removal as _open_removal
from regstore.gc.run import open_run as _open_run  # mypy does not find it through the package
from regstore.inventory.inventory import Inventory
from regstore.sync.blocking import Blocking, closed_after, context, context_of, function, method

__all__ = [
    "GcRun",
    "Removal",
    "apply_restore",
    "apply_tag",
    "empty_trash",
    "find_trash",
    "heal_store",
    "hold_lock",
    "open_redis",
    "open_removal",
    "open_run",
    "plan_heal",
    "plan_restore",
    "plan_tag",
]


class GcRun(Blocking[asynchronous.GcRun]):
    """As `regstore.gc.GcRun`. Properties are written out: there is no type for "the property of that name"."""

    @property
    def inventory(self) -> Inventory:
        return self._wrapped.inventory

    @property
    def summary(self) -> GcSummary:
        return self._wrapped.summary

    @property
    def healed(self) -> Healed:
        return self._wrapped.healed

    @property
    def expired(self) -> list[TrashedRun]:
        return self._wrapped.expired

    @property
    def overdue(self) -> tuple[str, ...]:
        return self._wrapped.overdue

    @property
    def nothing_to_do(self) -> bool:
        return self._wrapped.nothing_to_do

    @property
    def database(self) -> str:
        return self._wrapped.database

    @property
    def stops(self) -> list[str]:
        return self._wrapped.stops

    def check(self) -> None:
        """As `regstore.gc.GcRun.check`."""
        self._wrapped.check()

    apply = method(asynchronous.GcRun.apply)
    rest = method(asynchronous.GcRun.rest)
    remember = method(asynchronous.GcRun.remember)


class Removal(Blocking[asynchronous.Removal]):
    """As `regstore.gc.Removal`."""

    @property
    def repositories(self) -> tuple[RepositoryRemoval, ...]:
        return self._wrapped.repositories

    apply = method(asynchronous.Removal.apply)


apply_restore = function(asynchronous.apply_restore)
apply_tag = function(asynchronous.apply_tag)
empty_trash = function(asynchronous.empty_trash)
find_trash = function(asynchronous.find_trash)
heal_store = function(asynchronous.heal_store)
hold_lock = context(asynchronous.hold_lock)
open_redis = closed_after(asynchronous.open_redis)
open_removal = context_of(_open_removal, Removal)
open_run = context_of(_open_run, GcRun)
plan_heal = function(asynchronous.plan_heal)
plan_restore = function(asynchronous.plan_restore)
plan_tag = function(asynchronous.plan_tag)
