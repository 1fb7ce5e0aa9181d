"""What `regstore rm` and `regstore untag` do, once it is known what was named."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regstore.cli.confirm import OR_LOOK, confirm_shown, refuse_silent
from regstore.cli.locks import break_locks_openly, hold_lock_openly
from regstore.cli.options import BreakLock, PlanOnly, Yes
from regstore.cli.outcome import Result
from regstore.cli.output import counted, emit, emit_error, emit_some, plain, printable
from regstore.cli.progress import Shown
from regstore.cli.registry_cache import CacheOptions, open_cache, remember_cache
from regstore.cli.settings import StoreSettings
from regstore.cli.whose import refuse_told
from regstore.errors import EXIT_FAILURE, EXIT_OK, EXIT_PARTIAL

if TYPE_CHECKING:
    from regstore.gc.caches import RegistryCache
    from regstore.gc.removal.named import Named
    from regstore.gc.removal.plan import RepositoryRemoval
    from regstore.gc.removal.run import Removal, RemovalOptions, RemovalReport
    from regstore.storage.base import Storage
    from regstore.storage.registry_config import RegistryConfig

_MORE = "  … and {} more (--json names them all)"


@dataclass(frozen=True, kw_only=True)
class How:
    """What is shown and asked first, and how it is printed."""

    dry_run: PlanOnly = False
    yes: Yes = False
    break_lock: BreakLock = False


@dataclass(frozen=True, kw_only=True)
class Removing:
    """One call of the command. told: of the registry's cache; None where only tags go, of which no cache knows."""

    settings: StoreSettings
    named: Named
    options: RemovalOptions
    told: CacheOptions | None
    how: How
    shown: Shown

    async def run(self) -> Result:
        from regstore.gc.planning import require_registry
        from regstore.gc.removal.run import open_removal
        from regstore.inventory.whose import Use

        how = self.how
        refuse_silent(yes=how.yes or how.dry_run, else_say=OR_LOOK)
        storage, config = self.settings.open_with_config(read_only=how.dry_run)
        refuse_told(storage.url, config, Use.REMOVE)
        on_event = self.shown.show
        async with storage:
            if how.dry_run:
                async with open_removal(storage, self.named, self.options, on_event=on_event) as removal:
                    self._show(removal)
                    return Result(data=_plan_json(removal), numbers=_numbers(removal))
            async with self._cache(storage, config) as cache:
                if how.break_lock:
                    await break_locks_openly(storage)
                await require_registry(storage)
                async with (
                    hold_lock_openly(storage, command=self.options.command) as lock,
                    open_removal(
                        storage, self.named, self.options, lock, cache=cache, on_event=on_event
                    ) as removal,
                ):
                    if self.told is not None:
                        await remember_cache(storage, cache.known)
                    return await self._apply(removal)

    def _cache(self, storage: Storage, config: RegistryConfig | None) -> AbstractAsyncContextManager[RegistryCache]:
        from regstore.gc.caches import NoCache

        if self.told is None:
            return nullcontext(NoCache("unknown"))
        return open_cache(storage, self.told, config)

    async def _apply(self, removal: Removal) -> Result:
        self._show(removal)
        if not await confirm_shown("Remove this?", yes=self.how.yes):
            emit_error("nothing was removed")
            return Result()
        report = await removal.apply()
        self.shown.clear()
        _tell(report)
        done = {
            "removed_tags": report.tags,
            "removed_revisions": report.revisions,
            "failures": len(report.failures),
        }
        return Result(
            exit_code=_exit_code(report),
            data=_plan_json(removal) | {"report": report},
            numbers=_numbers(removal) | done,
        )

    def _show(self, removal: Removal) -> None:
        self.shown.clear()
        for one in removal.repositories:
            _show_one(one)
        emit("Layers and other blobs stay until a later `regstore gc`.")


def _plan_json(removal: Removal) -> dict[str, Any]:
    repositories = [
        plain(one) | {"tags": [{"tag": tag, "digest": digest} for tag, digest in one.tags]}
        for one in removal.repositories
    ]
    return {"plan": {"repositories": repositories}, "report": None}


def _numbers(removal: Removal) -> dict[str, float]:
    return {
        "tags": sum(len(one.tags) for one in removal.repositories),
        "revisions": sum(len(one.revisions) for one in removal.repositories),
    }


def _show_one(one: RepositoryRemoval) -> None:
    all_of_it = ", all of it" if one.whole else ""
    what = f"{counted(len(one.tags), 'tag')}, {counted(len(one.revisions), 'image')}"
    emit(f"{one.name}{all_of_it}: {what} to remove")
    lines = [f"  {one.name}:{tag}  {digest or 'names nothing'}" for tag, digest in one.tags]
    emit_some([printable(line) for line in lines], _MORE)
    emit_some([f"  {one.name}@{digest}" for digest in one.revisions], _MORE)
    attached = [f"{one.name}:{tag}" for tag in one.attached_tags]
    attached += [f"{one.name}@{digest}" for digest in one.referrers]
    if attached:
        emit(f"  about these, and stays, unless it is named, too: {counted(len(attached), 'manifest')}")
        emit_some([f"    {printable(name)}" for name in attached], f"  {_MORE}")
    if one.nested:
        emit(f"  stays: {counted(len(one.nested), 'repository', 'repositories')} within that name")
        emit_some([f"    {printable(name)}" for name in one.nested], f"  {_MORE}")


def _tell(report: RemovalReport) -> None:
    emit(f"removed {counted(report.tags, 'tag')}, {counted(report.revisions, 'image')}")
    if report.kept:
        emit("changed, or came into use meanwhile, and stays:")
        emit_some([f"  {printable(word)}" for word in report.kept], _MORE)
    if report.given_back:
        emit(f"given back, for somebody needed them meanwhile: {counted(len(report.given_back), 'link')}")
    for failure in report.failures:
        emit_error(printable(failure))
    if not report.nothing_went:
        emit(f"run {report.run}: undo with `regstore trash restore --run {report.run}`")


def _exit_code(report: RemovalReport) -> int:
    if report.failures:
        return EXIT_FAILURE if report.nothing_went else EXIT_PARTIAL
    return EXIT_PARTIAL if report.kept_back or report.given_back else EXIT_OK
