"""`--workers`: the processes of a command, for as long as it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from regstore.tasks import Pool, Runner

#: Of the command that runs; they are closed at the end of its work.
_POOLS: Final[list[Pool]] = []


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How many processes list, read and copy."""

    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            max=256,
            show_default="as many as cores may be used",
            help="Processes that list, read and copy, where there is much to do.",
        ),
    ] = None

    def runner(self, concurrency: int) -> Runner:
        """None of its processes is there before it has something to do. concurrency: requests at once, of all."""
        from regstore.tasks import HERE, Pool
        from regstore.tasks.pool import usual_size

        size = self.workers or usual_size()
        if size < 2:
            return HERE
        pool = Pool(size, concurrency=concurrency)
        _POOLS.append(pool)
        return pool


async def end_workers() -> None:
    """Those of this command."""
    while _POOLS:
        await _POOLS.pop().close()
